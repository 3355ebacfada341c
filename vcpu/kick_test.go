package vcpu_test

import (
	"context"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
)

// The two tests below each send this many interrupts, every one a kick that
// must not be lost: nothing else would make the vCPU look. Where a host takes
// longer than kickBudget for them, fewer do.
const (
	kicks      = 5000
	kickBudget = 3 * time.Second
)

func TestNoKickIsLostHalted(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	must(t, micro.HaltLoop(r.Machine, codeAt, irqVector, dataAt))
	r.start(v, micro.Options{RIP: codeAt})
	// The even ones, the first among them, find the vCPU in its wait; the odd
	// ones find it anywhere between its handler and its wait.
	sent := r.sendAndWait(v, kicks, func(i uint64) {
		if i%2 == 0 {
			r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
		}
	})
	if n := v.Counters().Exits[kvm.KVM_EXIT_HLT].Load(); n < sent/2 {
		t.Errorf("%d HLT exits for %d interrupts: it did not wait", n, sent)
	}
}

func TestNoKickIsLostInRing3(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	r.startSpinInRing3(v)
	r.sendAndWait(v, kicks, func(uint64) {})
}

// startSpinInRing3 runs ring 3 code that never exits by itself, with a handler
// for irqVector that counts at dataAt.
func (r *rig) startSpinInRing3(v *vcpu.VCPU) {
	r.t.Helper()
	base := uint64(codeAt + 0x1000*v.ID())
	a := micro.NewAsm(base)
	spin, handler := a.Label(), a.Label()
	a.EnableAPIC()
	a.EnterRing3(int(v.ID()), spin)
	a.Bind(handler)
	a.CountingHandler(dataAt)
	a.Bind(spin)
	a.IncMem(dataAt + 8)
	a.Jmp(spin)
	must(r.t, a.Install(r.Machine, base, map[uint8]micro.Label{irqVector: handler}))
	r.start(v, micro.Options{RIP: base})
	was := r.RAM.Load(dataAt + 8)
	r.until("it spins", func() bool { return r.RAM.Load(dataAt+8) > was+1000 })
}

// sendAndWait sends up to n interrupts, each as soon as the guest has counted
// the one before and ready has returned, and returns how many.
func (r *rig) sendAndWait(v *vcpu.VCPU, n uint64, ready func(i uint64)) (sent uint64) {
	r.t.Helper()
	start, begin := r.RAM.Load(dataAt), time.Now()
	for ; sent < n && (sent < n/50 || time.Since(begin) < kickBudget); sent++ {
		ready(sent)
		r.irq(v, irqVector)
		last := time.Now()
		for looks := 0; r.RAM.Load(dataAt) == start+sent; looks++ {
			if looks < 200 {
				runtime.Gosched()
			} else {
				// An emulated host's other CPU may need it. Go's timers are coarse.
				must(r.t, ignoreEINTR(unix.Nanosleep(&unix.Timespec{Nsec: 10_000}, nil)))
			}
			if time.Since(last) > patience {
				r.t.Fatalf("interrupt %d of %d has not arrived; vCPU is %v; %d entries, %d kicks", sent, n,
					v.Phase(), v.Counters().Entries.Load(), v.Counters().Kicks.Load())
			}
		}
	}
	if got := r.RAM.Load(dataAt) - start; got != sent {
		r.t.Errorf("sent %d interrupts, guest took %d", sent, got)
	}
	r.t.Logf("%d interrupts in %v", sent, time.Since(begin))
	return sent
}

func ignoreEINTR(err error) error {
	if err == unix.EINTR {
		return nil
	}
	return err
}

// Many goroutines kick, interrupt, pause, resume and capture two vCPUs at once.
func TestStorm(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	vcpus := []*vcpu.VCPU{r.add(0), r.add(1)}
	for _, v := range vcpus {
		r.startSpinInRing3(v)
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			for !stop.Load() {
				v := vcpus[rng.IntN(len(vcpus))]
				switch rng.IntN(7) {
				case 0, 1:
					v.Kick()
				case 2, 3:
					r.irq(v, irqVector)
				case 4:
					if err := v.Sync(ctx); err != nil {
						t.Error(err)
					}
				case 5:
					if err := r.Pause(ctx); err != nil {
						t.Error(err)
					}
					if err := r.VM.Resume(ctx); err != nil {
						t.Error(err)
					}
				case 6:
					runtime.GC()
				}
			}
		})
	}
	time.AfterFunc(500*time.Millisecond, func() { stop.Store(true) })
	wg.Wait()
	for _, v := range vcpus {
		if v.Phase() != vcpu.Running {
			t.Errorf("%v is %v", v, v.Phase())
		}
		r.sendAndWait(v, 10, func(uint64) {})
	}
	select {
	case e := <-r.Events:
		t.Error(e)
	default:
	}
}

