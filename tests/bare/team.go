package bare

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"

	"coalesce/guest/micro"
	"coalesce/vmm"
)

// What the hosts of a Team bring, in bytes, beside one vCPU each.
const (
	TeamMemory = 32 << 20 // the client
	TeamLent   = 2 << 20  // a lender
	MaxTeam    = micro.MaxVCPUs
	PageSize   = 0x1000
)

// The memory of a Team: guest-physical addresses, which are virtual ones too.
const (
	trampolines = 0x6_0000   // one page for each vCPU; boot leaves them free
	tablesBase  = 0x10_0000  // of the micro machine
	codeBase    = 0x20_0000  //
	imageBase   = 0x40_0000  // page tables and what else comes with the kernel
	sharedBase  = 0x100_0000 // the client's shared pages
)

// Virtual addresses that differ from the physical ones. All are below 2 GiB, so that instructions can name them.
const (
	privateVA   = 0x1000_0000 // what each vCPU has for itself
	privateSize = 0x4_0000    //
	othersVA    = 0x1100_0000 // the same of every vCPU, one after the other
	sharedVA    = 0x2000_0000
)

// Team is a kernel in the making whose vCPUs, one on each host, run one program in ring 3 at the same time; where a KVM
// emulates ring 0, that runs natively nevertheless. The program is made with the assembler in it and ends with End.
//
// Each vCPU has page tables of its own, with every bit set that a processor would set. They are complete before it
// starts, so that hosts whose KVM walks page tables itself see them as they stay.
//
// R15 is the vCPU's number, R14 the state of Random. Each method that emits code says which other registers it changes.
type Team struct {
	*micro.Asm
	n       int
	image   imageMemory
	machine *micro.Machine
	layout  *vmm.Layout
	err     error // the first one

	entry    micro.Label // where the loader enters
	next     uint64      // free memory of the image
	roots    []uint64    // page tables by vCPU
	privates uint64      // physical address of the first vCPU's private memory
	private  uint64      // next free virtual address of private memory
	shared   uint64      // next free virtual address of shared memory
	taken    []uint64    // pages of shared memory by node

	barrier, print, number micro.Label // subroutines

	// Private words: barriers passed, what Expect has found.
	passed, errors, first uint64
	// Shared words of the barrier: arrivals; barriers that all have reached, and when they reached the last one.
	arrivals, reached, metAt uint64
}

// imageMemory is the part of guest memory that comes with the kernel, from tablesBase on. It grows as it is written.
type imageMemory []byte

// WriteAt implements io.WriterAt; offsets are guest-physical addresses.
func (m *imageMemory) WriteAt(b []byte, gpa int64) (int, error) {
	at := gpa - tablesBase
	if at < 0 || at+int64(len(b)) > sharedBase-tablesBase {
		return 0, io.ErrShortWrite
	}
	if missing := int(at) + len(b) - len(*m); missing > 0 {
		*m = append(*m, make([]byte, missing)...)
	}
	return copy((*m)[at:], b), nil
}

// NewTeam starts a kernel for n vCPUs, of which vCPU i has the APIC id i. Random depends on seed.
func NewTeam(n int, seed uint64) (*Team, error) {
	if n < 1 || n > MaxTeam {
		return nil, fmt.Errorf("a team of %d", n)
	}
	shares := []vmm.Share{{CPUs: 1, Memory: TeamMemory}}
	for range n - 1 {
		shares = append(shares, vmm.Share{CPUs: 1, Memory: TeamLent, Distance: vmm.DefaultDistance})
	}
	layout, err := vmm.NewLayout(shares)
	if err != nil {
		return nil, err
	}
	t := &Team{Asm: micro.NewAsm(codeBase), n: n, layout: layout, next: imageBase, private: privateVA, shared: sharedVA,
		taken: make([]uint64, n)}
	if t.machine, err = micro.NewMachineAt(&t.image, tablesBase); err != nil {
		return nil, err
	}
	for range n {
		t.roots = append(t.roots, t.alloc(1))
	}
	t.privates = t.alloc(n * privateSize / pageSize)
	for cpu := range n {
		for gpa := uint64(0); gpa < TeamMemory; gpa += largePage {
			t.put(t.entryOf(t.roots[cpu], gpa, 1), gpa|pteLeaf|pteLarge)
		}
		for at := uint64(0); at < privateSize; at += pageSize {
			t.mapPage(cpu, privateVA+at, t.privates+uint64(cpu)*privateSize+at)
		}
		for at := uint64(0); at < uint64(n)*privateSize; at += pageSize {
			t.mapPage(cpu, othersVA+at, t.privates+at)
		}
	}
	t.start(seed)
	return t, nil
}

// CPUs is how many vCPUs there are.
func (t *Team) CPUs() int { return t.n }

func (t *Team) fail(format string, args ...any) {
	if t.err == nil {
		t.err = fmt.Errorf("making a kernel for %d vCPUs: "+format, append([]any{t.n}, args...)...)
	}
}

