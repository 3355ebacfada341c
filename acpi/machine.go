package acpi

// Machine describes the guest's hardware, everything a table needs. The zero
// value of an optional part leaves that part out. Nothing in it is kept or
// changed by the methods.
type Machine struct {
	// CPUs that are there at boot or may come. CPUs[0] is the boot processor
	// and must be Enabled. With CPU hotplug the index in this slice is the
	// number that the guest writes to the CPU selector register.
	CPUs []CPU

	// Memory that is there at boot or may come, as guest-physical ranges.
	Memory []Memory

	// Distances is the SLIT: Distances[i][j] is the relative distance from
	// domain i to domain j, 10 on the diagonal and 11..254 off it. nil stands
	// for 20 between any two domains.
	Distances [][]uint8

	// Performance is the HMAT; nil leaves the table out.
	Performance *Performance

	// IOAPIC is needed as soon as a device has an interrupt.
	IOAPIC *IOAPIC

	Serial     []Serial
	VirtioMMIO []VirtioMMIO

	Sleep SleepPorts

	// GED is the generic event device, through which the machine tells the
	// guest of hotplug and of its power button.
	GED *GED

	// PVPanicPort is the port of a pvpanic device; 0 for none.
	PVPanicPort uint16

	// CPUHotplugPort is the first port of a CPU hotplug register block of
	// CPUHotplugLength ports: QEMU's modern interface as described in its
	// docs/specs/acpi_cpu_hotplug. 0 for none. It needs a GED.
	CPUHotplugPort uint16
}

// CPUHotplugLength is the number of ports of the CPU hotplug register block.
const CPUHotplugLength = 12

// CPUState says what the guest finds of a CPU at boot.
type CPUState uint8

const (
	// Enabled: the CPU is there and is started at boot.
	Enabled CPUState = iota
	// OnlineCapable: an empty place that a CPU may take while the guest runs.
	OnlineCapable
)

// CPU is a logical processor or the place of one.
type CPU struct {
	UID    uint32 // _UID of the device, unique among CPUs
	APICID uint32 // x2APIC id, unique; 0xFFFFFFFF is the broadcast id
	Domain uint32 // proximity domain
	State  CPUState
}

// MemoryState says what the guest finds of a memory window at boot.
type MemoryState uint8

const (
	// Present: ordinary memory.
	Present MemoryState = iota
	// Hotpluggable: nothing at boot; memory may appear while the guest runs.
	Hotpluggable
	// Removable: there at boot, may leave while the guest runs.
	Removable
)

// Memory is a range of guest-physical addresses, in whole pages of 4 KiB.
type Memory struct {
	Base, Length uint64 // bytes
	Domain       uint32 // proximity domain
	State        MemoryState
}

// Performance holds what was measured between domains. Either matrix may be
// nil; both are indexed [initiator domain][target domain], like
// Machine.Distances, and 0 stands for "not known". Only rows of domains with
// CPUs and columns of domains with memory are used.
type Performance struct {
	LatencyNS     [][]uint32 // nanoseconds of one access
	BandwidthMBps [][]uint32 // 10^6 bytes per second
}

// IOAPIC is the I/O APIC. Its registers take the 4 KiB page at Address.
type IOAPIC struct {
	ID      uint8
	Address uint32 // guest-physical
	GSIBase uint32 // global system interrupt of pin 0
}

// Serial is a 16550 UART. Its interrupt is edge-triggered, active high.
type Serial struct {
	Port   uint16
	Length uint8 // number of ports
	GSI    uint32
	UID    uint32 // unique among Serial
}

// VirtioMMIO is a virtio device behind the MMIO transport. Its interrupt is
// edge-triggered, active high: the device sends one edge for each notification,
// also while an earlier one is not yet acknowledged.
type VirtioMMIO struct {
	Base   uint64 // guest-physical
	Length uint32 // bytes
	GSI    uint32
	UID    uint32 // unique among VirtioMMIO
}

// SleepPorts are the byte-wide I/O ports of the sleep and reset registers
// (ACPI 6.5, 4.8.3.6 and 4.8.3.7).
type SleepPorts struct {
	Control    uint16 // the guest writes SleepS5 here to power off
	Status     uint16 // bit 7 is WAK_STS, written as 1 before sleeping; reads as 0
	Reset      uint16 // the guest writes ResetValue here to reset
	ResetValue uint8
}

// sleepTypeS5 is the SLP_TYP of \_S5. The machine chooses it, as long as it
// fits the 3-bit field.
const sleepTypeS5 = 5

// SleepS5 is what the guest writes to SleepPorts.Control to power off: SLP_TYP
// in bits 4:2, SLP_EN in bit 5 (ACPI 6.5, 4.8.3.7).
const SleepS5 = sleepTypeS5<<2 | 1<<5

// GED is the generic event device (ACPI 6.5, 5.6.9).
//
// To notify the guest the machine sets Event bits in the selector and then
// sends one edge on GSI. The guest reads the selector, 4 bytes, once for each
// interrupt: the read returns the pending bits and clears them.
type GED struct {
	GSI          uint32 // edge-triggered, active high
	SelectorPort uint16
}

// Bits of the GED's selector register.
const (
	EventCPUHotplug    = 1 << 0 // scan the CPU hotplug registers
	EventMemoryHotplug = 1 << 1 // kept for memory hotplug: the guest ignores it
	EventPowerButton   = 1 << 2 // the power button was pressed
)

// Fixed parts of the machine.
const (
	localAPICBase = 0xFEE0_0000 // also named when only x2APIC mode is used
	apicPageSize  = 0x1000
	pageSize      = 0x1000

	rtcPort, rtcPorts = 0x70, 2

	selectorPorts = 4
)

// domains is what the tables need to know of the proximity domains.
type domains struct {
	count     int
	hasCPU    []bool // by domain: it is an initiator
	hasMemory []bool // by domain: it is a target
}

// domains collects the proximity domains of a valid machine.
func (m *Machine) domains() domains {
	var d domains
	for _, c := range m.CPUs {
		d.count = max(d.count, int(c.Domain)+1)
	}
	for _, r := range m.Memory {
		d.count = max(d.count, int(r.Domain)+1)
	}
	d.hasCPU = make([]bool, d.count)
	d.hasMemory = make([]bool, d.count)
	for _, c := range m.CPUs {
		d.hasCPU[c.Domain] = true
	}
	for _, r := range m.Memory {
		d.hasMemory[r.Domain] = true
	}
	return d
}
