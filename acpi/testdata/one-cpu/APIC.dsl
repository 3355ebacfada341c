[000h 0000   4]                    Signature : "APIC"    [Multiple APIC Description Table (MADT)]
[004h 0004   4]                 Table Length : 00000054
[008h 0008   1]                     Revision : 06
[009h 0009   1]                     Checksum : 9E
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

[03Ch 0060   1]                Subtable Type : 01 [I/O APIC]
[03Dh 0061   1]                       Length : 0C
[03Eh 0062   1]                  I/O Apic ID : 00
[03Fh 0063   1]                     Reserved : 00
[040h 0064   4]                      Address : FEC00000
[044h 0068   4]                    Interrupt : 00000000

[048h 0072   1]                Subtable Type : 0A [Local x2APIC NMI]
[049h 0073   1]                       Length : 0C
[04Ah 0074   2]        Flags (decoded below) : 0000
                                    Polarity : 0
                                Trigger Mode : 0
[04Ch 0076   4]                Processor UID : FFFFFFFF
[050h 0080   1]         Interrupt Input LINT : 01
[051h 0081   3]                     Reserved : 000000

Raw Table Data: Length 84 (0x54)

    0000: 41 50 49 43 54 00 00 00 06 9E 43 4F 41 4C 53 43  // APICT.....COALSC
    0010: 43 4F 41 4C 45 53 43 45 01 00 00 00 43 4F 41 4C  // COALESCE....COAL
    0020: 01 00 00 00 00 00 E0 FE 00 00 00 00 09 10 00 00  // ................
    0030: 00 00 00 00 01 00 00 00 00 00 00 00 01 0C 00 00  // ................
    0040: 00 00 C0 FE 00 00 00 00 0A 0C 00 00 FF FF FF FF  // ................
    0050: 01 00 00 00                                      // ....