// Page table bits (SDM volume 3, "4-Level Paging").
const (
	ptePresent, pteWrite, pteUser, pteAccessed, pteDirty, pteLarge = 1 << 0, 1 << 1, 1 << 2, 1 << 5, 1 << 6, 1 << 7

	pteTable  = ptePresent | pteWrite | pteUser | pteAccessed
	pteLeaf   = pteTable | pteDirty
	pteAddr   = 0x000f_ffff_ffff_f000
	largePage = 2 << 20
)

// alloc takes pages of the image's memory.
func (t *Team) alloc(pages int) (gpa uint64) {
	gpa = t.next
	t.next += uint64(pages) * pageSize
	if t.next > sharedBase {
		t.fail("it ends at %#x, room is up to %#x", t.next, uint64(sharedBase))
		t.next, gpa = imageBase, imageBase
	}
	return gpa
}

// write puts data into the image.
func (t *Team) write(gpa uint64, b []byte) {
	if _, err := t.image.WriteAt(b, int64(gpa)); err != nil {
		t.fail("write %d bytes at %#x: %w", len(b), gpa, err)
	}
}

func (t *Team) put(gpa, v uint64) { t.write(gpa, binary.LittleEndian.AppendUint64(nil, v)) }

func (t *Team) get(gpa uint64) uint64 {
	if at := gpa - tablesBase; at+8 <= uint64(len(t.image)) {
		return binary.LittleEndian.Uint64(t.image[at:])
	}
	return 0
}

// entryOf returns where the entry for va lies in the table of a level, 0 for a page table to 3 for the root, and makes
// the tables that lead to it.
func (t *Team) entryOf(root, va uint64, level uint) (gpa uint64) {
	table := root
	for l := uint(3); ; l-- {
		gpa = table + va>>(12+9*l)&511*8
		if l == level {
			return gpa
		}
		if t.get(gpa) == 0 {
			t.put(gpa, t.alloc(1)|pteTable)
		}
		table = t.get(gpa) & pteAddr
	}
}

func (t *Team) mapPage(cpu int, va, gpa uint64) { t.put(t.entryOf(t.roots[cpu], va, 0), gpa|pteLeaf) }

// Private reserves so many words of private memory, zeroed: each vCPU has its own at this address.
func (t *Team) Private(words int) (va uint64) {
	va = t.private
	t.private += uint64(words) * 8
	if t.private > privateVA+privateSize {
		t.fail("more than %d bytes of private memory", privateSize)
		t.private, va = privateVA, privateVA
	}
	return va
}

// PrivateStride is the distance between the private memories of two vCPUs where everybody finds them.
const PrivateStride = privateSize

// PrivateOf is where everybody finds the private memory that a vCPU has at va.
func (t *Team) PrivateOf(cpu int, va uint64) uint64 {
	return va - privateVA + othersVA + uint64(cpu)*PrivateStride
}

// SetPrivate gives a private word of a vCPU its first value.
func (t *Team) SetPrivate(cpu int, va, v uint64) {
	t.put(t.privates+uint64(cpu)*privateSize+va-privateVA, v)
}

// Data puts constants into the image and returns where everybody finds them.
func (t *Team) Data(b []byte) (va uint64) {
	va = t.alloc((len(b) + pageSize - 1) / pageSize)
	t.write(va, b)
	return va
}

// Shared reserves shared pages, zeroed and one after the other, with these homes.
func (t *Team) Shared(homes ...int) (va uint64) {
	va = t.shared
	for _, home := range homes {
		t.MapShared(t.PageAt(home))
	}
	return va
}

// MapShared makes every vCPU find the page gpa in shared memory, behind the pages there are.
func (t *Team) MapShared(gpa uint64) (va uint64) {
	va = t.shared
	t.Map(va, gpa)
	t.shared += pageSize
	return va
}

// Map makes every vCPU find the page gpa at va.
func (t *Team) Map(va, gpa uint64) {
	for cpu := range t.n {
		t.mapPage(cpu, va, gpa)
	}
}

// MapApart makes every vCPU find the page gpa at va by way of three page tables that all share. Each is a page of its
// own, with a home that home names. The entry for va in the root is used for nothing else. It returns where in shared
// memory everybody finds those tables.
//
// It emits code that has the first vCPU fill them in; nobody may use va before the next barrier. It changes RAX.
func (t *Team) MapApart(va, gpa uint64, home func() int) (tables []uint64) {
	type entry struct{ at, value uint64 }
	var entries []entry
	points := uint64(gpa | pteLeaf) // what the table before it has to hold
	for level := range uint(3) {
		table := t.PageAt(home())
		at := t.MapShared(table)
		tables = append(tables, at)
		entries = append(entries, entry{at + va>>(12+9*level)&511*8, points})
		points = table | pteTable
	}
	for cpu := range t.n {
		where := t.entryOf(t.roots[cpu], va, 3)
		if t.get(where) != 0 {
			t.fail("the root has an entry for %#x already", va)
		}
		t.put(where, points)
	}
	t.Leader(func() {
		for _, e := range entries {
			t.MovImm(micro.RAX, e.value)
			t.Store(e.at, micro.RAX)
		}
	})
	return tables
}