// A vCPU in the guest blocks every signal but the kick; the process's own must
// still arrive.
func TestProcessSignalsArrive(t *testing.T) {
	r := newRig(t)
	for id := range uint32(3) {
		r.startSpinInRing3(r.add(id))
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, unix.SIGUSR1)
	defer signal.Stop(got)
	for range 20 {
		must(t, unix.Kill(unix.Getpid(), unix.SIGUSR1))
		select {
		case <-got:
		case <-time.After(patience):
			t.Fatal("SIGUSR1 did not arrive")
		}
	}
}

// The timer wakes a halted vCPU, which meanwhile uses no CPU.
func TestTimerWakesHalted(t *testing.T) {
	const period = 5 * time.Millisecond
	r := newRig(t)
	v := r.add(0)
	a := micro.NewAsm(codeAt)
	handler := a.Label()
	a.EnableAPIC()
	a.StartTimer(irqVector, uint32(period))
	a.Sti()
	top := a.Here()
	a.Hlt()
	a.Jmp(top)
	a.Bind(handler)
	a.CountingHandler(dataAt)
	must(t, a.Install(r.Machine, codeAt, map[uint8]micro.Label{irqVector: handler}))
	r.start(v, micro.Options{RIP: codeAt})
	r.until("the timer runs", func() bool { return r.RAM.Load(dataAt) > 0 })
	begin, cpu, first := time.Now(), v.CPUTime(), r.RAM.Load(dataAt)
	r.until("it has fired 40 times", func() bool { return r.RAM.Load(dataAt) >= first+40 })
	took, used := time.Since(begin), v.CPUTime()-cpu
	if took < 39*period {
		t.Errorf("40 periods of %v took %v", period, took)
	}
	if used > took/4 {
		t.Errorf("used %v of CPU time in %v of waiting", used, took)
	}
}

// A one-shot timer fires once, and a program that arms it again and again gets
// every one.
func TestOneShotTimer(t *testing.T) {
	const shots = 200
	r := newRig(t)
	v := r.add(0)
	a := micro.NewAsm(codeAt)
	handler := a.Label()
	a.EnableAPIC()
	a.WriteMSR(0x83e, 0xb)               // divide by 1
	a.WriteMSR(0x832, uint64(irqVector)) // one-shot
	a.MovMem(dataAt+8, shots)
	again := a.Here()
	a.Cli()
	a.WriteMSR(0x838, 100_000) // ns
	a.Sti()
	a.Hlt()
	a.DecMem(dataAt + 8)
	a.Jcc(micro.NotEqual, again)
	a.Out8(micro.PortFail, 1)
	top := a.Here()
	a.Hlt()
	a.Jmp(top)
	a.Bind(handler)
	a.CountingHandler(dataAt)
	must(t, a.Install(r.Machine, codeAt, map[uint8]micro.Label{irqVector: handler}))
	r.start(v, micro.Options{RIP: codeAt})
	r.event() // the program's end
	r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
	if n := r.RAM.Load(dataAt); n != shots {
		t.Errorf("%d interrupts of %d one-shot timers", n, shots)
	}
}

// TestNoKickIsLostWithoutRoom: while the user's processes have used up the signals that may be pending, a kick waits.
func TestNoKickIsLostWithoutRoom(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	must(t, micro.HaltLoop(r.Machine, codeAt, irqVector, dataAt))
	r.start(v, micro.Options{RIP: codeAt})
	r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_SIGPENDING, &limit))
	must(t, unix.Setrlimit(unix.RLIMIT_SIGPENDING, &unix.Rlimit{Cur: 0, Max: limit.Max}))
	done := make(chan error)
	go func() { done <- v.Pause(t.Context()) }()
	r.until("it is kicked", func() bool { return v.Counters().Kicks.Load() > 0 })
	select {
	case err := <-done:
		t.Errorf("a kick came through: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	must(t, unix.Setrlimit(unix.RLIMIT_SIGPENDING, &limit))
	must(t, <-done)
}
