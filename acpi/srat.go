package acpi

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// sratX2APIC is a processor local x2APIC affinity structure (ACPI 6.5,
// 5.2.16.3).
type sratX2APIC struct {
	Type, Length uint8
	_            uint16
	Domain       uint32
	APICID       uint32
	Flags        uint32
	ClockDomain  uint32 // one: the guest's TSCs agree
	_            uint32
}

// sratMemory is a memory affinity structure (ACPI 6.5, 5.2.16.2).
type sratMemory struct {
	Type, Length uint8
	Domain       uint32
	_            uint16
	Base, Size   uint64
	_            uint32
	Flags        uint32
	_            uint64
}

const (
	sratRevision = 3

	sratEnabled       = 1 << 0 // of both structures: the entry counts
	sratHotPluggable  = 1 << 1 // of memory: it may come and go
	sratReservedField = 1      // must be 1 for backward compatibility (5.2.16)
)

// srat names every CPU and every window of memory, present or not: Linux makes
// nodes of the domains that it finds here with the Enabled flag set, and of no
// others later.
//
// Linux numbers nodes as it meets domains, all CPUs first. The entries are
// sorted by domain, so node and domain agree as long as no domain without CPUs
// comes before one with CPUs.
func (m *Machine) srat() []byte {
	body := binary.LittleEndian.AppendUint32(nil, sratReservedField)
	body = binary.LittleEndian.AppendUint64(body, 0)

	cpus := slices.Clone(m.CPUs)
	slices.SortStableFunc(cpus, func(a, b CPU) int { return cmp.Compare(a.Domain, b.Domain) })
	for _, c := range cpus {
		body = pack(body, &sratX2APIC{Type: 2, Length: 24, Domain: c.Domain, APICID: c.APICID, Flags: sratEnabled})
	}

	memory := slices.Clone(m.Memory)
	slices.SortStableFunc(memory, func(a, b Memory) int { return cmp.Compare(a.Domain, b.Domain) })
	for _, r := range memory {
		flags := uint32(sratEnabled)
		if r.State != Present {
			flags |= sratHotPluggable
		}
		body = pack(body, &sratMemory{Type: 1, Length: 40, Domain: r.Domain, Base: r.Base, Size: r.Length, Flags: flags})
	}
	return table("SRAT", sratRevision, body)
}
