package top

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"coalesce/dsm"
)

// Symbols are a kernel's, by the guest-physical address they are at.
type Symbols struct {
	sorted []symbol
}

type symbol struct {
	gpa  uint64
	name string
}

// kernelMap is where x86-64 Linux's own text and data are, virtually
// (__START_KERNEL_map); what is elsewhere has no fixed physical address.
const kernelMap = 0xffff_ffff_8000_0000

// maxSymbolLine bounds a line of a symbol table, in bytes.
const maxSymbolLine = 64 << 10

// ReadSymbols reads a System.map, lines "address type name", of a kernel whose text
// begins at the guest-physical address base. The kernel must not have placed itself
// elsewhere (boot it with nokaslr).
func ReadSymbols(r io.Reader, base uint64) (*Symbols, error) {
	s := &Symbols{}
	text := uint64(0)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxSymbolLine)
	for n := 1; lines.Scan(); n++ {
		f := strings.Fields(lines.Text())
		if len(f) < 3 {
			return nil, fmt.Errorf("line %d is not \"address type name\"", n)
		}
		va, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("line %d: %q is not an address", n, f[0])
		}
		if f[2] == "_text" {
			text = va
		}
		if va >= kernelMap {
			s.sorted = append(s.sorted, symbol{va, f[2]})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read the symbol table: %w", err)
	}
	if text < kernelMap {
		return nil, errors.New("it does not say where the kernel's text is (_text): is it a System.map of x86-64 Linux?")
	}
	for i := range s.sorted {
		s.sorted[i].gpa += base - text
	}
	slices.SortStableFunc(s.sorted, func(a, b symbol) int { return cmp.Compare(a.gpa, b.gpa) })
	return s, nil
}

// In returns the symbols that are in the page at gpa, in order, the one that
// reaches into it first; nil where the kernel's text and data are not. s may be nil.
func (s *Symbols) In(gpa uint64) []string {
	if s == nil || len(s.sorted) == 0 {
		return nil
	}
	i, _ := slices.BinarySearchFunc(s.sorted, gpa, func(x symbol, gpa uint64) int { return cmp.Compare(x.gpa, gpa) })
	// i is the first symbol at gpa or above it. The last ones end where the kernel
	// does, or nobody knows where.
	var names []string
	for j := i; j < len(s.sorted) && s.sorted[j].gpa < gpa+dsm.PageSize; j++ {
		names = append(names, s.sorted[j].name)
	}
	reaches := i > 0 && i < len(s.sorted) && s.sorted[i].gpa > gpa
	if reaches {
		x := s.sorted[i-1]
		names = append([]string{fmt.Sprintf("%s+%#x", x.name, gpa-x.gpa)}, names...)
	}
	return names
}
