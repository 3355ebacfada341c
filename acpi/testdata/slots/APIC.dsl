[000h 0000   4]                    Signature : "APIC"    [Multiple APIC Description Table (MADT)]
[004h 0004   4]                 Table Length : 00000094
[008h 0008   1]                     Revision : 06
[009h 0009   1]                     Checksum : 25
[00Ah 0010   6]                       Oem ID : "COALSC"
[010h 0016   8]                 Oem Table ID : "COALESCE"
[018h 0024   4]                 Oem Revision : 00000001
[01Ch 0028   4]              Asl Compiler ID : "COAL"
[020h 0032   4]        Asl Compiler Revision : 00000001

[024h 0036   4]           Local Apic Address : FEE00000
[028h 0040   4]        Flags (decoded below) : 00000000
                         PC-AT Compatibility : 0

[02Ch 0044   1]                Subtable Type : 09 [Processor Local x2APIC]
[02Dh 0045   1]                       Length : 10
[02Eh 0046   2]                     Reserved : 0000
[030h 0048   4]          Processor x2Apic ID : 00000000
[034h 0052   4]        Flags (decoded below) : 00000001
                           Processor Enabled : 1
[038h 0056   4]                Processor UID : 00000000

[03Ch 0060   1]                Subtable Type : 09 [Processor Local x2APIC]
[03Dh 0061   1]                       Length : 10
[03Eh 0062   2]                     Reserved : 0000
[040h 0064   4]          Processor x2Apic ID : 00000001
[044h 0068   4]        Flags (decoded below) : 00000001
                           Processor Enabled : 1
[048h 0072   4]                Processor UID : 00000001

[04Ch 0076   1]                Subtable Type : 09 [Processor Local x2APIC]
[04Dh 0077   1]                       Length : 10
[04Eh 0078   2]                     Reserved : 0000
[050h 0080   4]          Processor x2Apic ID : 00000060
[054h 0084   4]        Flags (decoded below) : 00000002
                           Processor Enabled : 0
[058h 0088   4]                Processor UID : 00000006

[05Ch 0092   1]                Subtable Type : 09 [Processor Local x2APIC]
[05Dh 0093   1]                       Length : 10
[05Eh 0094   2]                     Reserved : 0000
[060h 0096   4]          Processor x2Apic ID : 00000020
[064h 0100   4]        Flags (decoded below) : 00000002
                           Processor Enabled : 0
[068h 0104   4]                Processor UID : 00000002

[06Ch 0108   1]                Subtable Type : 09 [Processor Local x2APIC]
[06Dh 0109   1]                       Length : 10
[06Eh 0110   2]                     Reserved : 0000
[070h 0112   4]          Processor x2Apic ID : 00000040
[074h 0116   4]        Flags (decoded below) : 00000002
                           Processor Enabled : 0
[078h 0120   4]                Processor UID : 00000004

[07Ch 0124   1]                Subtable Type : 01 [I/O APIC]
[07Dh 0125   1]                       Length : 0C
[07Eh 0126   1]                  I/O Apic ID : 00
[07Fh 0127   1]                     Reserved : 00
[080h 0128   4]                      Address : FEC00000
[084h 0132   4]                    Interrupt : 00000000

[088h 0136   1]                Subtable Type : 0A [Local x2APIC NMI]
[089h 0137   1]                       Length : 0C
[08Ah 0138   2]        Flags (decoded below) : 0000
                                    Polarity : 0
                                Trigger Mode : 0
[08Ch 0140   4]                Processor UID : FFFFFFFF
[090h 0144   1]         Interrupt Input LINT : 01
[091h 0145   3]                     Reserved : 000000

Raw Table Data: Length 148 (0x94)

    0000: 41 50 49 43 94 00 00 00 06 25 43 4F 41 4C 53 43  // APIC.....%COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 00 00 E0 FE 00 00 00 00 09 10 00 00  // ................
    0030: 00 00 00 00 01 00 00 00 00 00 00 00 09 10 00 00  // ................
    0040: 01 00 00 00 01 00 00 00 01 00 00 00 09 10 00 00  // ................
    0050: 60 00 00 00 02 00 00 00 06 00 00 00 09 10 00 00  // `...............
    0060: 20 00 00 00 02 00 00 00 02 00 00 00 09 10 00 00  //  ...............
    0070: 40 00 00 00 02 00 00 00 04 00 00 00 01 0C 00 00  // @...............
    0080: 00 00 C0 FE 00 00 00 00 0A 0C 00 00 FF FF FF FF  // ................
    0090: 01 00 00 00                                      // ....
