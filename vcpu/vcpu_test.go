package vcpu_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// Addresses and vectors of the tests' guests.
const (
	codeAt    = 0x10_0000
	dataAt    = 0x20_0000
	irqVector = 0x40
	ramSize   = 4 << 20
	patience  = 10 * time.Second
)

// system opens the host's KVM; a test is skipped only if there is none.
func system(t testing.TB) *kvm.System {
	t.Helper()
	sys, err := kvm.Open(kvm.Device)
	if errors.Is(err, kvm.ErrNotSupported) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { sys.Close() })
	return sys
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a VM for micro guests and its memory.
type rig struct {
	*microvm.VM
	*micro.Machine
	t testing.TB
}

func newRig(t testing.TB) *rig {
	t.Helper()
	sys := system(t)
	ram, err := microvm.NewRAM(ramSize)
	must(t, err)
	m, err := microvm.New(sys, ram)
	must(t, err)
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		ram.Close()
	})
	mm, err := micro.NewMachine(ram)
	must(t, err)
	return &rig{m, mm, t}
}

func (r *rig) add(id uint32) *vcpu.VCPU {
	r.t.Helper()
	v, err := r.Add(id)
	must(r.t, err)
	return v
}

func (r *rig) start(v *vcpu.VCPU, o micro.Options) {
	r.t.Helper()
	o.VCPU = int(v.ID())
	e, err := r.Entry(o)
	must(r.t, err)
	must(r.t, r.Start(context.Background(), v, e))
}

// install assembles and writes a program.
func (r *rig) install(base uint64, program func(a *micro.Asm)) {
	r.t.Helper()
	a := micro.NewAsm(base)
	program(a)
	must(r.t, a.Install(r.Machine, base, nil))
}

// until waits for a condition of the guest's memory. A guest that reports
// trouble fails the test.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		select {
		case e := <-r.Events:
			r.t.Fatalf("waiting until %s: %v", what, e)
		case <-time.After(100 * time.Microsecond):
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("gave up waiting until %s", what)
		}
	}
}

func (r *rig) event() microvm.Event {
	r.t.Helper()
	select {
	case e := <-r.Events:
		return e
	case <-time.After(patience):
		r.t.Fatal("gave up waiting for an event")
		panic("unreachable")
	}
}

func TestRing3Spins(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	code, err := micro.Spin(codeAt, dataAt)
	must(t, err)
	must(t, r.Write(codeAt, code))
	r.start(v, micro.Options{RIP: codeAt, Ring: 3})
	r.until("it has counted to a million", func() bool { return r.RAM.Load(dataAt) > 1_000_000 })
	must(t, v.Pause(context.Background()))
	n := r.RAM.Load(dataAt)
	if again := r.RAM.Load(dataAt); again != n {
		t.Errorf("runs while paused: %d, %d", n, again)
	}
}

func TestPortIO(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	r.install(codeAt, func(a *micro.Asm) {
		a.In32(micro.PortAsk)
		a.Store(dataAt, micro.RAX)
		a.Out32(micro.PortReport)
		a.Out8(micro.PortFail, 0x77)
		a.Hlt()
	})
	r.start(v, micro.Options{RIP: codeAt})
	if e := r.event(); e.Kind != microvm.Fail || e.Code != 0x77 {
		t.Fatalf("got %v", e)
	}
	if got := r.RAM.Load(dataAt); got != micro.Answer {
		t.Errorf("IN gave %#x, want %#x", got, micro.Answer)
	}
}

func TestFaultIsReported(t *testing.T) {
	for _, ring := range []int{0, 3} {
		r := newRig(t)
		v := r.add(0)
		r.install(codeAt, func(a *micro.Asm) { a.Ud2() })
		r.start(v, micro.Options{RIP: codeAt, Ring: ring})
		if e := r.event(); e.Kind != microvm.Fault || e.Code != 6 {
			t.Errorf("ring %d: got %v, want exception 6", ring, e)
		}
	}
}

func TestInterruptWakesHalted(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	must(t, micro.HaltLoop(r.Machine, codeAt, irqVector, dataAt))
	r.start(v, micro.Options{RIP: codeAt})
	for n := range uint64(100) {
		r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
		r.irq(v, irqVector)
		r.until("it has taken the interrupt", func() bool { return r.RAM.Load(dataAt) == n+1 })
	}
}

// What no device answers reads as ones.
func TestUnclaimedReads(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	r.PortHook = func(*vcpu.VCPU, *vcpu.PortIO) bool { return true }
	r.install(codeAt, func(a *micro.Asm) {
		a.MovImm(micro.RAX, 0)
		a.Out32(micro.PortReport) // leaves zeros where KVM keeps the data
		a.In32(micro.PortAsk)
		a.Store(dataAt, micro.RAX)
		a.MovMem(dataAt+8, 1)
		end := a.Here()
		a.Hlt()
		a.Jmp(end)
	})
	r.start(v, micro.Options{RIP: codeAt})
	r.until("it has asked", func() bool { return r.RAM.Load(dataAt+8) == 1 })
	if got := r.RAM.Load(dataAt); got != 0xffff_ffff {
		t.Errorf("IN gave %#x", got)
	}
}
