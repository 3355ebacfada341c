package vcpu

import (
	"errors"
	"fmt"

	"coalesce/vcpu/apic"
)

// All of this file runs on the vCPU's thread.

// round is one turn of a vCPU that may run: look at the APIC, then enter the
// guest or wait. An error means that the vCPU cannot go on.
func (v *VCPU) round() error {
	if err := v.takeEvents(); err != nil {
		return err
	}
	deadline := v.tick()
	runnable, err := v.inject()
	if err != nil {
		return err
	}
	if err := v.alarm.set(deadline); err != nil {
		return err
	}
	if !runnable {
		v.wait()
		return nil
	}
	return v.enter()
}

// takeEvents carries out INIT, SIPI and NMI.
func (v *VCPU) takeEvents() error {
	e := v.apic.TakeEvents()
	if e.INIT {
		if err := v.reset(); err != nil {
			return fmt.Errorf("INIT: %w", err)
		}
	}
	if e.SIPI {
		if err := v.startAt(e.SIPIVector); err != nil {
			return fmt.Errorf("SIPI: %w", err)
		}
	}
	if e.NMI {
		v.apic.SetActivity(apic.Running)
		v.counters.NMIs.Add(1)
		return v.kvm.NMI()
	}
	return nil
}

// tick lets the APIC timer expire if it is due and returns when it is due
// next, 0 if it is not running.
func (v *VCPU) tick() (deadline int64) {
	deadline, armed := v.apic.NextTimer()
	if !armed {
		return 0
	}
	if now := (Clock{}).NowNS(); now >= deadline {
		v.apic.Tick(now)
		if deadline, armed = v.apic.NextTimer(); !armed {
			return 0
		}
	}
	return deadline
}

// inject gives the guest the interrupt it may take now, asks for a window if
// there is one that it cannot take yet, and says whether the vCPU is to run.
//
// The kvm_run flags are those of the last exit. One KVM_INTERRUPT uses them up:
// KVM would overwrite what is queued, so the next goes through a window.
func (v *VCPU) inject() (runnable bool, err error) {
	activity := v.apic.Activity()
	if activity == apic.WaitForSIPI {
		return false, nil
	}
	vector, pending := v.apic.Pending()
	if pending && v.kvm.IFFlag() {
		if activity == apic.Halted {
			activity = apic.Running
			v.apic.SetActivity(activity)
		}
		if v.injectable {
			if err := v.kvm.Interrupt(vector); err != nil {
				return false, err
			}
			v.apic.Accept(vector)
			v.injectable = false
			v.counters.Interrupts.Add(1)
			_, pending = v.apic.Pending()
		}
	}
	v.kvm.RequestInterruptWindow(pending)
	return activity == apic.Running, nil
}

// enter runs the guest until it wants something or a kick comes.
func (v *VCPU) enter() error {
	v.place.Store(int32(inGuest))
	if v.kicked.Load() {
		v.place.Store(int32(outside))
		return nil
	}
	interrupted, err := v.runOnce()
	v.place.Store(int32(outside))
	if err != nil {
		return err
	}
	if interrupted {
		v.counters.Interrupted.Add(1)
		v.drainKicks()
		return nil
	}
	return v.handleExit()
}

// runOnce is KVM_RUN with the state that travels beside it: CR8 both ways and
// whether an interrupt may be injected.
func (v *VCPU) runOnce() (interrupted bool, err error) {
	v.kvm.SetCR8(uint64(v.apic.TPR()))
	v.counters.Entries.Add(1)
	interrupted, err = v.kvm.Enter()
	v.incomplete = false
	v.injectable = v.kvm.ReadyForInterruptInjection()
	v.apic.SetTPR(uint8(v.kvm.CR8()))
	return interrupted, err
}

// settle enters KVM without running the guest: a pending I/O instruction is
// completed, with the further exits that takes, and the flags in kvm_run
// become those of the present state.
func (v *VCPU) settle() error {
	for {
		v.kvm.SetImmediateExit(true)
		interrupted, err := v.runOnce()
		v.kvm.SetImmediateExit(false)
		if err != nil || interrupted {
			return err
		}
		if err := v.handleExit(); err != nil {
			return err
		}
	}
}

// wait blocks until a kick: of a peer, of a device, of the timer, of a request.
func (v *VCPU) wait() {
	v.counters.Waits.Add(1)
	v.phase.Store(int32(Waiting))
	if v.cfg.OnWait != nil {
		v.cfg.OnWait(v, true)
		defer v.cfg.OnWait(v, false)
	}
	v.place.Store(int32(waiting))
	if !v.kicked.Load() {
		if _, timer := awaitKick(); timer {
			v.alarm.fired()
		}
	}
	v.place.Store(int32(outside))
	v.drainKicks()
	v.phase.Store(int32(Running))
}

// drainKicks consumes what kicks are pending. A timer that has fired is no
// longer armed.
func (v *VCPU) drainKicks() {
	for {
		taken, timer := takeKick()
		if !taken {
			return
		}
		if timer {
			v.alarm.fired()
		}
	}
}

// pause stops a running vCPU at an instruction boundary.
func (v *VCPU) pause() error {
	if p := v.Phase(); p != Running && p != Waiting {
		return nil
	}
	v.phase.Store(int32(Paused))
	if !v.incomplete {
		return nil
	}
	if err := v.settle(); err != nil {
		v.stop(err)
		return err
	}
	return nil
}

func (v *VCPU) resume() error {
	if v.Phase() == Recalled {
		return ErrRecalled
	}
	if v.stopped != nil {
		return v.stopped
	}
	v.phase.Store(int32(Running))
	return nil
}

// mustBePaused is the precondition of everything that touches the state.
func (v *VCPU) mustBePaused() error {
	switch v.Phase() {
	case Paused:
		return nil
	case Recalled:
		return ErrRecalled
	}
	return ErrNotPaused
}

// stop pauses a vCPU that cannot go on and tells the machine.
func (v *VCPU) stop(err error) {
	v.phase.Store(int32(Paused))
	if errors.Is(err, errShutdown) {
		v.stopped = ErrNoState
		v.cfg.Exits.Shutdown(v)
		return
	}
	v.stopped = fmt.Errorf("%v: %w", v, err)
	v.cfg.Exits.Fatal(v, v.stopped)
}
