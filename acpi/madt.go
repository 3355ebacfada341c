package acpi

import "math"

// madtBody begins the MADT after its header (ACPI 6.5, 5.2.12).
//
// PCAT_COMPAT stays clear: there is no 8259 behind the I/O APIC, and Linux
// would otherwise probe for one.
type madtBody struct {
	LocalAPICAddress uint32
	Flags            uint32
}

const madtRevision = 6

// madtIOAPIC is an I/O APIC structure (ACPI 6.5, 5.2.12.3).
type madtIOAPIC struct {
	Type, Length uint8
	ID           uint8
	_            uint8
	Address      uint32
	GSIBase      uint32
}

// madtX2APIC is a processor local x2APIC structure (ACPI 6.5, 5.2.12.12).
type madtX2APIC struct {
	Type, Length uint8
	_            uint16
	APICID       uint32
	Flags        uint32
	UID          uint32
}

// madtX2APICNMI is a local x2APIC NMI structure (ACPI 6.5, 5.2.12.13).
type madtX2APICNMI struct {
	Type, Length uint8
	Flags        uint16 // of the bus: edge, active high for NMI
	UID          uint32
	LINT         uint8
	_            [3]uint8
}

// Local APIC flags (ACPI 6.5, 5.2.12.2): a processor that is Enabled must not
// also be Online Capable.
const (
	apicEnabled       = 1 << 0
	apicOnlineCapable = 1 << 1
)

// x2APIC returns the MADT entry of a CPU. Ids below 255 too are described by
// x2APIC structures: Linux skips those only where the table has local APIC
// structures as well.
func (c *CPU) x2APIC(flags uint32) []byte {
	return pack(nil, &madtX2APIC{Type: 9, Length: 16, APICID: c.APICID, Flags: flags, UID: c.UID})
}

func (m *Machine) madt() []byte {
	body := pack(nil, &madtBody{LocalAPICAddress: localAPICBase})
	// ACPI 6.5, 5.2.12.1: the boot processor comes first, then the others in
	// the order in which they should be started.
	for _, c := range m.CPUs {
		flags := uint32(apicEnabled)
		if c.State == OnlineCapable {
			flags = apicOnlineCapable
		}
		body = append(body, c.x2APIC(flags)...)
	}
	if m.IOAPIC != nil {
		body = pack(body, &madtIOAPIC{
			Type: 1, Length: 12,
			ID: m.IOAPIC.ID, Address: m.IOAPIC.Address, GSIBase: m.IOAPIC.GSIBase,
		})
	}
	const allProcessors, lint1 = math.MaxUint32, 1
	body = pack(body, &madtX2APICNMI{Type: 10, Length: 12, UID: allProcessors, LINT: lint1})
	return table("APIC", madtRevision, body)
}
