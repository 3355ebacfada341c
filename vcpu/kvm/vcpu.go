package kvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// legacyXSAVE is the size of struct kvm_xsave, the smallest XSAVE image that
// KVM_GET_XSAVE and KVM_SET_XSAVE move.
const legacyXSAVE = 4096

// VCPU is a KVM virtual CPU. All methods belong to the thread that runs it.
type VCPU struct {
	Run // the shared kvm_run page

	fd       int
	xsaveLen int
}

// Close unmaps kvm_run and closes the vCPU.
func (v *VCPU) Close() error {
	return errors.Join(unix.Munmap(v.Run.mem), unix.Close(v.fd))
}

// Enter is KVM_RUN. interrupted is true when it returned because a signal is
// pending or immediate exit was asked for (EINTR, EAGAIN): a result, not an
// error. Otherwise, without an error, ExitReason says what the guest wants.
//
// It goes through Syscall, not RawSyscall: while inside, a garbage collection
// must be able to proceed, since a page fault taken here may need Go code to
// be resolved.
func (v *VCPU) Enter() (interrupted bool, err error) {
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(v.fd), KVM_RUN, 0)
	switch errno {
	case 0:
		return false, nil
	case unix.EINTR, unix.EAGAIN:
		return true, nil
	}
	if errno == unix.EFAULT && v.ExitReason() == KVM_EXIT_MEMORY_FAULT {
		f := v.MemoryFault()
		return false, fmt.Errorf("KVM_RUN: memory fault at gpa %#x size %#x flags %#x: %w", f.GPA, f.Size, f.Flags, errno)
	}
	return false, fmt.Errorf("KVM_RUN: %w", errno)
}

// EnableCap switches a capability on for this vCPU.
func (v *VCPU) EnableCap(c Cap, args ...uint64) error { return enableCap(v.fd, c, args) }

// Regs reads the general registers.
func (v *VCPU) Regs() (r Regs, err error) {
	_, errno := ioctlPtr(v.fd, KVM_GET_REGS, &r)
	return r, ioctlError("KVM_GET_REGS", errno)
}

// SetRegs writes the general registers.
func (v *VCPU) SetRegs(r Regs) error {
	_, errno := ioctlPtr(v.fd, KVM_SET_REGS, &r)
	return ioctlError("KVM_SET_REGS", errno)
}

// Sregs reads segments, control registers and EFER.
func (v *VCPU) Sregs() (s Sregs, err error) {
	_, errno := ioctlPtr(v.fd, KVM_GET_SREGS, &s)
	return s, ioctlError("KVM_GET_SREGS", errno)
}

// SetSregs writes segments, control registers and EFER. CPUID must be set
// first: KVM checks the values against it.
func (v *VCPU) SetSregs(s Sregs) error {
	_, errno := ioctlPtr(v.fd, KVM_SET_SREGS, &s)
	return ioctlError("KVM_SET_SREGS", errno)
}

// XSAVELen is the size in bytes of this vCPU's XSAVE image.
func (v *VCPU) XSAVELen() int { return v.xsaveLen }

// XSAVE reads the FPU and vector state in the processor's standard (not
// compacted) XSAVE format.
func (v *VCPU) XSAVE() ([]byte, error) {
	b := make([]byte, v.xsaveLen)
	req, name := uintptr(KVM_GET_XSAVE), "KVM_GET_XSAVE"
	if v.xsaveLen > legacyXSAVE {
		req, name = KVM_GET_XSAVE2, "KVM_GET_XSAVE2"
	}
	_, errno := ioctlBytes(v.fd, req, b)
	return b, ioctlError(name, errno)
}

// SetXSAVE writes the FPU and vector state; image must be XSAVELen long.
func (v *VCPU) SetXSAVE(image []byte) error {
	if len(image) != v.xsaveLen {
		return fmt.Errorf("KVM_SET_XSAVE: image of %d bytes, this host's is %d", len(image), v.xsaveLen)
	}
	_, errno := ioctlBytes(v.fd, KVM_SET_XSAVE, image)
	return ioctlError("KVM_SET_XSAVE", errno)
}

