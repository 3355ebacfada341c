[000h 0000   4]                    Signature : "SRAT"    [System Resource Affinity Table]
[004h 0004   4]                 Table Length : 00000170
[008h 0008   1]                     Revision : 03
[009h 0009   1]                     Checksum : 7B
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
[04Ch 0076   4]             Proximity Domain : 00000000
[050h 0080   4]                      Apic ID : 00000001
[054h 0084   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[058h 0088   4]                 Clock Domain : 00000000
[05Ch 0092   4]                    Reserved2 : 00000000

[060h 0096   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[061h 0097   1]                       Length : 18

[062h 0098   2]                    Reserved1 : 0000
[064h 0100   4]             Proximity Domain : 00000001
[068h 0104   4]                      Apic ID : 00000020
[06Ch 0108   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[070h 0112   4]                 Clock Domain : 00000000
[074h 0116   4]                    Reserved2 : 00000000

[078h 0120   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[079h 0121   1]                       Length : 18

[07Ah 0122   2]                    Reserved1 : 0000
[07Ch 0124   4]             Proximity Domain : 00000002
[080h 0128   4]                      Apic ID : 00000040
[084h 0132   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[088h 0136   4]                 Clock Domain : 00000000
[08Ch 0140   4]                    Reserved2 : 00000000

[090h 0144   1]                Subtable Type : 02 [Processor Local x2APIC Affinity]
[091h 0145   1]                       Length : 18

[092h 0146   2]                    Reserved1 : 0000
[094h 0148   4]             Proximity Domain : 00000003
[098h 0152   4]                      Apic ID : 00000060
[09Ch 0156   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
[0A0h 0160   4]                 Clock Domain : 00000000
[0A4h 0164   4]                    Reserved2 : 00000000

[0A8h 0168   1]                Subtable Type : 01 [Memory Affinity]
[0A9h 0169   1]                       Length : 28

[0AAh 0170   4]             Proximity Domain : 00000000
[0AEh 0174   2]                    Reserved1 : 0000
[0B0h 0176   8]                 Base Address : 0000000000000000
[0B8h 0184   8]               Address Length : 00000000C0000000
[0C0h 0192   4]                    Reserved2 : 00000000
[0C4h 0196   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[0C8h 0200   8]                    Reserved3 : 0000000000000000

[0D0h 0208   1]                Subtable Type : 01 [Memory Affinity]
[0D1h 0209   1]                       Length : 28

[0D2h 0210   4]             Proximity Domain : 00000000
[0D6h 0214   2]                    Reserved1 : 0000
[0D8h 0216   8]                 Base Address : 0000000100000000
[0E0h 0224   8]               Address Length : 00000000C0000000
[0E8h 0232   4]                    Reserved2 : 00000000
[0ECh 0236   4]        Flags (decoded below) : 00000001
                                     Enabled : 1
                               Hot Pluggable : 0
                                Non-Volatile : 0
[0F0h 0240   8]                    Reserved3 : 0000000000000000

[0F8h 0248   1]                Subtable Type : 01 [Memory Affinity]
[0F9h 0249   1]                       Length : 28

[0FAh 0250   4]             Proximity Domain : 00000001
[0FEh 0254   2]                    Reserved1 : 0000
[100h 0256   8]                 Base Address : 0000000200000000
[108h 0264   8]               Address Length : 0000000200000000
[110h 0272   4]                    Reserved2 : 00000000
[114h 0276   4]        Flags (decoded below) : 00000003
                                     Enabled : 1
                               Hot Pluggable : 1
                                Non-Volatile : 0
[118h 0280   8]                    Reserved3 : 0000000000000000

[120h 0288   1]                Subtable Type : 01 [Memory Affinity]
[121h 0289   1]                       Length : 28

[122h 0290   4]             Proximity Domain : 00000002
[126h 0294   2]                    Reserved1 : 0000
[128h 0296   8]                 Base Address : 0000000400000000
[130h 0304   8]               Address Length : 0000000200000000
[138h 0312   4]                    Reserved2 : 00000000
[13Ch 0316   4]        Flags (decoded below) : 00000003
                                     Enabled : 1
                               Hot Pluggable : 1
                                Non-Volatile : 0
[140h 0320   8]                    Reserved3 : 0000000000000000

[148h 0328   1]                Subtable Type : 01 [Memory Affinity]
[149h 0329   1]                       Length : 28

[14Ah 0330   4]             Proximity Domain : 00000003
[14Eh 0334   2]                    Reserved1 : 0000
[150h 0336   8]                 Base Address : 0000000600000000
[158h 0344   8]               Address Length : 0000000400000000
[160h 0352   4]                    Reserved2 : 00000000
[164h 0356   4]        Flags (decoded below) : 00000003
                                     Enabled : 1
                               Hot Pluggable : 1
                                Non-Volatile : 0
[168h 0360   8]                    Reserved3 : 0000000000000000

Raw Table Data: Length 368 (0x170)

    0000: 53 52 41 54 70 01 00 00 03 7B 43 4F 41 4C 53 43  // SRATp....{COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0030: 02 18 00 00 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    0040: 00 00 00 00 00 00 00 00 02 18 00 00 00 00 00 00  // ................
    0050: 01 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    0060: 02 18 00 00 01 00 00 00 20 00 00 00 01 00 00 00  // ........ .......
    0070: 00 00 00 00 00 00 00 00 02 18 00 00 02 00 00 00  // ................
    0080: 40 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // @...............
    0090: 02 18 00 00 03 00 00 00 60 00 00 00 01 00 00 00  // ........`.......
    00A0: 00 00 00 00 00 00 00 00 01 28 00 00 00 00 00 00  // .........(......
    00B0: 00 00 00 00 00 00 00 00 00 00 00 C0 00 00 00 00  // ................
    00C0: 00 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00  // ................
    00D0: 01 28 00 00 00 00 00 00 00 00 00 00 01 00 00 00  // .(..............
    00E0: 00 00 00 C0 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    00F0: 00 00 00 00 00 00 00 00 01 28 01 00 00 00 00 00  // .........(......
    0100: 00 00 00 00 02 00 00 00 00 00 00 00 02 00 00 00  // ................
    0110: 00 00 00 00 03 00 00 00 00 00 00 00 00 00 00 00  // ................
    0120: 01 28 02 00 00 00 00 00 00 00 00 00 04 00 00 00  // .(..............
    0130: 00 00 00 00 02 00 00 00 00 00 00 00 03 00 00 00  // ................
    0140: 00 00 00 00 00 00 00 00 01 28 03 00 00 00 00 00  // .........(......
    0150: 00 00 00 00 06 00 00 00 00 00 00 00 04 00 00 00  // ................
    0160: 00 00 00 00 03 00 00 00 00 00 00 00 00 00 00 00  // ................
