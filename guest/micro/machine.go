package micro

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The memory map of the package comment: offsets from a machine's base.
const (
	pml4Base       = 0x2000
	pdptBase       = 0x3000
	pdLowBase      = 0x4000
	pdHighBase     = 0x5000
	gdtBase        = 0x7000
	trampolineBase = 0x8000
	idtBase        = 0x9000
	stubBase       = 0xa000
	tssBase        = 0x1_0000
	stack0Base     = 0x2_0000
	stack3Base     = 0x3_0000

	pageSize = 0x1000

	// FreeBase is the first address a program may use as it likes; of a machine
	// that lies elsewhere, how many bytes its tables take.
	FreeBase = 0x4_0000
	// MaxVCPUs is how many vCPUs have stacks and a task state segment.
	MaxVCPUs = 16
	// TrampolineVector is the SIPI vector that starts a vCPU in Trampoline.
	TrampolineVector = trampolineBase >> 12
)

// Ports that micro guests write to and read from.
const (
	PortFault  = 0xe0 // out al: an exception, by number; the guest has ended
	PortFail   = 0xe1 // out al: a program has found something wrong
	PortReport = 0xe2 // out eax: a program's progress
	PortAsk    = 0xe3 // in eax: the host answers Answer
)

// MMIOAsk is a guest-physical address without memory whose 4 bytes the host
// answers with Answer.
const MMIOAsk = 0xd000_0000

// Answer is what the host gives to reads of PortAsk and MMIOAsk.
const Answer = 0x5a17_c0de

// Selectors.
const (
	selCode0 = 0x10
	selData0 = 0x18
	selData3 = 0x20 | 3
	selCode3 = 0x28 | 3
	selTSS   = 0x30 // 16 bytes per vCPU
)

// Control register values. CR0: PE, MP, ET, NE, WP, AM, PG.
const (
	cr0Long     = 0x8005_0033
	cr4PAE      = 1 << 5
	cr4OSFXSR   = 1 << 9
	cr4OSXMMEXC = 1 << 10
	cr4OSXSAVE  = 1 << 18
	cr4Long     = cr4PAE | cr4OSFXSR | cr4OSXMMEXC
	eferLong    = 1<<0 | 1<<8 | 1<<10 | 1<<11 // SCE, LME, LMA, NXE
	eferLME     = 1 << 8
	msrEFER     = 0xc000_0080
)

// RFLAGS bits.
const (
	flagFixed = 1 << 1
	flagIF    = 1 << 9
	flagIOPL3 = 3 << 12
)

// Segment is a segment register with its hidden part, in KVM's fields.
type Segment struct {
	Base     uint64
	Limit    uint32
	Selector uint16
	Type     uint8
	Present  uint8
	DPL      uint8
	DB       uint8
	S        uint8
	L        uint8
	G        uint8
}

// Entry is the state in which a vCPU starts. Registers not named are 0.
type Entry struct {
	RIP, RSP, RFLAGS    uint64
	CR0, CR3, CR4, EFER uint64
	XCR0                uint64 // 0: leave it
	CS                  Segment
	Data                Segment // DS, ES, FS, GS, SS
	TR                  Segment
	GDTBase, IDTBase    uint64
	GDTLimit, IDTLimit  uint16
}

// Options says how a vCPU starts.
type Options struct {
	VCPU int    // 0 to MaxVCPUs-1: which stacks and task state segment
	RIP  uint64 // where
	Ring int    // 0, with interrupts disabled, or 3, with interrupts enabled
	XCR0 uint64 // if not 0, CR4.OSXSAVE is set and XCR0 is to be this
}

// Machine is guest memory that has been given tables.
type Machine struct {
	mem  io.WriterAt // offset = guest-physical address
	base uint64      // of the tables
}

// NewMachine writes page tables, descriptor tables and fault stubs to mem,
// which begins at guest-physical address 0 and holds at least FreeBase bytes.
func NewMachine(mem io.WriterAt) (*Machine, error) { return NewMachineAt(mem, 0) }

