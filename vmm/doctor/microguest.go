package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"

	"coalesce/dsm/uffd"
	"coalesce/vcpu/kvm"
)

// A micro guest is a few instructions in 64-bit mode on identity-mapped memory,
// without an operating system. It runs in ring 0 or, since some hosts emulate
// that, in ring 3 from the first instruction on.
//
// Its memory:
//
//	0x2000, 0x3000, 0x4000  page tables of three levels (2 MiB pages)
//	0x7000                  GDT
//	0x8000                  TSS
//	0x9000                  IDT, empty: any exception ends the guest
//	0x100000                code
//	0x110000                mailbox: one dword for the program
//	0x200000                data: a qword for the program
//	0x8000000               mapped, but no memory: a store there is an exit
const (
	gpaPML4    = 0x2000
	gpaPDPT    = 0x3000
	gpaPD      = 0x4000
	gpaGDT     = 0x7000
	gpaTSS     = 0x8000
	gpaIDT     = 0x9000
	gpaCode    = 0x100000
	gpaMailbox = 0x110000
	gpaData    = 0x200000
	gpaDoor    = 0x8000000

	microSize = 4 << 20

	// The page tables' pages, by index.
	firstTable, tables = gpaPML4 / uffd.PageSize, 3
)

// Programs start with RDI = door, RSI = mailbox, RBX = data page. Each ends in a
// store to the door and starts over when it is entered again.
var (
	// spinProgram counts the mailbox down to 0.
	spinProgram = []byte{
		0x8b, 0x0e, //       mov ecx, [rsi]
		0xff, 0xc9, // loop: dec ecx
		0x75, 0xfc, //       jnz loop
		0x88, 0x07, //       mov [rdi], al
		0xeb, 0xf6, //       jmp start
	}
	// countProgram counts the mailbox down to 0 and the data page up.
	countProgram = []byte{
		0x8b, 0x0e, //             mov ecx, [rsi]
		0x48, 0xff, 0x03, // loop: inc qword [rbx]
		0xff, 0xc9, //             dec ecx
		0x75, 0xf9, //             jnz loop
		0x88, 0x07, //             mov [rdi], al
		0xeb, 0xf3, //             jmp start
	}
	// msrProgram reads the x2APIC id and hands its low byte over. Ring 0 only.
	msrProgram = []byte{
		0xb9, 0x02, 0x08, 0, 0, // mov ecx, 0x802
		0x0f, 0x32, //             rdmsr
		0x88, 0x07, //             mov [rdi], al
		0xeb, 0xf5, //             jmp start
	}
	// haltProgram halts. Ring 0 only.
	haltProgram = []byte{
		0xf4,       // hlt
		0x88, 0x07, // mov [rdi], al
		0xeb, 0xfb, // jmp start
	}
)

// microGuest is a VM with one vCPU. All its methods belong to one locked thread.
type microGuest struct {
	mem *uffd.Memory
	vm  *kvm.VM
	cpu *kvm.VCPU
}

// newMicroGuest loads a program, ready to run in the given ring. setUp, unless
// nil, is called with the VM before there is a vCPU.
func newMicroGuest(sys *kvm.System, program []byte, ring uint8, setUp func(*kvm.VM) error) (_ *microGuest, err error) {
	g := &microGuest{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("micro guest: %w", err), g.Close())
		}
	}()
	g.mem, err = uffd.NewMemory("coalesce-doctor", []uffd.Window{{GPA: 0, Size: microSize}}, uffd.MemoryOptions{})
	if err != nil {
		return nil, err
	}
	if err := g.load(program); err != nil {
		return nil, err
	}
	if g.vm, err = sys.CreateVM(); err != nil {
		return nil, err
	}
	if setUp != nil {
		if err := setUp(g.vm); err != nil {
			return nil, err
		}
	}
	if err := g.vm.SetTSSAddr(0xfffbd000); err != nil {
		return nil, err
	}
	for i, s := range g.mem.Slots() {
		if err := g.vm.SetUserMemoryRegion(uint32(i), s.GPA, s.Size, s.HVA, 0); err != nil {
			return nil, err
		}
	}
	if g.cpu, err = g.vm.CreateVCPU(0); err != nil {
		return nil, err
	}
	cpuid, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	if err := g.cpu.SetCPUID2(cpuid); err != nil {
		return nil, err
	}
	return g, g.reset(ring)
}

