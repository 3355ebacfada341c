package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxProgramHeaders = 64 // a vmlinux has about five
	maxNoteBytes      = 64 << 10

	// Limits of kernels without a setup header: COMMAND_LINE_SIZE - 1 and the
	// initrd_addr_max of every 64-bit kernel.
	elfCmdlineSize   = 2047
	elfInitrdAddrMax = 0x7fffffff
)

// elfImage is a checked ELF64 kernel.
type elfImage struct {
	entry    uint64
	segments []elf.Prog64 // PT_LOAD with memory, all within RAM below 4 GiB
	notes    []elf.Prog64 // PT_NOTE, within the file
}

// loadELF loads a vmlinux by its program headers. head is the file's start.
func (l *loader) loadELF(head []byte) (*Entry, error) {
	img, err := l.parseELF(head)
	if err != nil {
		return nil, err
	}
	pvhEntry, hasPVH, err := l.findPVHEntry(img.notes)
	if err != nil {
		return nil, err
	}
	mode := l.params.Mode
	switch {
	case mode == PVH && !hasPVH:
		return nil, fmt.Errorf("%w: it has no PVH note", ErrUnsupported)
	case mode == Auto && hasPVH:
		mode = PVH
	case mode == Auto:
		mode = Linux64
	}
	entry := img.entry
	if mode == PVH {
		entry = pvhEntry
	}
	if !img.contains(entry) {
		return nil, fmt.Errorf("%w: its entry %#x lies in none of its segments", ErrNotKernel, entry)
	}

	if err := l.loadSegments(img.segments); err != nil {
		return nil, err
	}
	if err := l.loadCmdline(elfCmdlineSize); err != nil {
		return nil, err
	}
	initrd, err := l.loadInitrd(elfInitrdAddrMax)
	if err != nil {
		return nil, err
	}
	if mode == PVH {
		if err := l.write("PVH start info", l.startInfo(initrd), startInfoBase); err != nil {
			return nil, err
		}
		return l.finish(entryPVH(entry), initrd)
	}
	if err := l.write("zero page", l.zeroPage(elfSetupHeader(), initrd), zeroPageBase); err != nil {
		return nil, err
	}
	return l.finish(entry64(entry), initrd)
}

