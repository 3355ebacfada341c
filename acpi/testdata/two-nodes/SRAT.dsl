[000h 0000   4]                    Signature : "SRAT"    [System Resource Affinity Table]
[004h 0004   4]                 Table Length : 000000B0
[008h 0008   1]                     Revision : 03
[009h 0009   1]                     Checksum : AD
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

[048h 0072   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[049h 0073   1]                       Length : 18

[04Ah 0074   2]                    Reserved1 : 0000
[04Ch 0076   4]             Proximity Domain : 00000001
[050h 0080   4]                      Apic ID : 00000001
[054h 0084   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[058h 0088   4]                 Clock Domain : 00000000
[05Ch 0092   4]                    Reserved2 : 00000000

[060h 0096   1]                Subtable Type : 01 [Memory Affinity]
[061h 0097   1]                       Length : 28

[062h 0098   4]             Proximity Domain : 00000000
[066h 0102   2]                    Reserved1 : 0000
[068h 0104   8]                 Base Address : 0000000000000000
[070h 0112   8]               Address Length : 0000000040000000
[078h 0120   4]                    Reserved2 : 00000000
[07Ch 0124   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[080h 0128   8]                    Reserved3 : 0000000000000000

[088h 0136   1]                Subtable Type : 01 [Memory Affinity]
[089h 0137   1]                       Length : 28

[08Ah 0138   4]             Proximity Domain : 00000001
[08Eh 0142   2]                    Reserved1 : 0000
[090h 0144   8]                 Base Address : 0000000100000000
[098h 0152   8]               Address Length : 0000000080000000
[0A0h 0160   4]                    Reserved2 : 00000000
[0A4h 0164   4]        Flags (decoded below) : 00000003
                                     Enabled : 1
                               Hot Pluggable : 1
                                Non-Volatile : 0
[0A8h 0168   8]                    Reserved3 : 0000000000000000

Raw Table Data: Length 176 (0xB0)

    0000: 53 52 41 54 B0 00 00 00 03 AD 43 4F 41 4C 53 43  // SRAT......COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0030: 02 18 00 00 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    0040: 00 00 00 00 00 00 00 00 02 18 00 00 01 00 00 00  // ................
    0050: 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0060: 01 28 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // .(..............
    0070: 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00 00  // ...@............
    0080: 00 00 00 00 00 00 00 00 01 28 01 00 00 00 00 00  // .........(......
    0090: 00 00 00 00 01 00 00 00 00 00 00 80 00 00 00 00  // ................
    00A0: 00 00 00 00 03 00 00 00 00 00 00 00 00 00 00 00  // ................
