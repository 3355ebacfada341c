DefinitionBlock ("", "DSDT", 2, "COALSC", "COALESCE", 0x00000001)
{
    Name (\_S5, Package (0x04)  // _S5_: S5 System State
    {
        0x05, 
        Zero, 
        Zero, 
        Zero
    })
    Scope (\_SB)
    {
        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02") /* PNP Motherboard Resources */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x0600,             // Range Minimum
                    0x0600,             // Range Maximum
                    0x01,               // Alignment
                    0x01,               // Length
                    )
                IO (Decode16,
                    0x0601,             // Range Minimum
                    0x0601,             // Range Maximum
                    0x01,               // Alignment
                    0x01,               // Length
                    )
                IO (Decode16,
                    0x0602,             // Range Minimum
                    0x0602,             // Range Maximum
                    0x01,               // Alignment
                    0x01,               // Length
                    )
                IO (Decode16,
                    0x0610,             // Range Minimum
                    0x0610,             // Range Maximum
                    0x01,               // Alignment
                    0x04,               // Length
                    )
                IO (Decode16,
                    0x0CD8,             // Range Minimum
                    0x0CD8,             // Range Maximum
                    0x01,               // Alignment
                    0x0C,               // Length
                    )
            })
        }

        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00") /* AT Real-Time Clock */)  // _HID: Hardware ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x0070,             // Range Minimum
                    0x0070,             // Range Maximum
                    0x01,               // Alignment
                    0x02,               // Length
                    )
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501") /* 16550A-compatible COM Serial Port */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x03F8,             // Range Minimum
                    0x03F8,             // Range Maximum
                    0x01,               // Alignment
                    0x08,               // Length
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000004,
                }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001")  // _HID: Hardware ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                IO (Decode16,
                    0x0505,             // Range Minimum
                    0x0505,             // Range Maximum
                    0x01,               // Alignment
                    0x01,               // Length
                    )
            })
        }

        Device (CPUS)
        {
            Name (_HID, "ACPI0010" /* Processor Container Device */)  // _HID: Hardware ID
            Name (_CID, EisaId ("PNP0A05") /* Generic Container Device */)  // _CID: Compatible ID
            Mutex (CLCK, 0x00)
            OperationRegion (CREG, SystemIO, 0x0CD8, 0x0C)
            Field (CREG, ByteAcc, NoLock, WriteAsZeros)
            {
                Offset (0x04), 
                CENA,   1, 
                CINS,   1, 
                CREM,   1, 
                CEJE,   1, 
                Offset (0x05), 
                CCMD,   8
            }

            Field (CREG, DWordAcc, NoLock, Preserve)
            {
                CSEL,   32, 
                Offset (0x08), 
                CDAT,   32
            }

            Method (CSTA, 1, Serialized)
            {
                Acquire (CLCK, 0xFFFF)
                CSEL = Arg0
                Local0 = Zero
                If ((CENA == One))
                {
                    Local0 = 0x0F
                }

                Release (CLCK)
                Return (Local0)
            }

            Method (CEJT, 1, Serialized)
            {
                Acquire (CLCK, 0xFFFF)
                CSEL = Arg0
                CEJE = One
                Release (CLCK)
            }

            Method (COST, 3, Serialized)
            {
                Acquire (CLCK, 0xFFFF)
                CSEL = Arg0
                CCMD = One
                CDAT = Arg1
                CCMD = 0x02
                CDAT = Arg2
                Release (CLCK)
            }

            Method (CNFY, 2, Serialized)
            {
                If ((Arg0 == Zero))
                {
                    Notify (C000, Arg1)
                }

                If ((Arg0 == One))
                {
                    Notify (C001, Arg1)
                }

                If ((Arg0 == 0x02))
                {
                    Notify (C002, Arg1)
                }

                If ((Arg0 == 0x03))
                {
                    Notify (C003, Arg1)
                }
            }

            Method (CSCN, 0, Serialized)
            {
                Acquire (CLCK, 0xFFFF)
                CSEL = Zero
                Local0 = One
                While ((Local0 == One))
                {
                    Local0 = Zero
                    CCMD = Zero
                    If ((CINS == One))
                    {
                        CNFY (CDAT, One)
                        CINS = One
                        Local0 = One
                    }
                    ElseIf ((CREM == One))
                    {
                        CNFY (CDAT, 0x03)
                        CREM = One
                        Local0 = One
                    }
                }

                Release (CLCK)
            }

            Device (C000)
            {
                Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
                Name (_UID, Zero)  // _UID: Unique ID
                Name (_PXM, Zero)  // _PXM: Device Proximity
                Name (_MAT, Buffer (0x10)  // _MAT: Multiple APIC Table Entry
                {
                    /* 0000 */  0x09, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // ........
                    /* 0008 */  0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00   // ........
                })
                Method (_STA, 0, Serialized)  // _STA: Status
                {
                    Return (CSTA (Zero))
                }

                Method (_OST, 3, Serialized)  // _OST: OSPM Status Indication
                {
                    COST (Zero, Arg0, Arg1)
                }
            }

            Device (C001)
            {
                Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
                Name (_UID, One)  // _UID: Unique ID
                Name (_PXM, One)  // _PXM: Device Proximity
                Name (_MAT, Buffer (0x10)  // _MAT: Multiple APIC Table Entry
                {
                    /* 0000 */  0x09, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00,  // ........
                    /* 0008 */  0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00   // ........
                })
                Method (_STA, 0, Serialized)  // _STA: Status
                {
                    Return (CSTA (One))
                }

                Method (_OST, 3, Serialized)  // _OST: OSPM Status Indication
                {
                    COST (One, Arg0, Arg1)
                }

                Method (_EJ0, 1, Serialized)  // _EJx: Eject Device, x=0-9
                {
                    CEJT (One)
                }
            }

            Device (C002)
            {
                Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
                Name (_UID, 0x02)  // _UID: Unique ID
                Name (_PXM, One)  // _PXM: Device Proximity
                Name (_MAT, Buffer (0x10)  // _MAT: Multiple APIC Table Entry
                {
                    /* 0000 */  0x09, 0x10, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00,  // ........
                    /* 0008 */  0x01, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00   // ........
                })
                Method (_STA, 0, Serialized)  // _STA: Status
                {
                    Return (CSTA (0x02))
                }

                Method (_OST, 3, Serialized)  // _OST: OSPM Status Indication
                {
                    COST (0x02, Arg0, Arg1)
                }

                Method (_EJ0, 1, Serialized)  // _EJx: Eject Device, x=0-9
                {
                    CEJT (0x02)
                }
            }

            Device (C003)
            {
                Name (_HID, "ACPI0007" /* Processor Device */)  // _HID: Hardware ID
                Name (_UID, 0x0100)  // _UID: Unique ID
                Name (_PXM, One)  // _PXM: Device Proximity
                Name (_MAT, Buffer (0x10)  // _MAT: Multiple APIC Table Entry
                {
                    /* 0000 */  0x09, 0x10, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00,  // ........
                    /* 0008 */  0x01, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00   // ........
                })
                Method (_STA, 0, Serialized)  // _STA: Status
                {
                    Return (CSTA (0x03))
                }

                Method (_OST, 3, Serialized)  // _OST: OSPM Status Indication
                {
                    COST (0x03, Arg0, Arg1)
                }

                Method (_EJ0, 1, Serialized)  // _EJx: Eject Device, x=0-9
                {
                    CEJT (0x03)
                }
            }
        }

        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C") /* Power Button Device */)  // _HID: Hardware ID
        }

        Device (GED)
        {
            Name (_HID, "ACPI0013" /* Generic Event Device */)  // _HID: Hardware ID
            Name (_UID, Zero)  // _UID: Unique ID
            Name (_CRS, ResourceTemplate ()  // _CRS: Current Resource Settings
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000005,
                }
            })
            OperationRegion (EREG, SystemIO, 0x0610, 0x04)
            Field (EREG, DWordAcc, NoLock, WriteAsZeros)
            {
                ESEL,   32
            }

            Method (_EVT, 1, Serialized)  // _EVT: Event
            {
                Local0 = ESEL /* \_SB_.GED_.ESEL */
                If ((Local0 & One))
                {
                    \_SB.CPUS.CSCN ()
                }

                If ((Local0 & 0x04))
                {
                    Notify (\_SB.PWRB, 0x80) // Status Change
                }
            }
        }
    }
}
