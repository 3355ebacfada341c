package boot

import (
	"errors"
	"fmt"
	"slices"
)

// E820Kind is the type of a memory map entry, in the numbers of the BIOS call
// that gave the map its name; PVH uses the same.
type E820Kind uint32

const (
	RAM      E820Kind = 1 // usable
	Reserved E820Kind = 2
	ACPI     E820Kind = 3 // ACPI tables, reclaimable
	NVS      E820Kind = 4 // ACPI non-volatile storage
	Unusable E820Kind = 5
	PMem     E820Kind = 7 // persistent memory
)

// Region is one entry of the guest's memory map: [Base, Base+Length), in bytes.
type Region struct {
	Base, Length uint64
	Kind         E820Kind
}

// maxE820 is the number of entries that fit into a zero page.
const maxE820 = 128

// fourGiB ends what the entry page tables map and what 32-bit fields can name.
const fourGiB = 1 << 32

const pageSize = 4096

// span is [base, end).
type span struct{ base, end uint64 }

func (s span) overlaps(t span) bool { return s.base < t.end && t.base < s.end }

// memoryMap is a checked memory map.
type memoryMap struct {
	regions []Region // sorted by base
	low     []span   // RAM below 4 GiB, sorted, touching entries merged
}

// newMemoryMap checks and sorts a memory map.
func newMemoryMap(in []Region) (*memoryMap, error) {
	if len(in) == 0 {
		return nil, errors.New("memory map is empty")
	}
	if len(in) > maxE820 {
		return nil, fmt.Errorf("memory map has %d entries, at most %d fit into the zero page", len(in), maxE820)
	}
	m := &memoryMap{regions: slices.Clone(in)}
	slices.SortFunc(m.regions, func(a, b Region) int {
		switch {
		case a.Base < b.Base:
			return -1
		case a.Base > b.Base:
			return 1
		}
		return 0
	})
	var end uint64
	for i, r := range m.regions {
		if r.Length == 0 || r.Base+r.Length < r.Base {
			return nil, fmt.Errorf("memory map entry at %#x has length %#x", r.Base, r.Length)
		}
		if i > 0 && r.Base < end {
			return nil, fmt.Errorf("memory map entries overlap at %#x", r.Base)
		}
		end = r.Base + r.Length
		if r.Kind != RAM || r.Base >= fourGiB {
			continue
		}
		s := span{r.Base, min(end, fourGiB)}
		if n := len(m.low); n > 0 && m.low[n-1].end == s.base {
			m.low[n-1].end = s.end
		} else {
			m.low = append(m.low, s)
		}
	}
	return m, nil
}

// isRAM reports whether all of [base, base+size) is RAM below 4 GiB.
func (m *memoryMap) isRAM(base, size uint64) bool {
	for _, s := range m.low {
		if base >= s.base && base < s.end {
			return size <= s.end-base
		}
	}
	return false
}

// lowEnd is the end of the RAM below 4 GiB.
func (m *memoryMap) lowEnd() uint64 {
	if len(m.low) == 0 {
		return 0
	}
	return m.low[len(m.low)-1].end
}

// placeUp finds the lowest multiple of align at or above from where size bytes
// of RAM below 4 GiB follow. align is a power of two.
func (m *memoryMap) placeUp(from, size, align uint64) (uint64, bool) {
	for _, s := range m.low {
		base := alignUp(max(s.base, min(from, fourGiB)), min(align, fourGiB))
		if base < s.end && size <= s.end-base {
			return base, true
		}
	}
	return 0, false
}

// placeDown finds the highest multiple of align where size bytes of RAM follow
// that end at or below limit, lie above 1 MiB and do not touch avoid. align is a
// power of two.
func (m *memoryMap) placeDown(limit, size, align uint64, avoid span) (uint64, bool) {
	var best uint64
	found := false
	for _, f := range m.free(limit, avoid) {
		if size > f.end-f.base {
			continue
		}
		if base := (f.end - size) &^ (align - 1); base >= f.base {
			best, found = base, true
		}
	}
	return best, found
}

// largestFree is the length of the longest stretch that placeDown may use.
func (m *memoryMap) largestFree(limit uint64, avoid span) uint64 {
	var n uint64
	for _, f := range m.free(limit, avoid) {
		n = max(n, f.end-f.base)
	}
	return n
}

// free returns the RAM in [1 MiB, limit) outside avoid, in rising order.
func (m *memoryMap) free(limit uint64, avoid span) []span {
	var out []span
	for _, s := range m.low {
		s = span{max(s.base, highBase), min(s.end, limit)}
		parts := [2]span{s, {}}
		if s.overlaps(avoid) {
			parts = [2]span{{s.base, min(s.end, avoid.base)}, {max(s.base, avoid.end), s.end}}
		}
		for _, p := range parts {
			if p.base < p.end {
				out = append(out, p)
			}
		}
	}
	return out
}