// PageAt reserves a page of physical memory with this home.
func (t *Team) PageAt(home int) (gpa uint64) {
	if home < 0 || home >= t.n {
		t.fail("a page homed at node %d", home)
		return sharedBase
	}
	if home == 0 {
		gpa = sharedBase
	} else {
		gpa = t.layout.Windows[home].GPA
	}
	gpa += t.taken[home] * pageSize
	if t.taken[home]++; t.taken[home]*pageSize > TeamLent {
		t.fail("more than %d bytes of shared pages at node %d", TeamLent, home)
	}
	return gpa
}

// Homes returns n homes in turn, beginning with first.
func (t *Team) Homes(first, n int) []int {
	homes := make([]int, n)
	for i := range homes {
		homes[i] = (first + i) % t.n
	}
	return homes
}

// start emits all that comes before the program's own code: the subroutines, the exceptions' handlers, and the way of
// each vCPU to ring 3.
func (t *Team) start(seed uint64) {
	cpu, random := t.Private(1), t.Private(1)
	t.passed, t.errors, t.first = t.Private(1), t.Private(1), t.Private(expectWords)
	t.arrivals, t.reached = t.Shared(1%t.n), t.Shared(0)
	t.metAt = t.reached + 8
	for i := range t.n {
		t.SetPrivate(i, cpu, uint64(i))
		t.SetPrivate(i, random, (seed+uint64(i)+1)*0x9e37_79b9_7f4a_7c15|1)
	}
	t.subroutines()
	t.handlers()

	ring3 := t.Label()
	t.entry = t.Label()
	for i := 1; i < t.n; i++ {
		at := uint64(trampolines + i*pageSize)
		code, err := t.machine.Trampoline(at, i, t.roots[i], t.PC())
		if err != nil {
			t.fail("vCPU %d: %w", i, err)
		}
		t.write(t.trampoline(i), code)
		t.machine.UseTables(t.Asm, i, t.roots[i])
		t.machine.EnterRing3(t.Asm, i, ring3)
	}
	t.Bind(t.entry)
	t.Cli()
	t.Cld()
	for i := 1; i < t.n; i++ {
		t.MovImm(micro.RSI, t.trampoline(i))
		t.MovImm(micro.RDI, uint64(trampolines+i*pageSize))
		t.MovImm(micro.RCX, trampolineSize)
		t.Bytes(0xf3, 0xa4) // rep movsb
	}
	t.machine.UseTables(t.Asm, 0, t.roots[0])
	for i := 1; i < t.n; i++ {
		to := uint64(i) << 32 // the destination's APIC id, in the upper half
		t.WriteMSR(msrICR, to|icrINIT)
		t.WriteMSR(msrICR, to|icrSIPI|uint64(trampolines>>12+i))
	}
	t.machine.EnterRing3(t.Asm, 0, ring3)
	t.Bind(ring3)
	t.Load(micro.R15, cpu)
	t.Load(micro.R14, random)
}

const trampolineSize = 0x100

// trampoline is where the image has a vCPU's trampoline: behind the machine's tables.
func (t *Team) trampoline(cpu int) uint64 {
	return tablesBase + micro.FreeBase + uint64(cpu)*trampolineSize
}

// End ends the program: the first vCPU says what Expect has found on all of them and switches the machine off.
func (t *Team) End() ([]byte, error) {
	t.Barrier()
	t.Leader(func() {
		for cpu := range t.n {
			none := t.Label()
			t.Load(micro.RAX, t.PrivateOf(cpu, t.errors))
			t.Test(micro.RAX, micro.RAX)
			t.Jcc(micro.Equal, none)
			t.Report(fmt.Sprintf("errors.%d", cpu))
			for i := range expectWords {
				t.Load(micro.RAX, t.PrivateOf(cpu, t.first)+uint64(i)*8)
				t.Report(fmt.Sprintf("first.%d.%d", cpu, i))
			}
			t.Bind(none)
		}
		t.MovImm(micro.RAX, 1)
		t.Report(TeamDone)
		out(t.Asm, portSleep, sleepToS5)
	})
	idle := t.Here()
	t.Pause()
	t.Jmp(idle)
	code, err := t.Code()
	if err != nil {
		return nil, err
	}
	if len(code) > imageBase-codeBase {
		t.fail("%d bytes of code, room is for %d", len(code), imageBase-codeBase)
	}
	t.write(codeBase, code)
	if t.err != nil {
		return nil, t.err
	}
	return micro.ELF(t.image, tablesBase, t.Address(t.entry), elf.PF_R|elf.PF_W|elf.PF_X)
}