// XCRs reads the extended control registers.
func (v *VCPU) XCRs() (x XCRs, err error) {
	_, errno := ioctlPtr(v.fd, KVM_GET_XCRS, &x)
	return x, ioctlError("KVM_GET_XCRS", errno)
}

// SetXCRs writes the extended control registers.
func (v *VCPU) SetXCRs(x XCRs) error {
	_, errno := ioctlPtr(v.fd, KVM_SET_XCRS, &x)
	return ioctlError("KVM_SET_XCRS", errno)
}

// Events reads what is being delivered to the guest.
func (v *VCPU) Events() (e VCPUEvents, err error) {
	_, errno := ioctlPtr(v.fd, KVM_GET_VCPU_EVENTS, &e)
	return e, ioctlError("KVM_GET_VCPU_EVENTS", errno)
}

// SetEvents writes what is being delivered to the guest.
func (v *VCPU) SetEvents(e VCPUEvents) error {
	_, errno := ioctlPtr(v.fd, KVM_SET_VCPU_EVENTS, &e)
	return ioctlError("KVM_SET_VCPU_EVENTS", errno)
}

// DebugRegs reads DR0 to DR7.
func (v *VCPU) DebugRegs() (d DebugRegs, err error) {
	_, errno := ioctlPtr(v.fd, KVM_GET_DEBUGREGS, &d)
	return d, ioctlError("KVM_GET_DEBUGREGS", errno)
}

// SetDebugRegs writes DR0 to DR7.
func (v *VCPU) SetDebugRegs(d DebugRegs) error {
	_, errno := ioctlPtr(v.fd, KVM_SET_DEBUGREGS, &d)
	return ioctlError("KVM_SET_DEBUGREGS", errno)
}

// SetRunnable is KVM_SET_MP_STATE with the one state KVM takes without an
// irqchip. A new vCPU other than number 0 needs it before its first KVM_RUN.
func (v *VCPU) SetRunnable() error {
	state := uint32(KVM_MP_STATE_RUNNABLE)
	_, errno := ioctlPtr(v.fd, KVM_SET_MP_STATE, &state)
	return ioctlError("KVM_SET_MP_STATE", errno)
}

// Interrupt is KVM_INTERRUPT: queues an external interrupt for the next entry.
// The caller must have seen ReadyForInterruptInjection and IFFlag since the
// last one: KVM overwrites what is queued without a word.
func (v *VCPU) Interrupt(vector uint8) error {
	irq := uint32(vector)
	_, errno := ioctlPtr(v.fd, KVM_INTERRUPT, &irq)
	return ioctlError("KVM_INTERRUPT", errno)
}

// NMI is KVM_NMI: queues a non-maskable interrupt.
func (v *VCPU) NMI() error {
	_, errno := ioctl(v.fd, KVM_NMI, 0)
	return ioctlError("KVM_NMI", errno)
}

// SetSignalMask blocks exactly the signals in set (bit n-1 for signal n) while
// the thread is inside KVM_RUN.
func (v *VCPU) SetSignalMask(set uint64) error {
	m := signalMask{len: 8, set: [2]uint32{uint32(set), uint32(set >> 32)}}
	_, errno := ioctlPtr(v.fd, KVM_SET_SIGNAL_MASK, &m)
	return ioctlError("KVM_SET_SIGNAL_MASK", errno)
}

