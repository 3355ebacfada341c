[000h 0000   4]                    Signature : "XSDT"    [Extended System Description Table]
[004h 0004   4]                 Table Length : 0000004C
[008h 0008   1]                     Revision : 01
[009h 0009   1]                     Checksum : ED
[00Ah 0010   6]                       Oem ID : "COALSC"
[010h 0016   8]                 Oem Table ID : "COALESCE"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "COAL"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   8]       ACPI Table Address   0 : 00000000000E0350
[02Ch 0044   8]       ACPI Table Address   1 : 00000000000E0470
[034h 0052   8]       ACPI Table Address   2 : 00000000000E0510
[03Ch 0060   8]       ACPI Table Address   3 : 00000000000E0680
[044h 0068   8]       ACPI Table Address   4 : 00000000000E06C0

Raw Table Data: Length 76 (0x4C)

    0000: 58 53 44 54 4C 00 00 00 01 ED 43 4F 41 4C 53 43  // XSDTL.....COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 50 03 0E 00 00 00 00 00 70 04 0E 00  // ....P.......p...
    0030: 00 00 00 00 10 05 0E 00 00 00 00 00 80 06 0E 00  // ................
    0040: 00 00 00 00 C0 06 0E 00 00 00 00 00              // ............
