[000h 0000   4]                    Signature : "HMAT"    [Heterogeneous Memory Attributes Table]
[004h 0004   4]                 Table Length : 00000188
[008h 0008   1]                     Revision : 02
[009h 0009   1]                     Checksum : C3
[00Ah 0010   6]                       Oem ID : "COALSC"
[010h 0016   8]                 Oem Table ID : "COALESCE"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "COAL"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   4]                     Reserved : 00000000

[028h 0040   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[02Ah 0042   2]                     Reserved : 0000
[02Ch 0044   4]                       Length : 00000028
[030h 0048   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[032h 0050   2]                    Reserved1 : 0000
[034h 0052   4] Attached Initiator Proximity Domain : 00000000
[038h 0056   4]      Memory Proximity Domain : 00000000
[03Ch 0060   4]                    Reserved2 : 00000000
[040h 0064   8]                    Reserved3 : 0000000000000000
[048h 0072   8]                    Reserved4 : 0000000000000000

[050h 0080   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[052h 0082   2]                     Reserved : 0000
[054h 0084   4]                       Length : 00000028
[058h 0088   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[05Ah 0090   2]                    Reserved1 : 0000
[05Ch 0092   4] Attached Initiator Proximity Domain : 00000001
[060h 0096   4]      Memory Proximity Domain : 00000001
[064h 0100   4]                    Reserved2 : 00000000
[068h 0104   8]                    Reserved3 : 0000000000000000
[070h 0112   8]                    Reserved4 : 0000000000000000

[078h 0120   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[07Ah 0122   2]                     Reserved : 0000
[07Ch 0124   4]                       Length : 00000028
[080h 0128   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[082h 0130   2]                    Reserved1 : 0000
[084h 0132   4] Attached Initiator Proximity Domain : 00000002
[088h 0136   4]      Memory Proximity Domain : 00000002
[08Ch 0140   4]                    Reserved2 : 00000000
[090h 0144   8]                    Reserved3 : 0000000000000000
[098h 0152   8]                    Reserved4 : 0000000000000000

[0A0h 0160   2]               Structure Type : 0000 [Memory Proximity Domain Attributes]
[0A2h 0162   2]                     Reserved : 0000
[0A4h 0164   4]                       Length : 00000028
[0A8h 0168   2]        Flags (decoded below) : 0001
            Processor Proximity Domain Valid : 1
[0AAh 0170   2]                    Reserved1 : 0000
[0ACh 0172   4] Attached Initiator Proximity Domain : 00000003
[0B0h 0176   4]      Memory Proximity Domain : 00000003
[0B4h 0180   4]                    Reserved2 : 00000000
[0B8h 0184   8]                    Reserved3 : 0000000000000000
[0C0h 0192   8]                    Reserved4 : 0000000000000000

[0C8h 0200   2]               Structure Type : 0001 [System Locality Latency and Bandwidth Information]
[0CAh 0202   2]                     Reserved : 0000
[0CCh 0204   4]                       Length : 00000060
[0D0h 0208   1]        Flags (decoded below) : 00
                            Memory Hierarchy : 0
[0D1h 0209   1]                    Data Type : 00
[0D2h 0210   2]                    Reserved1 : 0000
[0D4h 0212   4] Initiator Proximity Domains # : 00000004
[0D8h 0216   4]   Target Proximity Domains # : 00000004
[0DCh 0220   4]                    Reserved2 : 00000000
[0E0h 0224   8]              Entry Base Unit : 00000000000186A0
[0E8h 0232   4] Initiator Proximity Domain List : 00000000
[0ECh 0236   4] Initiator Proximity Domain List : 00000001
[0F0h 0240   4] Initiator Proximity Domain List : 00000002
[0F4h 0244   4] Initiator Proximity Domain List : 00000003
[0F8h 0248   4] Target Proximity Domain List : 00000000
[0FCh 0252   4] Target Proximity Domain List : 00000001
[100h 0256   4] Target Proximity Domain List : 00000002
[104h 0260   4] Target Proximity Domain List : 00000003
[108h 0264   2]                        Entry : 0001
[10Ah 0266   2]                        Entry : 01F4
[10Ch 0268   2]                        Entry : 0FA0
[10Eh 0270   2]                        Entry : A7C5
[110h 0272   2]                        Entry : 01F4
[112h 0274   2]                        Entry : 0001
[114h 0276   2]                        Entry : 1194
[116h 0278   2]                        Entry : A7C5
[118h 0280   2]                        Entry : 0FA0
[11Ah 0282   2]                        Entry : 1194
[11Ch 0284   2]                        Entry : 0001
[11Eh 0286   2]                        Entry : 0000
[120h 0288   2]                        Entry : A7C5
[122h 0290   2]                        Entry : A7C5
[124h 0292   2]                        Entry : 0000
[126h 0294   2]                        Entry : 0001

[128h 0296   2]               Structure Type : 0001 [System Locality Latency and Bandwidth Information]
[12Ah 0298   2]                     Reserved : 0000
[12Ch 0300   4]                       Length : 00000060
[130h 0304   1]        Flags (decoded below) : 00
                            Memory Hierarchy : 0
[131h 0305   1]                    Data Type : 03
[132h 0306   2]                    Reserved1 : 0000
[134h 0308   4] Initiator Proximity Domains # : 00000004
[138h 0312   4]   Target Proximity Domains # : 00000004
[13Ch 0316   4]                    Reserved2 : 00000000
[140h 0320   8]              Entry Base Unit : 0000000000000001
[148h 0328   4] Initiator Proximity Domain List : 00000000
[14Ch 0332   4] Initiator Proximity Domain List : 00000001
[150h 0336   4] Initiator Proximity Domain List : 00000002
[154h 0340   4] Initiator Proximity Domain List : 00000003
[158h 0344   4] Target Proximity Domain List : 00000000
[15Ch 0348   4] Target Proximity Domain List : 00000001
[160h 0352   4] Target Proximity Domain List : 00000002
[164h 0356   4] Target Proximity Domain List : 00000003
[168h 0360   2]                        Entry : 4E20
[16Ah 0362   2]                        Entry : 044C
[16Ch 0364   2]                        Entry : 0078
[16Eh 0366   2]                        Entry : 000C
[170h 0368   2]                        Entry : 044C
[172h 0370   2]                        Entry : 4E20
[174h 0372   2]                        Entry : 0078
[176h 0374   2]                        Entry : 000C
[178h 0376   2]                        Entry : 0078
[17Ah 0378   2]                        Entry : 0078
[17Ch 0380   2]                        Entry : 4E20
[17Eh 0382   2]                        Entry : 0000
[180h 0384   2]                        Entry : 000C
[182h 0386   2]                        Entry : 000C
[184h 0388   2]                        Entry : 0000
[186h 0390   2]                        Entry : 4E20

Raw Table Data: Length 392 (0x188)

    0000: 48 4D 41 54 88 01 00 00 02 C3 43 4F 41 4C 53 43  // HMAT......COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 00 00 00 00 00 00 00 00 28 00 00 00  // ............(...
    0030: 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0040: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0050: 00 00 00 00 28 00 00 00 01 00 00 00 01 00 00 00  // ....(...........
    0060: 01 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    0070: 00 00 00 00 00 00 00 00 00 00 00 00 28 00 00 00  // ............(...
    0080: 01 00 00 00 02 00 00 00 02 00 00 00 00 00 00 00  // ................
    0090: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    00A0: 00 00 00 00 28 00 00 00 01 00 00 00 03 00 00 00  // ....(...........
    00B0: 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00  // ................
    00C0: 00 00 00 00 00 00 00 00 01 00 00 00 60 00 00 00  // ............`...
    00D0: 00 00 00 00 04 00 00 00 04 00 00 00 00 00 00 00  // ................
    00E0: A0 86 01 00 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    00F0: 02 00 00 00 03 00 00 00 00 00 00 00 01 00 00 00  // ................
    0100: 02 00 00 00 03 00 00 00 01 00 F4 01 A0 0F C5 A7  // ................
    0110: F4 01 01 00 94 11 C5 A7 A0 0F 94 11 01 00 00 00  // ................
    0120: C5 A7 C5 A7 00 00 01 00 01 00 00 00 60 00 00 00  // ............`...
    0130: 00 03 00 00 04 00 00 00 04 00 00 00 00 00 00 00  // ................
    0140: 01 00 00 00 00 00 00 00 00 00 00 00 01 00 00 00  // ................
    0150: 02 00 00 00 03 00 00 00 00 00 00 00 01 00 00 00  // ................
    0160: 02 00 00 00 03 00 00 00 20 4E 4C 04 78 00 0C 00  // ........ NL.x...
    0170: 4C 04 20 4E 78 00 0C 00 78 00 78 00 20 4E 00 00  // L. Nx...x.x. N..
    0180: 0C 00 0C 00 00 00 20 4E                          // ...... N
