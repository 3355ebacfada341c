package boot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
)

// Memory is guest RAM, addressed by guest physical address. WriteAt writes all
// of p or returns an error, as io.WriterAt does.
type Memory interface {
	WriteAt(p []byte, gpa int64) (int, error)
}

// Mode is a way into a kernel.
type Mode int

const (
	// Auto takes PVH for an ELF kernel with a PVH note, else Linux64.
	Auto Mode = iota
	// Linux64 enters in 64-bit mode with a zero page.
	Linux64
	// PVH enters in 32-bit protected mode with a start info block.
	PVH
)

// String returns the mode's name as users write it.
func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Linux64:
		return "linux64"
	case PVH:
		return "pvh"
	}
	return fmt.Sprintf("Mode(%d)", int(m))
}

// Params says what to load.
type Params struct {
	// Kernel is the kernel file, KernelSize its length in bytes.
	Kernel     io.ReaderAt
	KernelSize int64
	// Initrd is the initial RAM disk or nil, InitrdSize its length in bytes.
	Initrd     io.ReaderAt
	InitrdSize int64
	// Cmdline is the kernel's command line, without a terminator.
	Cmdline string
	// E820 is the guest's memory map, in any order, at most 128 entries that do
	// not overlap. RAM must cover [0, LowEnd).
	E820 []Region
	// RSDP is the guest physical address of the ACPI root pointer, 0 for none.
	RSDP uint64
	// Mode is the way in, normally Auto.
	Mode Mode
}

// Load writes the kernel and all it needs into mem and returns the state in
// which the first vCPU has to start. It keeps nothing of p. Errors that a caller
// may want to tell apart are those in errors.go; each is one sentence that does
// not name the file, for the caller knows its name.
func Load(mem Memory, p Params) (*Entry, error) {
	if p.Kernel == nil || p.KernelSize < 0 || p.InitrdSize < 0 || (p.Initrd == nil && p.InitrdSize > 0) {
		return nil, errors.New("boot parameters name a size without a file")
	}
	if p.Mode < Auto || p.Mode > PVH {
		return nil, fmt.Errorf("unknown boot mode %v", p.Mode)
	}
	m, err := newMemoryMap(p.E820)
	if err != nil {
		return nil, err
	}
	if !m.isRAM(0, LowEnd) {
		return nil, fmt.Errorf("memory map has no RAM at 0..%#x, where the boot data goes", uint64(LowEnd))
	}
	l := loader{mem: mem, params: p, memory: m}

	head := make([]byte, setupHeaderEnd)
	n, err := readUpTo(p.Kernel, head, p.KernelSize)
	if err != nil {
		return nil, fmt.Errorf("read kernel header: %w", err)
	}
	head = head[:n]
	switch {
	case len(head) == 0:
		return nil, fmt.Errorf("%w: the file is empty", ErrNotKernel)
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return l.loadELF(head)
	case isBzImage(head):
		return l.loadBzImage(head)
	}
	return nil, fmt.Errorf("%w: neither a bzImage nor an ELF file", ErrNotKernel)
}

// loader is one call of Load.
type loader struct {
	mem    Memory
	params Params
	memory *memoryMap

	// kernel is the RAM that the running kernel takes, set before the initrd is placed.
	kernel span
}

// copyChunk bounds what is held of a file at a time, in bytes.
const copyChunk = 256 << 10

// copyIn copies size bytes at offset off of r to gpa. The caller has checked
// that [gpa, gpa+size) is RAM; what names the file's role in errors. A file
// shorter than promised is ErrTruncated.
func (l *loader) copyIn(what string, r io.ReaderAt, off, size int64, gpa uint64) error {
	buf := make([]byte, min(size, copyChunk))
	for size > 0 {
		b := buf[:min(size, copyChunk)]
		n, err := r.ReadAt(b, off)
		if n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				return fmt.Errorf("%s %w: it ends at byte %d, %d more were expected", what, ErrTruncated, off+int64(n), size-int64(n))
			}
			return fmt.Errorf("read %s at byte %d: %w", what, off+int64(n), err)
		}
		if err := l.write(what, b, gpa); err != nil {
			return err
		}
		off, size, gpa = off+int64(n), size-int64(n), gpa+uint64(n)
	}
	return nil
}

// zero clears size bytes of guest RAM at gpa, for a guest that is booted again
// in the memory of the one before.
func (l *loader) zero(what string, gpa, size uint64) error {
	buf := make([]byte, min(size, copyChunk))
	for size > 0 {
		b := buf[:min(size, copyChunk)]
		if err := l.write(what, b, gpa); err != nil {
			return err
		}
		gpa, size = gpa+uint64(len(b)), size-uint64(len(b))
	}
	return nil
}

// write puts b into guest RAM at gpa.
func (l *loader) write(what string, b []byte, gpa uint64) error {
	if gpa > math.MaxInt64-uint64(len(b)) {
		return fmt.Errorf("write %s: guest address %#x is out of range", what, gpa)
	}
	if _, err := l.mem.WriteAt(b, int64(gpa)); err != nil {
		return fmt.Errorf("write %s at guest address %#x: %w", what, gpa, err)
	}
	return nil
}

// loadCmdline writes the command line and its terminator to its fixed place.
// limit is the most bytes the kernel takes, without the terminator.
func (l *loader) loadCmdline(limit uint32) error {
	s := l.params.Cmdline
	if most := min(uint64(limit), cmdlineRoom-1); uint64(len(s)) > most {
		return &CmdlineError{Length: len(s), Limit: int(most)}
	}
	if i := bytes.IndexByte([]byte(s), 0); i >= 0 {
		return fmt.Errorf("command line has a NUL at byte %d", i)
	}
	return l.write("command line", append([]byte(s), 0), cmdlineBase)
}

// loadInitrd places the initrd as high as the kernel accepts and returns where;
// an empty span when there is none. addrMax is the highest address its last
// byte may have.
func (l *loader) loadInitrd(addrMax uint64) (span, error) {
	if l.params.Initrd == nil || l.params.InitrdSize == 0 {
		return span{}, nil
	}
	size := uint64(l.params.InitrdSize)
	// The kernel reserves whole pages around the initrd, so nothing else may
	// share its last one: the place is looked for in whole pages.
	base, ok := l.memory.placeDown(addrMax+1, alignUp(size, pageSize), pageSize, l.kernel)
	if !ok {
		return span{}, &RoomError{What: "initrd", Need: size, Have: l.memory.largestFree(addrMax+1, l.kernel)}
	}
	if err := l.copyIn("initrd", l.params.Initrd, 0, l.params.InitrdSize, base); err != nil {
		return span{}, err
	}
	return span{base, base + size}, nil
}

// readUpTo fills b from the start of r, but from no more than size bytes.
func readUpTo(r io.ReaderAt, b []byte, size int64) (int, error) {
	b = b[:min(int64(len(b)), size)]
	n, err := r.ReadAt(b, 0)
	if errors.Is(err, io.EOF) || n == len(b) {
		err = nil
	}
	return n, err
}

// alignUp rounds v up to a multiple of align, a power of two. The caller makes
// sure that the result does not overflow.
func alignUp(v, align uint64) uint64 { return (v + align - 1) &^ (align - 1) }
