package vcpu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// A triple fault is reported, and new registers bring the vCPU back.
func TestShutdown(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	v := r.add(0)
	r.install(codeAt, func(a *micro.Asm) { a.Ud2() })
	e, err := r.Entry(micro.Options{RIP: codeAt})
	must(t, err)
	e.IDTLimit = 0 // no gate for #UD, nor for what follows
	must(t, r.Start(ctx, v, e))
	if got := r.event(); got.Kind != microvm.Shutdown {
		t.Fatalf("got %v", got)
	}
	if err := v.Resume(ctx); !errors.Is(err, vcpu.ErrNoState) {
		t.Errorf("resume after a triple fault: %v", err)
	}
	r.install(codeAt, func(a *micro.Asm) { a.Out8(micro.PortFail, 9); a.Hlt() })
	r.start(v, micro.Options{RIP: codeAt})
	if got := r.event(); got.Code != 9 {
		t.Errorf("after a new start: %v", got)
	}
}

// A device's error stops the vCPU for good and carries its name.
func TestDeviceError(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	v := r.add(3)
	broken := errors.New("device on fire")
	r.PortError = broken
	r.install(codeAt, func(a *micro.Asm) { a.Out32(micro.PortReport) })
	r.start(v, micro.Options{RIP: codeAt})
	e := r.event()
	if e.Kind != microvm.Fatal || !errors.Is(e.Err, broken) || !strings.Contains(e.Err.Error(), "vcpu 3") {
		t.Fatalf("got %v", e)
	}
	if err := v.Resume(ctx); !errors.Is(err, broken) {
		t.Errorf("resume: %v", err)
	}
	must(t, v.Pause(ctx))
	must(t, v.Sync(ctx))
}