// parseELF checks the ELF header and the program headers.
func (l *loader) parseELF(head []byte) (*elfImage, error) {
	var h elf.Header64
	if _, err := binary.Decode(head, binary.LittleEndian, &h); err != nil {
		return nil, fmt.Errorf("kernel %w: it ends inside its ELF header", ErrTruncated)
	}
	switch {
	case elf.Class(h.Ident[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(h.Ident[elf.EI_DATA]) != elf.ELFDATA2LSB || elf.Machine(h.Machine) != elf.EM_X86_64:
		return nil, fmt.Errorf("%w: an ELF file, but not for x86-64", ErrNotKernel)
	case elf.Type(h.Type) != elf.ET_EXEC && elf.Type(h.Type) != elf.ET_DYN:
		return nil, fmt.Errorf("%w: an ELF file, but of type %v", ErrNotKernel, elf.Type(h.Type))
	case h.Phnum == 0:
		return nil, fmt.Errorf("%w: an ELF file without program headers", ErrNotKernel)
	case int(h.Phentsize) != binary.Size(elf.Prog64{}) || h.Phnum > maxProgramHeaders:
		return nil, fmt.Errorf("%w: an ELF file with %d program headers of %d bytes", ErrNotKernel, h.Phnum, h.Phentsize)
	}
	progs := make([]elf.Prog64, h.Phnum)
	table := make([]byte, binary.Size(progs))
	if err := l.readKernel("program headers", table, h.Phoff); err != nil {
		return nil, err
	}
	if _, err := binary.Decode(table, binary.LittleEndian, progs); err != nil {
		return nil, fmt.Errorf("decode program headers: %w", err)
	}

	img := &elfImage{entry: h.Entry}
	for i, p := range progs {
		t := elf.ProgType(p.Type)
		if t != elf.PT_LOAD && t != elf.PT_NOTE || p.Memsz == 0 && p.Filesz == 0 {
			continue
		}
		if size := uint64(l.params.KernelSize); p.Off > size || p.Filesz > size-p.Off {
			return nil, fmt.Errorf("kernel %w: program header %d names bytes %#x+%#x of %#x", ErrTruncated, i, p.Off, p.Filesz, size)
		}
		if t == elf.PT_NOTE {
			img.notes = append(img.notes, p)
			continue
		}
		if err := l.checkSegment(p); err != nil {
			return nil, fmt.Errorf("program header %d: %w", i, err)
		}
		s := span{p.Paddr, p.Paddr + p.Memsz}
		for _, q := range img.segments {
			if s.overlaps(span{q.Paddr, q.Paddr + q.Memsz}) {
				return nil, fmt.Errorf("%w: program header %d overlaps another", ErrNotKernel, i)
			}
		}
		img.segments = append(img.segments, p)
		if l.kernel == (span{}) {
			l.kernel = s
		}
		l.kernel = span{min(l.kernel.base, s.base), max(l.kernel.end, s.end)}
	}
	if len(img.segments) == 0 {
		return nil, fmt.Errorf("%w: an ELF file with nothing to load", ErrNotKernel)
	}
	return img, nil
}

// checkSegment checks that a PT_LOAD segment fits into RAM from 1 MiB on.
func (l *loader) checkSegment(p elf.Prog64) error {
	end := p.Paddr + p.Memsz
	switch {
	case p.Filesz > p.Memsz:
		return fmt.Errorf("%w: a segment has more bytes in the file than in memory", ErrNotKernel)
	case p.Paddr < highBase || end < p.Paddr || end > fourGiB:
		return fmt.Errorf("%w: a segment goes to %#x+%#x, outside 1 MiB to 4 GiB", ErrNotKernel, p.Paddr, p.Memsz)
	case !l.memory.isRAM(p.Paddr, p.Memsz):
		return &RoomError{What: "kernel", Need: end, Have: l.memory.lowEnd()}
	}
	return nil
}

// contains reports whether gpa lies in what a segment has in the file.
func (img *elfImage) contains(gpa uint64) bool {
	for _, p := range img.segments {
		if gpa >= p.Paddr && gpa-p.Paddr < p.Filesz {
			return true
		}
	}
	return false
}

// loadSegments copies the segments and clears what they have beyond the file.
func (l *loader) loadSegments(segments []elf.Prog64) error {
	for _, p := range segments {
		if err := l.copyIn("kernel", l.params.Kernel, int64(p.Off), int64(p.Filesz), p.Paddr); err != nil {
			return err
		}
		if err := l.zero("kernel", p.Paddr+p.Filesz, p.Memsz-p.Filesz); err != nil {
			return err
		}
	}
	return nil
}

// readKernel fills b from offset off of the kernel file.
func (l *loader) readKernel(what string, b []byte, off uint64) error {
	size := uint64(l.params.KernelSize)
	if off > size || uint64(len(b)) > size-off {
		return fmt.Errorf("kernel %w: its %s are at %#x, the file has %#x bytes", ErrTruncated, what, off, size)
	}
	n, err := l.params.Kernel.ReadAt(b, int64(off))
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("kernel %w: it ends at byte %d, inside its %s", ErrTruncated, off+uint64(n), what)
	}
	return fmt.Errorf("read kernel's %s: %w", what, err)
}

// xenNoteEntry is XEN_ELFNOTE_PHYS32_ENTRY: the PVH entry's physical address.
const xenNoteEntry = 18

// findPVHEntry looks for the PVH note and returns the entry it names. Notes
// that do not parse end the search of their segment: other tools' notes are not
// ours to judge.
func (l *loader) findPVHEntry(notes []elf.Prog64) (entry uint64, ok bool, err error) {
	le := binary.LittleEndian
	for _, p := range notes {
		b := make([]byte, min(p.Filesz, maxNoteBytes))
		if err := l.readKernel("notes", b, p.Off); err != nil {
			return 0, false, err
		}
		align := uint64(4)
		if p.Align == 8 {
			align = 8
		}
		for len(b) >= 12 {
			nameSize, descSize, kind := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
			descAt := alignUp(12+nameSize, align)
			next := alignUp(descAt+descSize, align)
			if descAt+descSize > uint64(len(b)) {
				break
			}
			name, desc := b[12:12+nameSize], b[descAt:descAt+descSize]
			if kind == xenNoteEntry && bytes.Equal(name, []byte("Xen\x00")) {
				switch len(desc) {
				case 4:
					return uint64(le.Uint32(desc)), true, nil
				case 8:
					return le.Uint64(desc), true, nil
				}
				return 0, false, fmt.Errorf("%w: its PVH note has %d bytes", ErrNotKernel, len(desc))
			}
			b = b[min(next, uint64(len(b))):]
		}
	}
	return 0, false, nil
}

// elfSetupHeader makes the setup header that a kernel without one finds in its
// zero page: what its 64-bit entry looks at, in the oldest protocol with all of it.
func elfSetupHeader() []byte {
	h := make([]byte, minSetupHeaderEnd)
	le := binary.LittleEndian
	le.PutUint16(h[offBootFlag:], bootFlag)
	copy(h[offHeader:], headerMagic)
	le.PutUint16(h[offVersion:], minProtocol)
	h[offLoadflags] = loadedHigh
	le.PutUint16(h[offXloadflags:], xlfKernel64)
	le.PutUint32(h[offInitrdAddrMax:], elfInitrdAddrMax)
	le.PutUint32(h[offCmdlineSize:], elfCmdlineSize)
	return h[bpSetup:]
}
