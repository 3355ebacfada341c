package vcpu

import (
	"errors"
	"fmt"

	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// PortIO is an access to an I/O port. Its fields are valid during the call
// that carries it.
type PortIO struct {
	Port  uint16
	Size  int  // bytes of one access: 1, 2 or 4
	Count int  // accesses, more than one for a string instruction
	Write bool // the guest executes OUT
	// Data is Size*Count bytes inside the page shared with KVM: what the
	// guest writes, or where the answer goes. It is all ones before a read,
	// which is what a bus without a device there answers.
	Data []byte
}

// MMIO is an access to guest-physical memory that has no RAM behind it. Its
// fields are valid during the call that carries it.
type MMIO struct {
	GPA   uint64
	Write bool
	// Data is 1 to 8 bytes inside the page shared with KVM, as in PortIO.
	Data []byte
}

// Exits is the machine around a vCPU. All methods are called on the vCPU's
// thread and must not call the blocking methods of that VCPU (Pause, Close, …):
// that would wait for itself. They may deliver interrupts to it.
type Exits interface {
	// PortIO and MMIO carry out a device access. An error stops the vCPU
	// with Fatal; an access that no device claims is not an error.
	PortIO(v *VCPU, op *PortIO) error
	MMIO(v *VCPU, op *MMIO) error
	// Shutdown says that the guest has triple-faulted. The vCPU is paused
	// and stays so until it is given new registers.
	Shutdown(v *VCPU)
	// Fatal says that the vCPU cannot go on. It is paused for good.
	Fatal(v *VCPU, err error)
}

// ExitError is a KVM exit that no guest should be able to cause or that this
// package has no answer to.
type ExitError struct {
	Reason kvm.ExitReason
	Detail string
	RIP    uint64 // where the guest stands, 0 if that could not be read
}

func (e *ExitError) Error() string {
	s := "KVM exit \"" + e.Reason.String() + "\""
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s + fmt.Sprintf(" at rip %#x", e.RIP)
}

// errShutdown is how handleExit reports a triple fault to the loop.
var errShutdown = errors.New("triple fault")

// handleExit does what the guest left KVM_RUN for. An error ends the run.
// Thread only.
func (v *VCPU) handleExit() error {
	reason := v.kvm.ExitReason()
	v.counters.exit(reason)
	// The other two may come before the guest has executed anything.
	if v.cfg.OnExit != nil && reason != kvm.KVM_EXIT_IRQ_WINDOW_OPEN && reason != kvm.KVM_EXIT_INTR {
		v.cfg.OnExit(v)
	}
	switch reason {
	case kvm.KVM_EXIT_IO:
		return v.handleIO()
	case kvm.KVM_EXIT_MMIO:
		x := v.kvm.MMIO()
		v.mmio = MMIO{GPA: x.GPA, Write: x.Write, Data: x.Data}
		if !x.Write {
			fillOnes(x.Data)
		}
		v.incomplete = true
		return v.cfg.Exits.MMIO(v, &v.mmio)
	case kvm.KVM_EXIT_X86_RDMSR, kvm.KVM_EXIT_X86_WRMSR:
		v.incomplete = true
		v.handleMSR(v.kvm.MSR(), reason == kvm.KVM_EXIT_X86_WRMSR)
		return nil
	case kvm.KVM_EXIT_HLT:
		v.apic.SetActivity(apic.Halted)
		return nil
	case kvm.KVM_EXIT_IRQ_WINDOW_OPEN, kvm.KVM_EXIT_SET_TPR, kvm.KVM_EXIT_INTR:
		return nil // the next round looks at the APIC
	case kvm.KVM_EXIT_SHUTDOWN:
		return errShutdown
	}
	return v.exitError(reason)
}

func (v *VCPU) handleIO() error {
	x, err := v.kvm.IO()
	if err != nil {
		return err
	}
	v.pio = PortIO{Port: x.Port, Size: x.Size, Count: x.Count, Write: x.Out, Data: x.Data}
	if !x.Out {
		fillOnes(x.Data)
	}
	v.incomplete = true
	return v.cfg.Exits.PortIO(v, &v.pio)
}

func fillOnes(b []byte) {
	for i := range b {
		b[i] = 0xff
	}
}

// exitError describes an exit without an answer.
func (v *VCPU) exitError(reason kvm.ExitReason) error {
	e := &ExitError{Reason: reason}
	switch reason {
	case kvm.KVM_EXIT_INTERNAL_ERROR:
		sub, data := v.kvm.InternalError()
		e.Detail = fmt.Sprintf("%s %#x", kvm.InternalErrorName(sub), data)
	case kvm.KVM_EXIT_FAIL_ENTRY:
		why, cpu := v.kvm.FailEntry()
		e.Detail = fmt.Sprintf("hardware reason %#x on host CPU %d", why, cpu)
	case kvm.KVM_EXIT_SYSTEM_EVENT:
		typ, data := v.kvm.SystemEvent()
		e.Detail = fmt.Sprintf("type %d data %#x", typ, data)
	case kvm.KVM_EXIT_UNKNOWN:
		e.Detail = fmt.Sprintf("hardware reason %#x", v.kvm.HardwareExitReason())
	}
	if r, err := v.kvm.Regs(); err == nil {
		e.RIP = r.RIP
	}
	return e
}