// A thread that does not answer is an error that says which and where, and the
// request is carried out once it can be.
func TestStuck(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	release := make(chan bool)
	entered := make(chan bool, 1)
	r.PortHook = func(*vcpu.VCPU, *vcpu.PortIO) bool {
		select {
		case entered <- true:
		default:
		}
		<-release
		return true
	}
	r.install(codeAt, func(a *micro.Asm) {
		top := a.Here()
		a.In32(micro.PortAsk)
		a.Jmp(top)
	})
	r.start(v, micro.Options{RIP: codeAt})
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := v.Pause(ctx)
	var stuck *vcpu.StuckError
	if !errors.As(err, &stuck) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	const want = "vcpu 0: asked to pause, its thread is in a device access: context deadline exceeded"
	if err.Error() != want {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	// More requests than there is room for end the same way.
	for range 10 {
		if err := v.Sync(ctx); !errors.As(err, &stuck) {
			t.Fatalf("got %v", err)
		}
	}
	close(release)
	r.until("it pauses after all", func() bool { return v.Phase() == vcpu.Paused })
}

// A paused vCPU has no instruction half done: an IN that was being answered
// when Pause came has its value in the captured registers.
func TestPauseCompletesIO(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	v := r.add(0)
	asked := make(chan bool)
	r.PortHook = func(_ *vcpu.VCPU, op *vcpu.PortIO) bool {
		asked <- true
		// Until Pause has been asked for, as far as can be told from here.
		time.Sleep(time.Millisecond)
		return false
	}
	const count = 5
	r.install(codeAt, func(a *micro.Asm) {
		a.MovImm(micro.RAX, 0)
		a.In32(micro.PortAsk)
		top := a.Here()
		a.Pause()
		a.Jmp(top)
	})
	for range count {
		r.start(v, micro.Options{RIP: codeAt})
		<-asked
		must(t, v.Pause(ctx))
		s, err := v.Capture(ctx)
		must(t, err)
		if s.Regs.RAX != micro.Answer {
			t.Fatalf("captured rax %#x at rip %#x, want %#x", s.Regs.RAX, s.Regs.RIP, micro.Answer)
		}
	}
}

// OnExit is called once for each exit that the guest causes.
func TestOnExit(t *testing.T) {
	r := newRig(t)
	var calls uint64 // on the vCPU's thread
	r.OnExit = func(*vcpu.VCPU) { calls++ }
	v := r.add(0)
	r.install(codeAt, func(a *micro.Asm) {
		for range 10 {
			a.Out32(micro.PortReport)
		}
		a.Out8(micro.PortFail, 0)
		top := a.Here()
		a.Hlt()
		a.Jmp(top)
	})
	r.start(v, micro.Options{RIP: codeAt})
	r.event()
	r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
	must(t, v.Pause(t.Context()))
	var exits uint64
	for i := range v.Counters().Exits {
		exits += v.Counters().Exits[i].Load()
	}
	if calls != exits || exits < 12 {
		t.Errorf("%d calls for %d exits", calls, exits)
	}
}

// An exit handled in user space allocates nothing.
func TestExitsDoNotAllocate(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	r.install(codeAt, func(a *micro.Asm) {
		a.MovMem(dataAt, 2000)
		top := a.Here()
		a.In32(micro.PortAsk)
		a.MovImm(micro.RCX, 0x802)
		a.Rdmsr()
		a.MovImm(micro.RSI, micro.MMIOAsk)
		a.Load32At(micro.RAX, micro.RSI)
		a.DecMem(dataAt)
		a.Jcc(micro.NotEqual, top)
		a.Out8(micro.PortFail, 0)
		a.Hlt()
	})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.start(v, micro.Options{RIP: codeAt})
	r.event()
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 500 {
		t.Errorf("%d allocations in 6,000 exits", n)
	}
}

// The offset moves the guest's TSC, on all vCPUs alike and on later ones.
func TestTSCOffset(t *testing.T) {
	const far = 1 << 44
	ctx := context.Background()
	r := newRig(t)
	v := r.add(0)
	r.install(codeAt, func(a *micro.Asm) {
		top := a.Here()
		a.Rdtsc()
		a.ShlImm(micro.RDX, 32)
		a.Or(micro.RAX, micro.RDX)
		a.Store(dataAt, micro.RAX)
		a.Jmp(top)
	})
	if err := r.SetTSCOffset(ctx, far); errors.Is(err, kvm.ErrNotSupported) {
		t.Skip(err)
	}
	must(t, r.SetTSCOffset(ctx, 0))
	read := func() uint64 {
		r.RAM.Store(dataAt, 0)
		must(t, v.Resume(ctx))
		r.until("it has read its TSC", func() bool { return r.RAM.Load(dataAt) != 0 })
		must(t, v.Pause(ctx))
		return r.RAM.Load(dataAt)
	}
	r.start(v, micro.Options{RIP: codeAt, Ring: 3})
	must(t, v.Pause(ctx))
	first := read()
	must(t, r.SetTSCOffset(ctx, far))
	second := read()
	if d := second - first; d < far || d > far+far/2 {
		t.Errorf("TSC went from %#x to %#x by an offset of %#x", first, second, uint64(far))
	}
	must(t, v.Resume(ctx))
	if err := r.SetTSCOffset(ctx, 0); !errors.Is(err, vcpu.ErrNotPaused) {
		t.Errorf("set while running: %v", err)
	}
}

// After Close nothing is left: no thread, descriptor or goroutine.
func TestNothingIsLeft(t *testing.T) {
	sys := system(t)
	ram, err := microvm.NewRAM(ramSize)
	must(t, err)
	defer ram.Close()
	round := func() {
		m, err := microvm.New(sys, ram)
		must(t, err)
		mm, err := micro.NewMachine(ram)
		must(t, err)
		code, err := micro.Spin(codeAt, dataAt)
		must(t, err)
		must(t, mm.Write(codeAt, code))
		for id := range uint32(3) {
			v, err := m.Add(id)
			must(t, err)
			e, err := mm.Entry(micro.Options{RIP: codeAt, Ring: 3, VCPU: int(id)})
			must(t, err)
			must(t, m.Start(context.Background(), v, e))
			if _, err := m.Add(id); err == nil {
				t.Errorf("two vCPUs with id %d", id)
			}
		}
		must(t, m.Close())
		must(t, m.Close())
		if _, err := m.Add(9); !errors.Is(err, vcpu.ErrFinished) {
			t.Errorf("new vCPU in a closed VM: %v", err)
		}
	}
	round() // what the runtime starts once
	fds, routines := count(t, "/proc/self/fd"), runtime.NumGoroutine()
	for range 10 {
		round()
	}
	if n := count(t, "/proc/self/fd"); n != fds {
		t.Errorf("%d descriptors, %d before", n, fds)
	}
	deadline := time.Now().Add(patience)
	for len(vcpuThreads(t)) > 0 || runtime.NumGoroutine() > routines {
		if time.Now().After(deadline) {
			t.Fatalf("threads %v, %d goroutines, %d before", vcpuThreads(t), runtime.NumGoroutine(), routines)
		}
		time.Sleep(time.Millisecond)
	}
}

// A vCPU that KVM refuses leaves nothing behind either.
func TestRefusedVCPU(t *testing.T) {
	r := newRig(t)
	const tooMany = 1 << 20
	if _, err := r.Add(tooMany); err == nil || !strings.Contains(err.Error(), "vcpu 1048576: KVM_CREATE_VCPU") {
		t.Errorf("vCPU %d: %v", tooMany, err)
	}
	if l := r.VCPUs(); len(l) != 0 {
		t.Errorf("%v are left", l)
	}
	must(t, r.Pause(t.Context()))
	r.add(1)
}

func count(t *testing.T, dir string) int {
	l, err := os.ReadDir(dir)
	must(t, err)
	return len(l)
}

// vcpuThreads lists this process's threads that are named as vCPUs'.
func vcpuThreads(t *testing.T) []string {
	comms, err := filepath.Glob("/proc/self/task/*/comm")
	must(t, err)
	var l []string
	for _, c := range comms {
		b, err := os.ReadFile(c)
		if err == nil && strings.HasPrefix(string(b), "vcpu ") {
			l = append(l, filepath.Dir(c))
		}
	}
	return l
}

func TestKVMThatIsNotThere(t *testing.T) {
	_, err := kvm.Open("/dev/there-is-no-kvm")
	if !errors.Is(err, kvm.ErrNotSupported) {
		t.Errorf("got %v", err)
	}
	if _, err := kvm.Open("/dev/null"); !errors.Is(err, kvm.ErrNotSupported) {
		t.Errorf("not KVM: %v", err)
	}
}
