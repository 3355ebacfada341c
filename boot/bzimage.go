package boot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Offsets of the setup header's fields, the same in a bzImage file and in the
// zero page (boot.rst, "The Real-Mode Kernel Header").
const (
	offSetupSects    = 0x1f1 // 1 byte
	offSyssize       = 0x1f4 // 4 bytes, in units of 16 bytes
	offBootFlag      = 0x1fe // 2 bytes
	offHeaderLength  = 0x201 // 1 byte: the header ends at 0x202 plus this
	offHeader        = 0x202 // 4 bytes: "HdrS"
	offVersion       = 0x206 // 2 bytes
	offKernelVersion = 0x20e // 2 bytes: of a string, from 0x200 on
	offTypeOfLoader  = 0x210 // 1 byte
	offLoadflags     = 0x211 // 1 byte
	offRamdiskImage  = 0x218 // 4 bytes
	offRamdiskSize   = 0x21c // 4 bytes
	offCmdLinePtr    = 0x228 // 4 bytes
	offInitrdAddrMax = 0x22c // 4 bytes
	offAlignment     = 0x230 // 4 bytes
	offRelocatable   = 0x234 // 1 byte
	offXloadflags    = 0x236 // 2 bytes
	offCmdlineSize   = 0x238 // 4 bytes
	offPrefAddress   = 0x258 // 8 bytes
	offInitSize      = 0x260 // 4 bytes

	// A header of protocol 2.12 reaches minSetupHeaderEnd; in the zero page there
	// is room up to setupHeaderEnd.
	minSetupHeaderEnd = 0x268
	setupHeaderEnd    = 0x290
)

const (
	bootFlag    = 0xaa55
	headerMagic = "HdrS"

	minProtocol = 0x020c // 2.12, the first with xloadflags

	loadedHigh  = 1 << 0 // loadflags: protected-mode code goes to 1 MiB or above
	xlfKernel64 = 1 << 0 // xloadflags: has the 64-bit entry

	sectorSize      = 512
	defaultSects    = 4     // what setup_sects 0 means
	paragraph       = 16    // syssize's unit
	startup64       = 0x200 // of the 64-bit entry, in the protected-mode code
	versionStrMax   = 256   // what is looked at of the version string
	versionStrStart = 0x200 // what the version string's offset counts from
)

// setupHeader is what Load needs of a bzImage's header, checked.
type setupHeader struct {
	raw           []byte // from bpSetup on, for the zero page
	payloadOffset int64  // of the protected-mode code in the file, in bytes
	payloadSize   int64  // in bytes
	versionOffset int64  // of the version string in the file, 0 for none
	initrdAddrMax uint32
	alignment     uint64 // a power of two
	relocatable   bool
	cmdlineSize   uint32 // without the terminator
	prefAddress   uint64
	initSize      uint64 // RAM needed from the load address on, in bytes
}

// isBzImage tells a bzImage from other files by the two marks of its header, as
// far as the file reaches.
func isBzImage(head []byte) bool {
	if len(head) < offHeader+len(headerMagic) {
		return false
	}
	return binary.LittleEndian.Uint16(head[offBootFlag:]) == bootFlag &&
		bytes.Equal(head[offHeader:offHeader+len(headerMagic)], []byte(headerMagic))
}

