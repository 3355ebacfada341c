package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"coalesce/dsm"
	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// Guest-physical addresses of the micro guest's program, of the list of
// addresses that it is to access, and of the cycles that took.
const (
	codeGPA   = micro.FreeBase
	listGPA   = codeGPA + 0x1_0000
	resultGPA = listGPA + 8*maxAccesses
	ramSize   = resultGPA + 8*maxAccesses

	maxAccesses = 4096
	writeFlag   = 1 << 31 // in what PortAsk answers: stores instead of loads
)

// guest is a micro guest with one vCPU that accesses pages and times it.
type guest struct {
	sys *kvm.System
	ram *microvm.RAM
	vm  *microvm.VM
	cpu *vcpu.VCPU
	khz uint32

	side   *side
	thread *dsm.Thread

	ready chan struct{} // holds one while the vCPU waits for work
	work  chan uint32   // what PortAsk answers
	quit  chan struct{}
}

// newGuest makes the guest over memories whose slots it maps, and starts it.
func newGuest(device string, s *side) (g *guest, err error) {
	g = &guest{side: s, ready: make(chan struct{}, 1), work: make(chan uint32), quit: make(chan struct{})}
	if g.sys, err = kvm.Open(device); err != nil {
		return nil, err
	}
	if g.khz, err = g.sys.TSCKHz(); err != nil {
		return nil, err
	}
	if g.ram, err = microvm.NewRAM(ramSize); err != nil {
		return nil, err
	}
	if g.vm, err = microvm.New(g.sys, g.ram); err != nil {
		return nil, err
	}
	slot := uint32(1) // 0 is the RAM
	for _, m := range append(s.mem.Slots(), s.floor.Slots()...) {
		if err := g.vm.SetMemory(slot, m.GPA, m.Size, m.HVA, 0); err != nil {
			return nil, err
		}
		slot++
	}
	machine, err := micro.NewMachine(g.ram)
	if err != nil {
		return nil, err
	}
	if err := program(machine); err != nil {
		return nil, err
	}
	g.vm.PortHook = g.port
	g.vm.OnExit = func(*vcpu.VCPU) { g.thread.Proof() }
	if g.cpu, err = g.vm.Add(0); err != nil {
		return nil, err
	}
	g.thread = s.engine.AddThread(g.cpu.TID(), g.cpu.Stall) // it does not run yet
	entry, err := machine.Entry(micro.Options{RIP: codeGPA, Ring: 3})
	if err != nil {
		return nil, err
	}
	return g, g.vm.Start(context.Background(), g.cpu, entry)
}

// program is the guest's: it asks for a number of accesses, makes them, and
// asks again.
func program(m *micro.Machine) error {
	a := micro.NewAsm(codeGPA)
	top := a.Here()
	a.In32(micro.PortAsk) // to eax
	a.Mov(micro.RCX, micro.RAX)
	a.AndImm(micro.RCX, writeFlag-1)
	a.MovImm(micro.RSI, listGPA)
	a.MovImm(micro.RDI, resultGPA)
	stores := a.Label()
	a.ShrImm(micro.RAX, 31)
	a.CmpImm(micro.RAX, 0)
	a.Jcc(micro.NotEqual, stores)
	for _, write := range []bool{false, true} {
		if write {
			a.Bind(stores)
		}
		each := a.Here()
		a.Load32At(micro.RBX, micro.RSI)
		cycles(a, micro.RBP)
		if write {
			a.StoreAt(micro.RBX, micro.RBP)
		} else {
			a.Load32At(micro.RAX, micro.RBX)
		}
		cycles(a, micro.RAX)
		a.Bytes(0x48, 0x29, 0xe8) // sub rax, rbp
		a.StoreAt(micro.RDI, micro.RAX)
		a.AddImm(micro.RSI, 8)
		a.AddImm(micro.RDI, 8)
		a.Dec(micro.RCX)
		a.Jcc(micro.NotEqual, each)
		a.Jmp(top)
	}
	return a.Install(m, codeGPA, nil)
}

// cycles reads the time stamp counter to r, once all before is done. It uses
// RAX and RDX.
func cycles(a *micro.Asm, r micro.Reg) {
	a.Bytes(0x0f, 0xae, 0xe8) // lfence
	a.Rdtsc()
	a.ShlImm(micro.RDX, 32)
	a.Or(micro.RAX, micro.RDX)
	if r != micro.RAX {
		a.Mov(r, micro.RAX)
	}
}

// port answers the guest's question for work. On the vCPU's thread.
func (g *guest) port(_ *vcpu.VCPU, op *vcpu.PortIO) bool {
	if op.Write || op.Port != micro.PortAsk {
		return false
	}
	g.thread.Idle(true)
	g.ready <- struct{}{}
	var n uint32
	select {
	case n = <-g.work:
	case <-g.quit:
	}
	g.thread.Idle(false)
	binary.LittleEndian.PutUint32(op.Data, n)
	return true
}

// access has the vCPU load from, or store to, pages of the memory at gpa, in
// their order, and returns how long each took, in ns.
func (g *guest) access(ctx context.Context, gpa uint64, pages []uint32, write bool) ([]float64, error) {
	if len(pages) == 0 || len(pages) > maxAccesses {
		return nil, fmt.Errorf("%d accesses, 1 to %d are possible", len(pages), maxAccesses)
	}
	if err := g.awaitReady(ctx); err != nil {
		return nil, err
	}
	for i, p := range pages {
		g.ram.Store(listGPA+8*uint64(i), gpa+uint64(p)*dsm.PageSize)
	}
	n := uint32(len(pages))
	if write {
		n |= writeFlag
	}
	g.work <- n
	if err := g.awaitReady(ctx); err != nil {
		return nil, err
	}
	g.ready <- struct{}{} // as it still is
	took := make([]float64, len(pages))
	for i := range took {
		took[i] = float64(g.ram.Load(resultGPA+8*uint64(i))) * 1e6 / float64(g.khz)
	}
	return took, nil
}

// awaitReady waits until the guest has asked for work.
func (g *guest) awaitReady(ctx context.Context) error {
	select {
	case <-g.ready:
		return nil
	case e := <-g.vm.Events:
		return fmt.Errorf("the micro guest has failed: %v", e)
	case err := <-g.side.failed:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close ends the guest, which waits for work.
func (g *guest) close() error {
	close(g.quit)
	return errors.Join(g.vm.Close(), g.ram.Close(), g.sys.Close())
}