// NewMachineAt is NewMachine with everything of the memory map moved up by
// base, a multiple of 4 KiB below 1 GiB: for guests that find something else in
// low memory.
func NewMachineAt(mem io.WriterAt, base uint64) (*Machine, error) {
	if base%pageSize != 0 || base > 1<<30-FreeBase {
		return nil, fmt.Errorf("tables at %#x: want whole pages below 1 GiB", base)
	}
	m := &Machine{mem: mem, base: base}
	for _, part := range []struct {
		at   uint64
		data []byte
	}{
		{pml4Base, m.pageTables()},
		{gdtBase, m.gdt()},
		{tssBase, m.taskStates()},
	} {
		if err := m.Write(int64(base+part.at), part.data); err != nil {
			return nil, err
		}
	}
	return m, m.writeStubs()
}

// Write puts data at a guest-physical address.
func (m *Machine) Write(gpa int64, data []byte) error {
	if _, err := m.mem.WriteAt(data, gpa); err != nil {
		return fmt.Errorf("writing %d bytes at gpa %#x: %w", len(data), gpa, err)
	}
	return nil
}

// SetGate makes interrupt or exception vector lead to ring 0 code at handler,
// with interrupts disabled there.
func (m *Machine) SetGate(vector uint8, handler uint64) error {
	// Intel SDM volume 3, "64-Bit Mode IDT": present, type 0xe.
	var g [16]byte
	binary.LittleEndian.PutUint16(g[0:], uint16(handler))
	binary.LittleEndian.PutUint16(g[2:], selCode0)
	g[5] = 0x8e
	binary.LittleEndian.PutUint16(g[6:], uint16(handler>>16))
	binary.LittleEndian.PutUint32(g[8:], uint32(handler>>32))
	return m.Write(int64(m.base)+idtBase+16*int64(vector), g[:])
}

// Entry returns the registers for a start as o says.
func (m *Machine) Entry(o Options) (Entry, error) {
	if o.VCPU < 0 || o.VCPU >= MaxVCPUs {
		return Entry{}, fmt.Errorf("vCPU %d, at most %d", o.VCPU, MaxVCPUs-1)
	}
	e := Entry{
		RIP: o.RIP, RFLAGS: flagFixed,
		CR0: cr0Long, CR3: m.base + pml4Base, CR4: cr4Long, EFER: eferLong, XCR0: o.XCR0,
		CS:      Segment{Limit: 0xffff_ffff, Selector: selCode0, Type: 0xb, Present: 1, S: 1, L: 1, G: 1},
		Data:    Segment{Limit: 0xffff_ffff, Selector: selData0, Type: 3, Present: 1, S: 1, DB: 1, G: 1},
		TR:      Segment{Base: m.base + tssBase + pageSize*uint64(o.VCPU), Limit: tssLimit, Selector: selTSS + 16*uint16(o.VCPU), Type: 0xb, Present: 1},
		GDTBase: m.base + gdtBase, GDTLimit: gdtLimit,
		IDTBase: m.base + idtBase, IDTLimit: idtLimit,
	}
	switch o.Ring {
	case 0:
		e.RSP = m.base + stack0Top(o.VCPU)
	case 3:
		e.RSP = m.base + stack3Top(o.VCPU)
		// Not only because ring 3 is like that: Bochs 2.7 does not take a
		// host's interrupt while a guest spins with interrupts disabled.
		e.RFLAGS |= flagIOPL3 | flagIF
		e.CS.Selector, e.CS.DPL = selCode3, 3
		e.Data.Selector, e.Data.DPL = selData3, 3
	default:
		return Entry{}, fmt.Errorf("ring %d, want 0 or 3", o.Ring)
	}
	if o.XCR0 != 0 {
		e.CR4 |= cr4OSXSAVE
	}
	return e, nil
}