// parseSetupHeader checks the header of a bzImage file of size bytes. head is
// the file's start, up to setupHeaderEnd.
func parseSetupHeader(head []byte, size int64) (*setupHeader, error) {
	le := binary.LittleEndian
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: the header's "+format, append([]any{ErrNotKernel}, args...)...)
	}
	if len(head) < minSetupHeaderEnd {
		return nil, fmt.Errorf("kernel %w: it ends inside its header, at byte %d", ErrTruncated, len(head))
	}
	if v := le.Uint16(head[offVersion:]); v < minProtocol {
		return nil, fmt.Errorf("%w: boot protocol %d.%02d, 2.12 (Linux 3.8) or newer is needed", ErrUnsupported, v>>8, v&0xff)
	}
	if head[offLoadflags]&loadedHigh == 0 {
		return nil, fmt.Errorf("%w: it is a zImage that loads low", ErrUnsupported)
	}
	if le.Uint16(head[offXloadflags:])&xlfKernel64 == 0 {
		return nil, fmt.Errorf("%w: it has no 64-bit entry", ErrUnsupported)
	}
	end := offHeader + int(head[offHeaderLength])
	if end < minSetupHeaderEnd || end > setupHeaderEnd {
		return nil, bad("own length ends it at %#x", end)
	}
	if len(head) < end {
		return nil, fmt.Errorf("kernel %w: it ends inside its header, at byte %d", ErrTruncated, len(head))
	}

	sects := int64(head[offSetupSects])
	if sects == 0 {
		sects = defaultSects
	}
	h := &setupHeader{
		raw:           head[bpSetup:end],
		payloadOffset: (sects + 1) * sectorSize,
		payloadSize:   int64(le.Uint32(head[offSyssize:])) * paragraph,
		initrdAddrMax: le.Uint32(head[offInitrdAddrMax:]),
		alignment:     uint64(le.Uint32(head[offAlignment:])),
		relocatable:   head[offRelocatable] != 0,
		cmdlineSize:   le.Uint32(head[offCmdlineSize:]),
		prefAddress:   le.Uint64(head[offPrefAddress:]),
		initSize:      uint64(le.Uint32(head[offInitSize:])),
	}
	if h.payloadSize <= startup64 {
		return nil, bad("code size is %d bytes", h.payloadSize)
	}
	// syssize counts whole paragraphs, so the last one may be short.
	if missing := h.payloadOffset + h.payloadSize - size; missing >= paragraph {
		return nil, fmt.Errorf("kernel %w: it has %d of %d bytes", ErrTruncated, size, size+missing)
	} else if missing > 0 {
		h.payloadSize -= missing
	}
	if h.initSize < uint64(h.payloadSize) {
		return nil, bad("init_size %#x is less than its code of %#x bytes", h.initSize, h.payloadSize)
	}
	if h.prefAddress < highBase || h.prefAddress >= fourGiB {
		return nil, bad("preferred address %#x is not between 1 MiB and 4 GiB", h.prefAddress)
	}
	if h.relocatable && bits.OnesCount64(h.alignment) != 1 {
		return nil, bad("alignment %#x is not a power of two", h.alignment)
	}
	if h.initrdAddrMax < highBase {
		return nil, bad("highest initrd address is %#x", h.initrdAddrMax)
	}
	if v := int64(le.Uint16(head[offKernelVersion:])); v != 0 && v < sects*sectorSize {
		h.versionOffset = versionStrStart + v
	}
	return h, nil
}

// loadAddress finds where the protected-mode code goes. A relocatable kernel
// moves itself up to the preferred address and to its alignment when it is
// loaded elsewhere, so only places that are both will do; any other kernel runs
// at the preferred address alone.
func (h *setupHeader) loadAddress(m *memoryMap) (uint64, error) {
	base, ok := h.prefAddress, m.isRAM(h.prefAddress, h.initSize)
	if h.relocatable {
		base, ok = m.placeUp(h.prefAddress, h.initSize, h.alignment)
	}
	if !ok {
		return 0, &RoomError{What: "kernel", Need: h.prefAddress + h.initSize, Have: m.lowEnd()}
	}
	return base, nil
}

// loadBzImage loads a bzImage through its 64-bit entry. head is the file's start.
func (l *loader) loadBzImage(head []byte) (*Entry, error) {
	h, err := parseSetupHeader(head, l.params.KernelSize)
	if err != nil {
		return nil, err
	}
	if l.params.Mode == PVH {
		return nil, fmt.Errorf("%w: a bzImage has no PVH entry, an ELF vmlinux may", ErrUnsupported)
	}
	base, err := h.loadAddress(l.memory)
	if err != nil {
		return nil, err
	}
	l.kernel = span{base, base + h.initSize}
	if err := l.copyIn("kernel", l.params.Kernel, h.payloadOffset, h.payloadSize, base); err != nil {
		return nil, err
	}
	if err := l.loadCmdline(h.cmdlineSize); err != nil {
		return nil, err
	}
	initrd, err := l.loadInitrd(uint64(h.initrdAddrMax))
	if err != nil {
		return nil, err
	}
	if err := l.write("zero page", l.zeroPage(h.raw, initrd), zeroPageBase); err != nil {
		return nil, err
	}
	e := entry64(base + startup64)
	e.KernelVersion = l.versionString(h.versionOffset)
	return l.finish(e, initrd)
}

// finish writes the tables for e and notes in it where things are.
func (l *loader) finish(e *Entry, initrd span) (*Entry, error) {
	if err := l.writeTables(e); err != nil {
		return nil, err
	}
	e.KernelBase, e.KernelSize = l.kernel.base, l.kernel.end-l.kernel.base
	e.InitrdBase, e.InitrdSize = initrd.base, initrd.end-initrd.base
	return e, nil
}

// versionString reads the kernel's version string at off, cut at the first byte
// that a log line should not carry. It is for show only: no string, no error.
func (l *loader) versionString(off int64) string {
	if off == 0 || off >= l.params.KernelSize {
		return ""
	}
	b := make([]byte, min(versionStrMax, l.params.KernelSize-off))
	n, _ := l.params.Kernel.ReadAt(b, off)
	b = b[:n]
	if i := bytes.IndexFunc(b, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