// SetCPUID2 says what CPUID answers inside the guest. Once the vCPU has run,
// KVM accepts only what it already has.
func (v *VCPU) SetCPUID2(entries []CPUIDEntry) error {
	if len(entries) > maxCPUID {
		return fmt.Errorf("KVM_SET_CPUID2: %d entries, at most %d", len(entries), maxCPUID)
	}
	b := make([]byte, 8, 8+len(entries)*cpuidEntrySize)
	binary.LittleEndian.PutUint32(b, uint32(len(entries)))
	b, err := binary.Append(b, binary.LittleEndian, entries)
	if err != nil {
		return err
	}
	_, errno := ioctlBytes(v.fd, KVM_SET_CPUID2, b)
	return ioctlError("KVM_SET_CPUID2", errno)
}

// MSRs reads the MSRs named by index. It returns the values up to the first
// one that KVM refuses, so fewer than asked for means that MSR len(result) is
// not there.
func (v *VCPU) MSRs(index []uint32) ([]MSR, error) {
	m := make([]MSR, len(index))
	for i, x := range index {
		m[i].Index = x
	}
	b, err := encodeMSRs(m)
	if err != nil {
		return nil, err
	}
	n, errno := ioctlBytes(v.fd, KVM_GET_MSRS, b)
	if errno != 0 {
		return nil, ioctlError("KVM_GET_MSRS", errno)
	}
	if _, err := binary.Decode(b[8:], binary.LittleEndian, m); err != nil {
		return nil, err
	}
	return m[:n], nil
}

// SetMSRs writes MSRs in order and returns how many KVM took: fewer than
// given means that it refused msrs[n].
func (v *VCPU) SetMSRs(msrs []MSR) (n int, err error) {
	b, err := encodeMSRs(msrs)
	if err != nil {
		return 0, err
	}
	n, errno := ioctlBytes(v.fd, KVM_SET_MSRS, b)
	return n, ioctlError("KVM_SET_MSRS", errno)
}

// encodeMSRs builds struct kvm_msrs.
func encodeMSRs(m []MSR) ([]byte, error) {
	if len(m) > MaxMSRs {
		return nil, fmt.Errorf("%d MSRs at once, at most %d", len(m), MaxMSRs)
	}
	b := make([]byte, 8, 8+len(m)*16)
	binary.LittleEndian.PutUint32(b, uint32(len(m)))
	return binary.Append(b, binary.LittleEndian, m)
}

// TSCKHz returns the frequency of the guest's TSC.
func (v *VCPU) TSCKHz() (uint32, error) {
	khz, errno := ioctl(v.fd, KVM_GET_TSC_KHZ, 0)
	if errno != 0 {
		return 0, unsupported("KVM_GET_TSC_KHZ", "", errno)
	}
	return uint32(khz), nil
}

// SetTSCKHz asks for a TSC frequency. Within 250 ppm of the host's nothing is
// changed; beyond, it takes hardware TSC scaling (KVM_CAP_TSC_CONTROL).
func (v *VCPU) SetTSCKHz(khz uint32) error {
	_, errno := ioctl(v.fd, KVM_SET_TSC_KHZ, uintptr(khz))
	return unsupported("KVM_SET_TSC_KHZ", "", errno)
}

// TSCOffset returns what KVM adds to the host's TSC to get the guest's, in
// ticks, modulo 2^64.
func (v *VCPU) TSCOffset() (uint64, error) {
	var off uint64
	errno := deviceAttr(v.fd, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &off)
	return off, unsupported("KVM_VCPU_TSC_OFFSET", "5.16", errno)
}

// SetTSCOffset is the inverse of TSCOffset. KVM without hardware
// virtualisation accepts an offset and ignores it, which is an error that Is
// ErrNotSupported here.
func (v *VCPU) SetTSCOffset(off uint64) error {
	errno := deviceAttr(v.fd, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &off)
	if err := unsupported("KVM_VCPU_TSC_OFFSET", "5.16", errno); err != nil {
		return err
	}
	now, err := v.TSCOffset()
	if err == nil && now != off {
		err = &FeatureError{Feature: "a TSC offset", Err: fmt.Errorf("set to %#x, KVM keeps %#x", off, now)}
	}
	return err
}
