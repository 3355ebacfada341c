package boot

import "encoding/binary"

// Segment is a segment register with its hidden part, field by field what KVM's
// struct kvm_segment holds.
type Segment struct {
	Base     uint64
	Limit    uint32 // last byte's offset, whatever G says
	Selector uint16
	Type     uint8 // descriptor type, with the accessed or busy bit set
	Present  bool
	DPL      uint8
	DB       bool // 32-bit
	S        bool // code or data
	L        bool // 64-bit
	G        bool // limit in 4 KiB units
}

// Entry is the state in which the first vCPU starts. Registers that are not
// named are 0; LDT is unusable and IDT has limit 0; the vCPU runs with
// interrupts disabled until the kernel has set up its own tables.
type Entry struct {
	// Mode is Linux64 or PVH.
	Mode Mode

	RIP, RSI, RBX, RFLAGS uint64
	CR0, CR3, CR4, EFER   uint64

	CS   Segment
	Data Segment // DS, ES, FS, GS and SS
	TR   Segment

	GDTBase  uint64
	GDTLimit uint16

	// KernelVersion is what the kernel's header says of itself, "" for an ELF kernel.
	KernelVersion string
	// KernelBase and KernelSize are the RAM the kernel takes, in bytes;
	// InitrdBase and InitrdSize where the initrd is, 0 and 0 without one.
	KernelBase, KernelSize uint64
	InitrdBase, InitrdSize uint64
}

const (
	cr0PE   = 1 << 0
	cr0ET   = 1 << 4 // hardwired to 1
	cr0PG   = 1 << 31
	cr4PAE  = 1 << 5
	eferLME = 1 << 8
	eferLMA = 1 << 10

	// rflagsFixed is the bit that always reads 1.
	rflagsFixed = 1 << 1
)

// Selectors of the boot protocol (__BOOT_CS, __BOOT_DS) and of the task state
// segment that VMX wants to see loaded.
const (
	bootCS = 0x10
	bootDS = 0x18
	bootTR = 0x20
)

const (
	typeData = 0x3 // read/write, accessed
	typeCode = 0xb // execute/read, accessed
	typeTSS  = 0xb // busy
)

var (
	code64 = Segment{Limit: 0xffffffff, Selector: bootCS, Type: typeCode, Present: true, S: true, L: true, G: true}
	code32 = Segment{Limit: 0xffffffff, Selector: bootCS, Type: typeCode, Present: true, S: true, DB: true, G: true}
	data32 = Segment{Limit: 0xffffffff, Selector: bootDS, Type: typeData, Present: true, S: true, DB: true, G: true}
	tss    = Segment{Limit: 0x67, Selector: bootTR, Type: typeTSS, Present: true}
)

// entry64 is the state that "64-bit boot protocol" of boot.rst asks for: paging
// on, identity mapping, flat segments, zero page in RSI.
func entry64(rip uint64) *Entry {
	e := newEntry(Linux64, rip, code64)
	e.RSI = zeroPageBase
	e.CR0 = cr0PE | cr0ET | cr0PG
	e.CR3 = pml4Base
	e.CR4 = cr4PAE
	e.EFER = eferLME | eferLMA
	return e
}

// entryPVH is the state that "x86/HVM direct boot ABI" asks for: protected mode
// without paging, flat 32-bit segments, start info in EBX.
func entryPVH(rip uint64) *Entry {
	e := newEntry(PVH, rip, code32)
	e.RBX = startInfoBase
	e.CR0 = cr0PE | cr0ET
	return e
}

func newEntry(m Mode, rip uint64, cs Segment) *Entry {
	return &Entry{
		Mode: m, RIP: rip, RFLAGS: rflagsFixed,
		CS: cs, Data: data32, TR: tss,
		GDTBase: gdtBase, GDTLimit: gdtSize - 1,
	}
}

// gdtSize is six descriptors: two unused, code, data and a 64-bit task state
// segment, which takes two.
const gdtSize = 6 * 8

// writeTables writes the descriptor table for e and, for a 64-bit entry, page
// tables that map [0, 4 GiB) one to one.
func (l *loader) writeTables(e *Entry) error {
	var gdt [gdtSize]byte
	for _, s := range []Segment{e.CS, e.Data, e.TR} {
		binary.LittleEndian.PutUint64(gdt[s.Selector:], s.descriptor())
	}
	if err := l.write("GDT", gdt[:], gdtBase); err != nil {
		return err
	}
	if e.Mode != Linux64 {
		return nil
	}
	return l.write("page tables", identityTables(), pml4Base)
}

// descriptor packs s into its table form (SDM volume 3, 3.4.5). Bases above
// 4 GiB, which take a second word, do not occur here.
func (s Segment) descriptor() uint64 {
	limit := uint64(s.Limit)
	if s.G {
		limit >>= 12
	}
	d := limit&0xffff | limit>>16&0xf<<48
	d |= s.Base&0xffffff<<16 | s.Base>>24&0xff<<56
	d |= uint64(s.Type&0xf)<<40 | uint64(s.DPL&3)<<45
	for _, f := range []struct {
		bit int
		on  bool
	}{{44, s.S}, {47, s.Present}, {53, s.L}, {54, s.DB}, {55, s.G}} {
		if f.on {
			d |= 1 << f.bit
		}
	}
	return d
}

// identityTables builds the page tables at pml4Base: one PML4 entry, four PDPT
// entries, 2,048 entries of 2 MiB. 1 GiB pages would save four pages but not
// every CPU has them. Accessed and dirty are set from the start, so that a
// hardware walk writes nothing.
func identityTables() []byte {
	const (
		present, write, accessed, dirty, large = 1 << 0, 1 << 1, 1 << 5, 1 << 6, 1 << 7

		table = present | write | accessed
		leaf  = table | dirty | large
	)
	t := make([]byte, tablesEnd-pml4Base)
	put := func(gpa, v uint64) { binary.LittleEndian.PutUint64(t[gpa-pml4Base:], v) }
	put(pml4Base, pdptBase|table)
	for i := range uint64(4) {
		put(pdptBase+8*i, pdBase+i*tableSize|table)
	}
	for i := range uint64(fourGiB / largePage) {
		put(pdBase+8*i, i*largePage|leaf)
	}
	return t
}
