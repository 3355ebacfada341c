package acpi

import (
	"fmt"
	"math"
	"slices"
)

// FieldError says which field of a Machine is wrong, and why.
type FieldError struct {
	Field   string // as in Go, e.g. "CPUs[3].APICID"
	Problem string
}

func (e *FieldError) Error() string {
	return "acpi: " + e.Field + ": " + e.Problem
}

func fieldErrorf(field, problem string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(problem, args...)}
}

// Numbers in the names of devices (C000..CFFF, V000..VFFF, COM1..COM9) bound
// how many there can be.
const (
	maxCPUs   = 0x1000
	maxVirtio = 0x1000
	maxSerial = 9
)

// Validate returns nil for a machine that Build can describe, or a *FieldError
// for the first field that contradicts another, the specification or what
// Linux is known to reject.
func (m *Machine) Validate() error {
	for _, check := range []func() error{
		m.validateCPUs,
		m.validateMemory,
		m.validateDomains,
		m.validateDistances,
		m.validatePerformance,
		m.validateCounts,
		m.validatePorts,
		m.validateAddresses,
		m.validateInterrupts,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) validateCPUs() error {
	if len(m.CPUs) == 0 {
		return fieldErrorf("CPUs", "none")
	}
	if len(m.CPUs) > maxCPUs {
		return fieldErrorf("CPUs", "%d of them, at most %d are possible", len(m.CPUs), maxCPUs)
	}
	uids, ids := map[uint32]int{}, map[uint32]int{}
	for i, c := range m.CPUs {
		if other, ok := uids[c.UID]; ok {
			return fieldErrorf(at("CPUs", i, "UID"), "%d is also that of CPUs[%d]", c.UID, other)
		}
		if other, ok := ids[c.APICID]; ok {
			return fieldErrorf(at("CPUs", i, "APICID"), "%d is also that of CPUs[%d]", c.APICID, other)
		}
		if c.APICID == math.MaxUint32 {
			return fieldErrorf(at("CPUs", i, "APICID"), "%#x is the broadcast id", c.APICID)
		}
		if c.UID == math.MaxUint32 {
			return fieldErrorf(at("CPUs", i, "UID"), "%#x stands for all processors", c.UID)
		}
		if c.State > OnlineCapable {
			return fieldErrorf(at("CPUs", i, "State"), "unknown state %d", c.State)
		}
		uids[c.UID], ids[c.APICID] = i, i
	}
	if m.CPUs[0].State != Enabled {
		return fieldErrorf("CPUs[0].State", "the boot processor must be Enabled")
	}
	return nil
}

func (m *Machine) validateMemory() error {
	present := false
	for i, r := range m.Memory {
		switch {
		case r.Base%pageSize != 0:
			return fieldErrorf(at("Memory", i, "Base"), "%#x is not a multiple of %#x", r.Base, pageSize)
		case r.Length == 0 || r.Length%pageSize != 0:
			return fieldErrorf(at("Memory", i, "Length"), "%#x is not a positive multiple of %#x", r.Length, pageSize)
		case r.Base+(r.Length-1) < r.Base:
			return fieldErrorf(at("Memory", i, "Length"), "%#x from %#x on passes the end of the address space", r.Length, r.Base)
		case r.State > Removable:
			return fieldErrorf(at("Memory", i, "State"), "unknown state %d", r.State)
		}
		present = present || r.State == Present
	}
	if !present {
		return fieldErrorf("Memory", "none is Present")
	}
	return nil
}

// validateDomains wants the domains dense from 0: Linux numbers its nodes in
// the order in which it meets domains, so holes would part the two numberings.
func (m *Machine) validateDomains() error {
	seen := map[uint32]bool{}
	for _, c := range m.CPUs {
		seen[c.Domain] = true
	}
	for _, r := range m.Memory {
		seen[r.Domain] = true
	}
	const problem = "domain %d of %d: domains must be dense from 0"
	for i, c := range m.CPUs {
		if int64(c.Domain) >= int64(len(seen)) {
			return fieldErrorf(at("CPUs", i, "Domain"), problem, c.Domain, len(seen))
		}
	}
	for i, r := range m.Memory {
		if int64(r.Domain) >= int64(len(seen)) {
			return fieldErrorf(at("Memory", i, "Domain"), problem, r.Domain, len(seen))
		}
	}
	return nil
}

// Relative distances (ACPI 6.5, 5.2.17): the diagonal is 10, values below are
// reserved, and 255 means that there is no way from i to j, which no two nodes
// of one guest can be. The matrix need not be symmetric. Linux ignores a SLIT
// with an entry of at most 10 off the diagonal.
const (
	localDistance       = 10
	remoteDistance      = 20 // where none is given
	unreachableDistance = 255
)

func (m *Machine) validateDistances() error {
	if m.Distances == nil {
		return nil
	}
	n := m.domains().count
	if err := validateSquare("Distances", m.Distances, n); err != nil {
		return err
	}
	for i, row := range m.Distances {
		for j, v := range row {
			field := fmt.Sprintf("Distances[%d][%d]", i, j)
			switch {
			case i == j && v != localDistance:
				return fieldErrorf(field, "%d on the diagonal, must be %d", v, localDistance)
			case i != j && (v <= localDistance || v == unreachableDistance):
				return fieldErrorf(field, "%d off the diagonal, must be %d..%d", v, localDistance+1, unreachableDistance-1)
			}
		}
	}
	return nil
}

func (m *Machine) validatePerformance() error {
	if m.Performance == nil {
		return nil
	}
	n := m.domains().count
	for _, p := range []struct {
		field  string
		matrix [][]uint32
	}{
		{"Performance.LatencyNS", m.Performance.LatencyNS},
		{"Performance.BandwidthMBps", m.Performance.BandwidthMBps},
	} {
		if p.matrix == nil {
			continue
		}
		if err := validateSquare(p.field, p.matrix, n); err != nil {
			return err
		}
	}
	return nil
}

func validateSquare[T any](field string, matrix [][]T, n int) error {
	if len(matrix) != n {
		return fieldErrorf(field, "%d rows for %d domains", len(matrix), n)
	}
	for i, row := range matrix {
		if len(row) != n {
			return fieldErrorf(fmt.Sprintf("%s[%d]", field, i), "%d columns for %d domains", len(row), n)
		}
	}
	return nil
}

func (m *Machine) validateCounts() error {
	if len(m.Serial) > maxSerial {
		return fieldErrorf("Serial", "%d of them, at most %d are possible", len(m.Serial), maxSerial)
	}
	if len(m.VirtioMMIO) > maxVirtio {
		return fieldErrorf("VirtioMMIO", "%d of them, at most %d are possible", len(m.VirtioMMIO), maxVirtio)
	}
	serial, virtio := map[uint32]int{}, map[uint32]int{}
	for i, s := range m.Serial {
		if other, ok := serial[s.UID]; ok {
			return fieldErrorf(at("Serial", i, "UID"), "%d is also that of Serial[%d]", s.UID, other)
		}
		serial[s.UID] = i
	}
	for i, v := range m.VirtioMMIO {
		if other, ok := virtio[v.UID]; ok {
			return fieldErrorf(at("VirtioMMIO", i, "UID"), "%d is also that of VirtioMMIO[%d]", v.UID, other)
		}
		virtio[v.UID] = i
	}
	if m.CPUHotplugPort != 0 && m.GED == nil {
		return fieldErrorf("CPUHotplugPort", "CPU hotplug needs a GED to tell the guest")
	}
	return nil
}

// span is a range of ports or addresses that a field of the machine takes.
type span struct {
	field       string
	base        uint64
	last        uint64 // inclusive
	emptyOrWrap bool
}

func spanOf(field string, base, length uint64) span {
	last := base + (length - 1)
	return span{field: field, base: base, last: last, emptyOrWrap: length == 0 || last < base}
}

// validateSpans wants every span inside [0, limit] and none over another.
func validateSpans(what string, spans []span, limit uint64) error {
	for _, s := range spans {
		if s.emptyOrWrap || s.last > limit {
			return fieldErrorf(s.field, "%s from %#x on are empty or pass %#x", what, s.base, limit)
		}
	}
	slices.SortStableFunc(spans, func(a, b span) int {
		switch {
		case a.base < b.base:
			return -1
		case a.base > b.base:
			return 1
		}
		return 0
	})
	for i := 1; i < len(spans); i++ {
		if prev, s := spans[i-1], spans[i]; s.base <= prev.last {
			return fieldErrorf(s.field, "%s %#x..%#x overlap %#x..%#x of %s", what, s.base, s.last, prev.base, prev.last, prev.field)
		}
	}
	return nil
}

func (m *Machine) validatePorts() error {
	ports := []span{
		spanOf("the real-time clock", rtcPort, rtcPorts),
		spanOf("Sleep.Control", uint64(m.Sleep.Control), 1),
		spanOf("Sleep.Status", uint64(m.Sleep.Status), 1),
		spanOf("Sleep.Reset", uint64(m.Sleep.Reset), 1),
	}
	for _, p := range ports {
		if p.base == 0 {
			return fieldErrorf(p.field, "no port given")
		}
	}
	for i, s := range m.Serial {
		ports = append(ports, spanOf(at("Serial", i, "Port"), uint64(s.Port), uint64(s.Length)))
	}
	if m.GED != nil {
		ports = append(ports, spanOf("GED.SelectorPort", uint64(m.GED.SelectorPort), selectorPorts))
	}
	if m.PVPanicPort != 0 {
		ports = append(ports, spanOf("PVPanicPort", uint64(m.PVPanicPort), 1))
	}
	if m.CPUHotplugPort != 0 {
		ports = append(ports, spanOf("CPUHotplugPort", uint64(m.CPUHotplugPort), CPUHotplugLength))
	}
	return validateSpans("ports", ports, math.MaxUint16)
}

func (m *Machine) validateAddresses() error {
	spans := []span{spanOf("the local APICs", localAPICBase, apicPageSize)}
	for i, r := range m.Memory {
		spans = append(spans, spanOf(at("Memory", i, "Base"), r.Base, r.Length))
	}
	if m.IOAPIC != nil {
		spans = append(spans, spanOf("IOAPIC.Address", uint64(m.IOAPIC.Address), apicPageSize))
	}
	for i, v := range m.VirtioMMIO {
		spans = append(spans, spanOf(at("VirtioMMIO", i, "Base"), v.Base, uint64(v.Length)))
	}
	return validateSpans("addresses", spans, math.MaxUint64)
}

// validateInterrupts wants a line of its own for each device, since all lines
// are declared exclusive, on an I/O APIC that is there.
func (m *Machine) validateInterrupts() error {
	type line struct {
		field string
		gsi   uint32
	}
	var lines []line
	for i, s := range m.Serial {
		lines = append(lines, line{at("Serial", i, "GSI"), s.GSI})
	}
	for i, v := range m.VirtioMMIO {
		lines = append(lines, line{at("VirtioMMIO", i, "GSI"), v.GSI})
	}
	if m.GED != nil {
		lines = append(lines, line{"GED.GSI", m.GED.GSI})
	}
	if len(lines) > 0 && m.IOAPIC == nil {
		return fieldErrorf("IOAPIC", "needed by %s", lines[0].field)
	}
	owner := map[uint32]string{}
	for _, l := range lines {
		if l.gsi < m.IOAPIC.GSIBase {
			return fieldErrorf(l.field, "%d lies below the I/O APIC's first, %d", l.gsi, m.IOAPIC.GSIBase)
		}
		if other, ok := owner[l.gsi]; ok {
			return fieldErrorf(l.field, "%d is also that of %s", l.gsi, other)
		}
		owner[l.gsi] = l.field
	}
	return nil
}

// at names a field of an element of a slice of the machine.
func at(slice string, i int, field string) string {
	return fmt.Sprintf("%s[%d].%s", slice, i, field)
}
