package acpi

import (
	"encoding/binary"
	"math"
)

// hmatDomain is a memory proximity domain attributes structure (ACPI 6.5,
// 5.2.28.3).
type hmatDomain struct {
	Type      uint16
	_         uint16
	Length    uint32
	Flags     uint16
	_         uint16
	Initiator uint32 // domain of the processors this memory belongs to
	Memory    uint32
	_         uint32
	_, _      uint64
}

// hmatLocality is a system locality latency and bandwidth information
// structure (ACPI 6.5, 5.2.28.4). The lists of initiator and target domains
// and the matrix of 16-bit entries follow it.
type hmatLocality struct {
	Type            uint16
	_               uint16
	Length          uint32
	Flags           uint8 // memory, not a cache before it
	DataType        uint8
	MinTransferSize uint8
	_               uint8
	Initiators      uint32
	Targets         uint32
	_               uint32
	EntryBaseUnit   uint64
}

const (
	hmatRevision       = 2
	hmatDomainLength   = 40
	hmatLocalityLength = 32

	hmatInitiatorValid = 1 << 0

	hmatAccessLatency   = 0
	hmatAccessBandwidth = 3

	// Units in which the table counts, before EntryBaseUnit.
	picosecondsPerNS = 1000
	mbpsPerMBps      = 1
)

func (m *Machine) hmat() []byte {
	d := m.domains()
	var initiators, targets []uint32
	for i := range d.count {
		if d.hasCPU[i] {
			initiators = append(initiators, uint32(i))
		}
		if d.hasMemory[i] {
			targets = append(targets, uint32(i))
		}
	}

	body := make([]byte, 4) // reserved
	for _, t := range targets {
		s := hmatDomain{Type: 0, Length: hmatDomainLength, Memory: t}
		if d.hasCPU[t] {
			s.Flags, s.Initiator = hmatInitiatorValid, t
		}
		body = pack(body, &s)
	}
	if p := m.Performance.LatencyNS; p != nil {
		body = appendLocality(body, hmatAccessLatency, p, picosecondsPerNS, initiators, targets)
	}
	if p := m.Performance.BandwidthMBps; p != nil {
		body = appendLocality(body, hmatAccessBandwidth, p, mbpsPerMBps, initiators, targets)
	}
	return table("HMAT", hmatRevision, body)
}

func appendLocality(body []byte, dataType uint8, matrix [][]uint32, unit uint64, initiators, targets []uint32) []byte {
	var values []uint64
	for _, i := range initiators {
		for _, t := range targets {
			values = append(values, uint64(matrix[i][t])*unit)
		}
	}
	base, entries := scale(values, unit)
	body = pack(body, &hmatLocality{
		Type:          1,
		Length:        uint32(hmatLocalityLength + 4*len(initiators) + 4*len(targets) + 2*len(entries)),
		DataType:      dataType,
		Initiators:    uint32(len(initiators)),
		Targets:       uint32(len(targets)),
		EntryBaseUnit: base,
	})
	for _, list := range [][]uint32{initiators, targets} {
		for _, v := range list {
			body = binary.LittleEndian.AppendUint32(body, v)
		}
	}
	for _, e := range entries {
		body = binary.LittleEndian.AppendUint16(body, e)
	}
	return body
}

// scale expresses values as multiples of a common base unit: unit times the
// smallest power of ten with which they all fit 16 bits.
//
// An entry of 0 means "not given" and stays reserved for values of 0; 0xFFFF
// means "not reachable". Linux multiplies in 32 bits and drops what overflows,
// so what exceeds them (a latency above 4.29 ms) is set to the largest value
// that does not.
func scale(values []uint64, unit uint64) (base uint64, entries []uint16) {
	var largest uint64
	for _, v := range values {
		largest = max(largest, min(v, math.MaxUint32))
	}
	base = unit
	for largest/base >= math.MaxUint16-1 { // the rounding below may add 1
		base *= 10
	}
	for _, v := range values {
		var entry uint64
		if v != 0 {
			v = min(v, math.MaxUint32)
			entry = min(max(1, (v+base/2)/base), math.MaxUint32/base)
		}
		entries = append(entries, uint16(entry))
	}
	return base, entries
}