// load writes page tables, descriptors and the program.
func (g *microGuest) load(program []byte) error {
	const (
		table = 0x27 // present, writable, user, accessed
		large = 0xe7 // and dirty, 2 MiB
	)
	quads := map[int64]uint64{
		gpaPML4: gpaPDPT | table,
		gpaPDPT: gpaPD | table,
		// Descriptors (SDM vol. 3, 3.4.5): code and data for ring 0 and ring 3, TSS.
		gpaGDT + 0x10: 0x00af9b000000ffff,
		gpaGDT + 0x18: 0x00cf93000000ffff,
		gpaGDT + 0x20: 0x00cff3000000ffff,
		gpaGDT + 0x28: 0x00affb000000ffff,
		gpaGDT + 0x30: 0x00008b0080000067,
	}
	for _, gpa := range []uint64{0, gpaData, gpaDoor} {
		quads[gpaPD+int64(gpa>>21)*8] = gpa>>21<<21 | large
	}
	for gpa, v := range quads {
		if _, err := g.mem.WriteAt(binary.LittleEndian.AppendUint64(nil, v), gpa); err != nil {
			return err
		}
	}
	_, err := g.mem.WriteAt(program, gpaCode)
	return err
}

// reset points the vCPU at the program.
func (g *microGuest) reset(ring uint8) error {
	s, err := g.cpu.Sregs()
	if err != nil {
		return err
	}
	code := kvm.Segment{Limit: 0xffffffff, Selector: 0x10, Type: 11, Present: 1, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffffffff, Selector: 0x18, Type: 3, Present: 1, DB: 1, S: 1, G: 1}
	if ring == 3 {
		code.Selector, code.DPL = 0x2b, 3
		data.Selector, data.DPL = 0x23, 3
	}
	s.CS = code
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	s.TR = kvm.Segment{Base: gpaTSS, Limit: 0x67, Selector: 0x30, Type: 11, Present: 1}
	s.GDT = kvm.DTable{Base: gpaGDT, Limit: 0x3f}
	s.IDT = kvm.DTable{Base: gpaIDT, Limit: 0xfff}
	s.CR0 = 0x80050033 // PG AM WP NE ET MP PE
	s.CR3 = gpaPML4
	s.CR4 |= 0x620  // PAE OSFXSR OSXMMEXCPT
	s.EFER |= 0xd01 // SCE LME LMA NXE
	if err := g.cpu.SetSregs(s); err != nil {
		return err
	}
	return g.cpu.SetRegs(kvm.Regs{
		RIP: gpaCode, RFLAGS: 2, RSP: gpaData,
		RDI: gpaDoor, RSI: gpaMailbox, RBX: gpaData,
	})
}

// mail puts v into the mailbox. Through the alias: the guest sees it at once.
func (g *microGuest) mail(v uint32) {
	binary.LittleEndian.PutUint32(g.mem.Alias(gpaMailbox/uffd.PageSize, 1), v)
}

// count returns the data page's qword, and setCount sets it: through the alias, so
// that they never fault. The guest may be counting meanwhile.
func (g *microGuest) count() uint64 {
	return binary.LittleEndian.Uint64(g.mem.Alias(gpaData/uffd.PageSize, 1))
}

func (g *microGuest) setCount(v uint64) {
	binary.LittleEndian.PutUint64(g.mem.Alias(gpaData/uffd.PageSize, 1), v)
}

// run enters the guest until it exits for a reason of its own.
func (g *microGuest) run() (kvm.ExitReason, error) {
	for {
		interrupted, err := g.cpu.Enter()
		if err != nil {
			return 0, err
		}
		if !interrupted {
			return g.cpu.ExitReason(), nil
		}
	}
}

// toDoor runs the guest up to its store to the door and returns the byte stored.
func (g *microGuest) toDoor() (byte, error) {
	exit, err := g.run()
	if err != nil {
		return 0, err
	}
	if exit != kvm.KVM_EXIT_MMIO {
		return 0, fmt.Errorf("the guest ended with exit %q", exit)
	}
	x := g.cpu.MMIO()
	if x.GPA != gpaDoor || !x.Write || len(x.Data) != 1 {
		return 0, fmt.Errorf("the guest accessed %#x (write %v, %d bytes)", x.GPA, x.Write, len(x.Data))
	}
	return x.Data[0], nil
}

// Close frees what there is of the guest.
func (g *microGuest) Close() error {
	var errs []error
	if g.cpu != nil {
		errs = append(errs, g.cpu.Close())
	}
	if g.vm != nil {
		errs = append(errs, g.vm.Close())
	}
	if g.mem != nil {
		errs = append(errs, g.mem.Close())
	}
	return errors.Join(errs...)
}
