package acpi

// The machines that the tests describe, by the name of their golden files'
// folder.
var machines = map[string]func() *Machine{
	"one-cpu":   oneCPU,
	"two-nodes": twoNodes,
	"slots":     slots,
	"hotplug":   hotplug,
}

// oneCPU is the least there can be with a console.
func oneCPU() *Machine {
	return &Machine{
		CPUs:   []CPU{{}},
		Memory: []Memory{{Length: 512 << 20}},
		IOAPIC: &IOAPIC{Address: 0xFEC0_0000},
		Serial: []Serial{{Port: 0x3F8, Length: 8, GSI: 4}},
		Sleep:  SleepPorts{Control: 0x600, Status: 0x601, Reset: 0x602, ResetValue: 1},
	}
}

// twoNodes is a client and a lender with one CPU each, both there at boot.
func twoNodes() *Machine {
	m := oneCPU()
	m.CPUs = []CPU{
		{UID: 0, APICID: 0, Domain: 0},
		{UID: 1, APICID: 1, Domain: 1},
	}
	m.Memory = []Memory{
		{Base: 0, Length: 1 << 30, Domain: 0},
		{Base: 4 << 30, Length: 2 << 30, Domain: 1, State: Removable},
	}
	m.Distances = [][]uint8{{10, 20}, {20, 10}}
	m.PVPanicPort = 0x505
	m.GED = &GED{GSI: 5, SelectorPort: 0x610}
	return m
}

// slots is a client with three empty places of different distance, every
// window above 4 GiB, and measured performance. The CPUs are not in the order
// of their domains.
func slots() *Machine {
	m := oneCPU()
	m.CPUs = []CPU{
		{UID: 0, APICID: 0, Domain: 0},
		{UID: 1, APICID: 1, Domain: 0},
		{UID: 6, APICID: 0x60, Domain: 3, State: OnlineCapable},
		{UID: 2, APICID: 0x20, Domain: 1, State: OnlineCapable},
		{UID: 4, APICID: 0x40, Domain: 2, State: OnlineCapable},
	}
	m.Memory = []Memory{
		{Base: 0, Length: 3 << 30, Domain: 0},
		{Base: 4 << 30, Length: 3 << 30, Domain: 0},
		{Base: 8 << 30, Length: 8 << 30, Domain: 1, State: Hotpluggable},
		{Base: 16 << 30, Length: 8 << 30, Domain: 2, State: Hotpluggable},
		{Base: 24 << 30, Length: 16 << 30, Domain: 3, State: Hotpluggable},
	}
	m.Distances = [][]uint8{
		{10, 20, 40, 160},
		{20, 10, 60, 180},
		{40, 60, 10, 200},
		{160, 180, 200, 10},
	}
	m.Performance = &Performance{
		LatencyNS: [][]uint32{
			{100, 50_000, 400_000, 20_000_000},
			{50_000, 100, 450_000, 20_000_000},
			{400_000, 450_000, 100, 0},
			{20_000_000, 20_000_000, 0, 100},
		},
		BandwidthMBps: [][]uint32{
			{20_000, 1_100, 120, 12},
			{1_100, 20_000, 120, 12},
			{120, 120, 20_000, 0},
			{12, 12, 0, 20_000},
		},
	}
	m.VirtioMMIO = []VirtioMMIO{
		{Base: 0xD000_0000, Length: 0x200, GSI: 6, UID: 0},
		{Base: 1 << 40, Length: 0x1000, GSI: 7, UID: 1},
	}
	m.GED = &GED{GSI: 5, SelectorPort: 0x610}
	return m
}

// hotplug is a client with places for two CPUs, one of them with an APIC id
// that only x2APIC mode has.
func hotplug() *Machine {
	m := twoNodes()
	m.CPUs = append(m.CPUs,
		CPU{UID: 2, APICID: 2, Domain: 1, State: OnlineCapable},
		CPU{UID: 0x100, APICID: 0x100, Domain: 1, State: OnlineCapable},
	)
	m.CPUHotplugPort = 0xCD8
	return m
}
