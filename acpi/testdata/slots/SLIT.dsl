[000h 0000   4]                    Signature : "SLIT"    [System Locality Information Table]
[004h 0004   4]                 Table Length : 0000003C
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : 1E
[00Ah 0010   6]                       Oem ID : "COALSC"
[010h 0016   8]                 Oem Table ID : "COALESCE"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "COAL"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   8]                   Localities : 0000000000000004
[02Ch 0044   4]                 Locality   0 : 0A 14 28 A0
[030h 0048   4]                 Locality   1 : 14 0A 3C B4
[034h 0052   4]                 Locality   2 : 28 3C 0A C8
[038h 0056   4]                 Locality   3 : A0 B4 C8 0A

Raw Table Data: Length 60 (0x3C)

    0000: 53 4C 49 54 3C 00 00 00 01 1E 43 4F 41 4C 53 43  // SLIT<.....COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 04 00 00 00 00 00 00 00 0A 14 28 A0  // ..............(.
    0030: 14 0A 3C B4 28 3C 0A C8 A0 B4 C8 0A              // ..<.(<......
