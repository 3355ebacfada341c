package acpi_test

import (
	"fmt"

	"coalesce/acpi"
)

// A guest with one CPU at home and a place for one that a lender may bring,
// with 2 GiB of memory.
func ExampleMachine_Build() {
	m := &acpi.Machine{
		CPUs: []acpi.CPU{
			{UID: 0, APICID: 0, Domain: 0},
			{UID: 1, APICID: 1, Domain: 1, State: acpi.OnlineCapable},
		},
		Memory: []acpi.Memory{
			{Base: 0, Length: 1 << 30, Domain: 0},
			{Base: 4 << 30, Length: 2 << 30, Domain: 1, State: acpi.Hotpluggable},
		},
		Distances: [][]uint8{{10, 40}, {40, 10}},
		IOAPIC:    &acpi.IOAPIC{Address: 0xFEC0_0000},
		Serial:    []acpi.Serial{{Port: 0x3F8, Length: 8, GSI: 4}},
		Sleep:     acpi.SleepPorts{Control: 0x600, Status: 0x601, Reset: 0x602, ResetValue: 1},
		GED:       &acpi.GED{GSI: 5, SelectorPort: 0x610},
	}
	m.CPUHotplugPort = 0xCD8

	// Copy blob.Bytes to guest memory at blob.Base, reserve it in the e820
	// map, and put blob.RSDP in the zero page.
	blob, err := m.Build(0xE_0000, 0x2_0000)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("RSDP at %#x, %s at %#x\n", blob.RSDP, blob.Tables["XSDT"].Bytes[:4], blob.Tables["XSDT"].Address)

	m.CPUs[1].APICID = 0
	fmt.Println(m.Validate())
	// Output:
	// RSDP at 0xe0000, XSDT at 0xe0030
	// acpi: CPUs[1].APICID: 0 is also that of CPUs[0]
}
