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
	stopGPA   = codeGPA + 0x8000 // not 0: stop counting
	countGPA  = stopGPA + 8      // increments made
	waitsGPA  = stopGPA + 16     // of those, ones that had to wait
	listGPA   = codeGPA + 0x1_0000
	resultGPA = listGPA + 8*maxAccesses
	ramSize   = resultGPA + 8*maxAccesses

	maxAccesses = 4096
)

// What PortAsk answers: a number of accesses with flags, or only workCount.
const (
	workStores = 1 << 31 // stores instead of loads
	workCount  = 1 << 30 // increment the word at hotGPA until told to stop
)

// hotGPA is a word of the product's memory that nodes count in together.
const hotGPA = productGPA + 5*dsm.PageSize + 64

// waitCycles is the least time that an access has waited for its page; one that
// has not takes hundreds of cycles at most.
const waitCycles = 10_000

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

// newGuest makes the guest over the memories of s, and starts it.
func newGuest(device string, s *side) (g *guest, err error) {
	g = &guest{side: s, ready: make(chan struct{}, 1), work: make(chan uint32), quit: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
			g = nil
		}
	}()
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
	a.AndImm(micro.RCX, workCount-1)
	a.MovImm(micro.RSI, listGPA)
	a.MovImm(micro.RDI, resultGPA)
	stores, count := a.Label(), a.Label()
	a.ShrImm(micro.RAX, 30)
	a.CmpImm(micro.RAX, workCount>>30)
	a.Jcc(micro.Equal, count)
	a.CmpImm(micro.RAX, workStores>>30)
	a.Jcc(micro.Equal, stores)
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

	a.Bind(count)
	each, next := a.Here(), a.Label()
	cycles(a, micro.RBP)
	a.LockIncMem(hotGPA)
	cycles(a, micro.RAX)
	a.Bytes(0x48, 0x29, 0xe8) // sub rax, rbp
	a.CmpImm(micro.RAX, waitCycles)
	a.Jcc(micro.Below, next)
	a.IncMem(waitsGPA)
	a.StoreAt(micro.RDI, micro.RAX)
	a.AddImm(micro.RDI, 8)
	a.CmpImm(micro.RDI, resultGPA+8*maxAccesses)
	a.Jcc(micro.Below, next)
	a.MovImm(micro.RDI, resultGPA)
	a.Bind(next)
	a.IncMem(countGPA)
	a.Load(micro.RAX, stopGPA)
	a.CmpImm(micro.RAX, 0)
	a.Jcc(micro.Equal, each)
	a.Jmp(top)
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
		n |= workStores
	}
	g.work <- n
	if err := g.awaitReady(ctx); err != nil {
		return nil, err
	}
	g.ready <- struct{}{} // as it still is
	took := make([]float64, len(pages))
	for i := range took {
		took[i] = g.result(i)
	}
	return took, nil
}

// result is the i-th time that the guest has noted, in ns.
func (g *guest) result(i int) float64 {
	return float64(g.ram.Load(resultGPA+8*uint64(i))) * 1e6 / float64(g.khz)
}

// startCounting has the vCPU increment the word at hotGPA until stopCounting.
func (g *guest) startCounting(ctx context.Context) error {
	if err := g.awaitReady(ctx); err != nil {
		return err
	}
	for _, gpa := range []uint64{stopGPA, countGPA, waitsGPA} {
		g.ram.Store(gpa, 0)
	}
	g.work <- workCount
	return nil
}

// stopCounting returns how many increments were made, and how long the last of
// those that waited for the page did, in ns.
func (g *guest) stopCounting(ctx context.Context) (n uint64, waits []float64, err error) {
	g.ram.Store(stopGPA, 1)
	if err := g.awaitReady(ctx); err != nil {
		return 0, nil, err
	}
	g.ready <- struct{}{} // as it still is
	waits = make([]float64, min(g.ram.Load(waitsGPA), maxAccesses))
	for i := range waits {
		waits[i] = g.result(i)
	}
	return g.ram.Load(countGPA), waits, nil
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
	var errs []error
	if g.vm != nil {
		errs = append(errs, g.vm.Close())
	}
	if g.ram != nil {
		errs = append(errs, g.ram.Close())
	}
	if g.sys != nil {
		errs = append(errs, g.sys.Close())
	}
	return errors.Join(errs...)
}
