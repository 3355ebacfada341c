package vcpu

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

var (
	// ErrFinished says that the vCPU has been closed.
	ErrFinished = errors.New("vCPU is closed")
	// ErrNotPaused says that a request needs a paused vCPU.
	ErrNotPaused = errors.New("vCPU is not paused")
	// ErrRecalled says that the vCPU's state has left this node.
	ErrRecalled = errors.New("vCPU is recalled")
	// ErrNoState says that a vCPU which has triple-faulted needs new state.
	ErrNoState = errors.New("vCPU has shut down")
)

// StuckError says that a vCPU's thread did not answer in time. A request that
// it has received is carried out nevertheless if it comes back.
type StuckError struct {
	VCPU  string
	What  string // the request
	Where string // where the thread was last seen
	Err   error  // why the wait ended: the VM's timeout, or the caller's context
}

func (e *StuckError) Error() string {
	return fmt.Sprintf("%s: asked to %s, its thread is %s: %v", e.VCPU, e.What, e.Where, e.Err)
}

func (e *StuckError) Unwrap() error { return e.Err }

// Config describes a new vCPU.
type Config struct {
	// ID is the vCPU's number in the guest, the same on every node.
	ID uint32
	// APIC is its local APIC, which must count time by Clock. Whoever delivers
	// a message to it calls Kick when that asks for it (apic.Router does).
	APIC *apic.APIC
	// CPUID is what the guest sees (CPUIDSet.ForVCPU).
	CPUID []kvm.CPUIDEntry
	// TSCKHz is the guest's TSC frequency, 0 for the host's.
	TSCKHz uint32
	// Exits is the machine around the vCPU.
	Exits Exits
	// OnExit, if not nil, is called on the vCPU's thread each time KVM_RUN
	// has returned with an exit that the guest's own progress has caused: not
	// for a signal, nor for an interrupt window, which may open before the
	// first instruction. It must be cheap and must not block.
	OnExit func(*VCPU)
	// OnWait, if not nil, is called on the vCPU's thread before it waits
	// (halted, or for a SIPI) and after. It must not block.
	OnWait func(v *VCPU, waiting bool)
	// OnUnknownMSR, if not nil, is told on the vCPU's thread of each MSR
	// access that neither KVM nor the APIC knows, and whether it got #GP.
	OnUnknownMSR func(v *VCPU, msr uint32, write, gp bool)
}

// Phase is where a vCPU's actor is.
//
//	NewVCPU
//	   |       Resume              HLT, wait-for-SIPI
//	   v     ---------->          -------------------->
//	 Paused              Running                        Waiting
//	 ^ |  |  <----------          <--------------------
//	 | |  |    Pause, triple       interrupt, NMI, SIPI
//	 | |  |    fault, fatal exit   (Waiting pauses, too)
//	 | |  +--Recall--> Recalled
//	 | +---------------------------Close--> Finished (from any)
//	 +------Restore------+
//
// A Recalled vCPU's state runs on another node: only Restore brings one back.
type Phase int32

const (
	Paused Phase = iota
	Running
	Waiting
	Recalled
	Finished
)

func (p Phase) String() string {
	switch p {
	case Paused:
		return "paused"
	case Running:
		return "running"
	case Waiting:
		return "waiting"
	case Recalled:
		return "recalled"
	case Finished:
		return "finished"
	}
	return fmt.Sprintf("phase %d", int32(p))
}

// place is where the vCPU's thread is, for kicks and for error texts.
type place int32

const (
	outside place = iota // in Go code: it will look before it enters
	inGuest              // in KVM_RUN or about to be
	waiting              // in rt_sigtimedwait or about to be
)

// VCPU is a virtual CPU: an actor around one thread. Methods without another
// note may be called from any goroutine but the vCPU's own thread.
type VCPU struct {
	vm   *VM
	cfg  Config
	apic *apic.APIC
	kvm  *kvm.VCPU // the thread's
	tid  int

	requests chan request
	finished chan struct{} // closed when the thread is about to end

	// Shared with kickers; see kick.
	kicked  atomic.Bool
	stalled atomic.Bool  // see Stall
	place   atomic.Int32 // a place, written by the thread

	phase    atomic.Int32 // a Phase, written by the thread
	finalCPU atomic.Int64 // ns, set when the thread ends
	counters Counters

	// All below belongs to the thread.

	oldName threadName // the thread's, from before it was this vCPU's
	alarm   alarm
	msrs    []uint32 // of the VM's, those this vCPU has; nil until the first capture
	// incomplete: an I/O or MSR exit has been answered, but KVM finishes the
	// instruction only on the next KVM_RUN.
	incomplete bool
	// injectable: as of the last exit KVM would take an interrupt, and none
	// was queued since.
	injectable bool
	// stopped is why Resume must not succeed, nil if it may.
	stopped error
	pio     PortIO // reused, so that an exit allocates nothing
	mmio    MMIO
}

