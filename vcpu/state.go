package vcpu

import (
	"errors"
	"fmt"
	"slices"

	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// State is all of a vCPU that must move for it to go on elsewhere. It holds no
// TSC: the receiving node's offset gives the guest its time. What the host
// decides is not in it either (CPUID, feature MSRs), nor are machine-check
// banks, which no KVM guest fills.
type State struct {
	Regs      kvm.Regs
	Sregs     kvm.Sregs
	XSAVE     []byte // standard XSAVE format
	XCRs      []kvm.XCR
	MSRs      []kvm.MSR // in the order in which they are set
	Events    kvm.VCPUEvents
	DebugRegs kvm.DebugRegs
	APIC      apic.State // with TPR, and with running, halted or wait-for-SIPI
}

// RefusedMSRError says that this host does not take a captured MSR's value.
type RefusedMSRError struct {
	MSR   uint32
	Value uint64
}

func (e *RefusedMSRError) Error() string {
	return fmt.Sprintf("this host refuses the value %#x of MSR %#x", e.Value, e.MSR)
}

// capture reads the state. Paused, thread only.
func (v *VCPU) capture() (*State, error) {
	v.counters.Captures.Add(1)
	s := &State{APIC: v.apic.Save()}
	var err error
	get := func(fn func() error) {
		if err == nil {
			err = fn()
		}
	}
	get(func() (e error) { s.Regs, e = v.kvm.Regs(); return })
	get(func() (e error) { s.Sregs, e = v.kvm.Sregs(); return })
	get(func() (e error) { s.XSAVE, e = v.kvm.XSAVE(); return })
	get(func() (e error) { s.DebugRegs, e = v.kvm.DebugRegs(); return })
	get(func() (e error) { s.Events, e = v.kvm.Events(); return })
	get(func() error {
		x, e := v.kvm.XCRs()
		s.XCRs = slices.Clone(x.XCRs[:min(int(x.N), len(x.XCRs))])
		return e
	})
	get(func() (e error) { s.MSRs, e = v.readMSRs(); return })
	// Only what KVM_SET_VCPU_EVENTS takes without an irqchip and SMM.
	s.Events.Flags &= kvm.KVM_VCPUEVENT_VALID_NMI_PENDING | kvm.KVM_VCPUEVENT_VALID_SHADOW | kvm.KVM_VCPUEVENT_VALID_PAYLOAD
	return s, err
}

// restore writes the state. The order matters: CPUID is there already, SREGS
// before what depends on the mode, XCRs after the XSAVE image, and the TSC
// offset last, since a restored MSR may move the TSC. Paused or recalled,
// thread only.
func (v *VCPU) restore(s *State) error {
	v.counters.Restores.Add(1)
	if v.stopped != nil && v.stopped != ErrNoState {
		return v.stopped
	}
	if s.APIC.ID != v.apic.ID() {
		return fmt.Errorf("state of APIC id %d", s.APIC.ID)
	}
	if err := v.setRegisters(s.Regs, s.Sregs); err != nil {
		return err
	}
	image, err := fitXSAVE(s.XSAVE, v.kvm.XSAVELen())
	if err != nil {
		return err
	}
	if err := v.kvm.SetXSAVE(image); err != nil {
		return err
	}
	if err := v.setXCRs(s.XCRs); err != nil {
		return err
	}
	if err := v.writeMSRs(s.MSRs); err != nil {
		return err
	}
	if err := v.kvm.SetDebugRegs(s.DebugRegs); err != nil {
		return err
	}
	if err := v.kvm.SetEvents(s.Events); err != nil {
		return err
	}
	if err := v.apic.Restore(s.APIC); err != nil {
		return err
	}
	if err := v.applyTSCOffset(); err != nil {
		return err
	}
	return v.settle()
}

func (v *VCPU) setXCRs(xcrs []kvm.XCR) error {
	if len(xcrs) == 0 {
		return nil // a host without XSAVE has none
	}
	x := kvm.XCRs{N: uint32(len(xcrs))}
	if copy(x.XCRs[:], xcrs) < len(xcrs) {
		return fmt.Errorf("%d extended control registers, at most %d", len(xcrs), len(x.XCRs))
	}
	return v.kvm.SetXCRs(x)
}

// errXSAVESize says that a state uses a register set this host does not have.
var errXSAVESize = errors.New("vector state does not fit this host's")

// fitXSAVE makes an image from another host as long as this one's. What is cut
// off must be unused: components lie at offsets that CPUID fixes, and the
// guest's CPUID is the same on both.
func fitXSAVE(image []byte, n int) ([]byte, error) {
	if len(image) < n {
		return append(slices.Clone(image), make([]byte, n-len(image))...), nil
	}
	for _, b := range image[n:] {
		if b != 0 {
			return nil, fmt.Errorf("%w: %d bytes, here %d", errXSAVESize, len(image), n)
		}
	}
	return image[:n], nil
}
