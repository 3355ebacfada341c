[000h 0000   4]                    Signature : "SRAT"    [System Resource Affinity Table]
[004h 0004   4]                 Table Length : 00000070
[008h 0008   1]                     Revision : 03
[009h 0009   1]                     Checksum : D8
[00Ah 0010   6]                       Oem ID : "COALSC"
[010h 0016   8]                 Oem Table ID : "COALESCE"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "COAL"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   4]               Table Revision : 00000001
[028h 0040   8]                     Reserved : 0000000000000000

[030h 0048   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[031h 0049   1]                       Length : 18

[032h 0050   2]                    Reserved1 : 0000
[034h 0052   4]             Proximity Domain : 00000000
[038h 0056   4]                      Apic ID : 00000000
[03Ch 0060   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[040h 0064   4]                 Clock Domain : 00000000
[044h 0068   4]                    Reserved2 : 00000000

[048h 0072   1]                Subtable Type : 01 [Memory Affinity]
[049h 0073   1]                       Length : 28

[04Ah 0074   4]             Proximity Domain : 00000000
[04Eh 0078   2]                    Reserved1 : 0000
[050h 0080   8]                 Base Address : 0000000000000000
[058h 0088   8]               Address Length : 0000000020000000
[060h 0096   4]                    Reserved2 : 00000000
[064h 0100   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[068h 0104   8]                    Reserved3 : 0000000000000000

Raw Table Data: Length 112 (0x70)

    0000: 53 52 41 54 70 00 00 00 03 D8 43 4F 41 4C 53 43  // SRATp.....COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0030: 02 18 00 00 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    0040: 00 00 00 00 00 00 00 00 01 28 00 00 00 00 00 00  // .........(......
    0050: 00 00 00 00 00 00 00 00 00 00 00 20 00 00 00 00  // ........... ....
    0060: 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