// NewVCPU makes a vCPU in its power-on state, paused, and starts its thread.
func (m *VM) NewVCPU(cfg Config) (*VCPU, error) {
	v := &VCPU{
		vm: m, cfg: cfg, apic: cfg.APIC,
		requests: make(chan request, 4),
		finished: make(chan struct{}),
	}
	if err := m.add(v); err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	onNewThread(func() { v.thread(started) })
	if err := <-started; err != nil {
		<-v.finished
		return nil, fmt.Errorf("%v: %w", v, err)
	}
	return v, nil
}

// String names the vCPU in errors and logs.
func (v *VCPU) String() string { return fmt.Sprintf("vcpu %d", v.cfg.ID) }

// ID is the vCPU's number in the guest.
func (v *VCPU) ID() uint32 { return v.cfg.ID }

// APIC returns the vCPU's local APIC.
func (v *VCPU) APIC() *apic.APIC { return v.apic }

// TID is the id of the vCPU's thread, by which userfaultfd tells whose fault
// a message is about. Any goroutine.
func (v *VCPU) TID() int { return v.tid }

// Phase says where the actor is. Any goroutine.
func (v *VCPU) Phase() Phase { return Phase(v.phase.Load()) }

// Resume lets a paused vCPU run.
func (v *VCPU) Resume(ctx context.Context) error { return v.do(ctx, "resume", v.resume) }

// Pause stops the vCPU outside the guest, with no instruction half done: an
// I/O instruction that waits for its device is completed first. It returns
// when the thread has acknowledged. Pausing what is not running is no error.
func (v *VCPU) Pause(ctx context.Context) error { return v.do(ctx, "pause", v.pause) }

// Sync returns when the vCPU's thread has been outside the guest once: an
// acknowledged kick.
func (v *VCPU) Sync(ctx context.Context) error {
	return v.do(ctx, "look up", func() error { return nil })
}

// Registers returns the registers of the vCPU, which may be running: a look at
// where the guest stands.
func (v *VCPU) Registers(ctx context.Context) (r kvm.Regs, err error) {
	err = v.do(ctx, "tell its registers", func() (err error) {
		r, err = v.kvm.Regs()
		return err
	})
	return r, err
}

// Setup gives a paused vCPU registers and, unless it is 0, XCR0, with which
// it will run when resumed, whatever it was waiting for. IA32_APIC_BASE is the
// APIC's, whatever sregs says. Vector registers and MSRs stay.
func (v *VCPU) Setup(ctx context.Context, regs kvm.Regs, sregs kvm.Sregs, xcr0 uint64) error {
	return v.do(ctx, "set registers", func() error {
		if err := v.mustBePaused(); err != nil {
			return err
		}
		if err := v.setRegisters(regs, sregs); err != nil {
			return err
		}
		if xcr0 != 0 {
			if err := v.setXCRs([]kvm.XCR{{XCR: 0, Value: xcr0}}); err != nil {
				return err
			}
		}
		v.apic.SetActivity(apic.Running)
		return v.settle()
	})
}

// Capture returns the state of a paused vCPU, which stays paused.
func (v *VCPU) Capture(ctx context.Context) (*State, error) {
	var s *State
	err := v.do(ctx, "capture its state", func() (err error) {
		if err := v.mustBePaused(); err != nil {
			return err
		}
		s, err = v.capture()
		return err
	})
	return s, err
}

// Recall takes the state away, pausing the vCPU first: afterwards it runs
// nowhere until some node restores the state.
func (v *VCPU) Recall(ctx context.Context) (*State, error) {
	var s *State
	err := v.do(ctx, "be recalled", func() (err error) {
		if err := v.pause(); err != nil {
			return err
		}
		if err := v.mustBePaused(); err != nil {
			return err
		}
		if s, err = v.capture(); err == nil {
			v.phase.Store(int32(Recalled))
		}
		return err
	})
	return s, err
}

// Restore gives a paused or recalled vCPU a captured state. It is paused
// afterwards. After an error its state is undefined: restore again or close.
func (v *VCPU) Restore(ctx context.Context, s *State) error {
	return v.do(ctx, "restore a state", func() error {
		if p := v.Phase(); p != Paused && p != Recalled {
			return ErrNotPaused
		}
		if err := v.restore(s); err != nil {
			return err
		}
		v.phase.Store(int32(Paused))
		return nil
	})
}

// Close ends the vCPU and its thread. Closing twice is no error.
func (v *VCPU) Close() error {
	err := v.do(context.Background(), "finish", func() error {
		v.phase.Store(int32(Finished))
		return nil
	})
	if err != nil && !errors.Is(err, ErrFinished) {
		return err
	}
	<-v.finished
	return nil
}