// Limits of the descriptor tables: their last byte.
const (
	gdtLimit = selTSS + 16*MaxVCPUs - 1
	idtLimit = 16*256 - 1
)

func stack0Top(vcpu int) uint64 { return stack0Base + pageSize*uint64(vcpu+1) }
func stack3Top(vcpu int) uint64 { return stack3Base + pageSize*uint64(vcpu+1) }

// pageTables maps [0, 1 GiB) and [3 GiB, 4 GiB) one to one with 2 MiB pages,
// user and writable. Accessed and dirty are set from the start, so that a
// hardware walk writes nothing.
func (m *Machine) pageTables() []byte {
	const (
		present, write, user, accessed, dirty, large = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7

		table = present | write | user | accessed
		leaf  = table | dirty | large
	)
	t := make([]byte, 4*pageSize)
	put := func(gpa, v uint64) { binary.LittleEndian.PutUint64(t[gpa-pml4Base:], v) }
	put(pml4Base, (m.base+pdptBase)|table)
	put(pdptBase, (m.base+pdLowBase)|table)
	put(pdptBase+3*8, (m.base+pdHighBase)|table)
	for i := range uint64(512) {
		put(pdLowBase+8*i, i<<21|leaf)
		put(pdHighBase+8*i, 3<<30+i<<21|leaf)
	}
	return t
}

// gdt holds flat code and data of both rings and a TSS descriptor per vCPU.
func (m *Machine) gdt() []byte {
	t := make([]byte, selTSS+16*MaxVCPUs)
	put := func(sel, v uint64) { binary.LittleEndian.PutUint64(t[sel&^7:], v) }
	put(selCode0, 0x00af_9b00_0000_ffff)
	put(selData0, 0x00cf_9300_0000_ffff)
	put(selData3, 0x00cf_f300_0000_ffff)
	put(selCode3, 0x00af_fb00_0000_ffff)
	for i := range uint64(MaxVCPUs) {
		// Not busy: LTR loads it.
		base := m.base + tssBase + pageSize*i
		put(selTSS+16*i, 0x0000_8900_0000_0000|tssLimit|base<<16&0xff_ffff_0000|base>>24<<56)
	}
	return t
}

// A task state segment ends with an I/O map of ports 0 to 0x7ff and the byte
// of ones that must follow (SDM volume 1, "I/O Permission Bit Map").
const (
	tssSize  = 0x68
	ioMap    = 0x800 / 8
	tssLimit = tssSize + ioMap // the last byte
)

// taskStates gives each vCPU its ring 0 stack (RSP0) and lets ring 3 use ports
// 0 to 0x7ff. Ring 3 gets I/O privilege as well, since neither way works
// everywhere: KVM without hardware virtualisation runs it with IOPL 0 whatever
// RFLAGS says, and QEMU's software emulation looks at the map of a nested
// guest only if the task state segment is not busy, which hardware forbids.
func (m *Machine) taskStates() []byte {
	t := make([]byte, MaxVCPUs*pageSize)
	for i := range MaxVCPUs {
		tss := t[i*pageSize:]
		binary.LittleEndian.PutUint64(tss[4:], m.base+stack0Top(i))
		binary.LittleEndian.PutUint16(tss[0x66:], tssSize)
		tss[tssLimit] = 0xff
	}
	return t
}

// writeStubs sends the 32 exceptions to stubs that report their number.
func (m *Machine) writeStubs() error {
	const exceptions, size = 32, 16
	for v := range exceptions {
		at := m.base + stubBase + uint64(v)*size
		a := NewAsm(at)
		a.Cli()
		a.Out8(PortFault, uint8(v))
		stop := a.Here()
		a.Hlt()
		a.Jmp(stop)
		code, err := a.Code()
		if err != nil {
			return err
		}
		if err := m.Write(int64(at), code); err != nil {
			return err
		}
		if err := m.SetGate(uint8(v), at); err != nil {
			return err
		}
	}
	return nil
}
