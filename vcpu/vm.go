package vcpu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"coalesce/vcpu/kvm"
)

// Guest-physical pages that KVM may use on Intel hosts without unrestricted
// guest mode: three for a TSS, one for an identity map. In the hole below
// 4 GiB, where no RAM and no device is; the addresses are QEMU's.
const (
	identityMapGPA = 0xfffb_c000
	tssGPA         = 0xfffb_d000
)

// DefaultStopTimeout is how long a vCPU's thread may take to answer a request.
// It is generous because the thread may be waiting for a page of memory or a
// device on another host.
const DefaultStopTimeout = 10 * time.Second

// VM is this node's KVM virtual machine and the vCPUs in it. Its methods may
// be called from any goroutine but a vCPU's.
type VM struct {
	kvm     *kvm.VM
	timeout time.Duration
	msrs    []uint32 // the MSRs of a vCPU's state, in the order KVM lists them

	mu        sync.Mutex // guards all below
	vcpus     []*VCPU    // by id; closed ones are gone
	tscOffset uint64
	tscSet    bool // tscOffset was given; otherwise KVM's own choice stands
	closed    bool
}

// NewVM makes a VM with no memory and no vCPU. stopTimeout 0 means
// DefaultStopTimeout. What the host lacks is an error that Is
// kvm.ErrNotSupported.
func NewVM(sys *kvm.System, stopTimeout time.Duration) (*VM, error) {
	msrs, err := stateMSRs(sys)
	if err != nil {
		return nil, err
	}
	k, err := sys.CreateVM()
	if err != nil {
		return nil, err
	}
	if err := prepareVM(k); err != nil {
		k.Close()
		return nil, err
	}
	if stopTimeout == 0 {
		stopTimeout = DefaultStopTimeout
	}
	return &VM{kvm: k, timeout: stopTimeout, msrs: msrs}, nil
}

// prepareVM switches on what this package relies on.
func prepareVM(k *kvm.VM) error {
	// x2APIC registers come as "invalid" since there is no in-kernel APIC,
	// on VMX, SVM and PVM alike; no MSR filter is needed, and KVM ignores
	// filters over the x2APIC range anyway.
	const reasons = kvm.KVM_MSR_EXIT_REASON_UNKNOWN | kvm.KVM_MSR_EXIT_REASON_INVAL | kvm.KVM_MSR_EXIT_REASON_FILTER
	if err := k.EnableCap(kvm.KVM_CAP_X86_USER_SPACE_MSR, reasons); err != nil {
		return &kvm.FeatureError{Feature: "KVM_CAP_X86_USER_SPACE_MSR", Since: "5.10", Err: err}
	}
	if n, err := k.CheckExtension(kvm.KVM_CAP_IMMEDIATE_EXIT); err != nil || n == 0 {
		return &kvm.FeatureError{Feature: "KVM_CAP_IMMEDIATE_EXIT", Since: "4.13", Err: err}
	}
	// Without it a captured exception that is only pending would be restored
	// as already injected.
	if err := k.EnableCap(kvm.KVM_CAP_EXCEPTION_PAYLOAD, 1); err != nil && !errors.Is(err, kvm.ErrNotSupported) {
		return err
	}
	if err := k.SetIdentityMapAddr(identityMapGPA); err != nil {
		return err
	}
	return k.SetTSSAddr(tssGPA)
}

// SetMemory makes [gpa, gpa+size) of the guest the memory at hva of this
// process; see kvm.VM.SetUserMemoryRegion.
func (m *VM) SetMemory(slot uint32, gpa, size uint64, hva uintptr, flags uint32) error {
	return m.kvm.SetUserMemoryRegion(slot, gpa, size, hva, flags)
}

// VCPUs returns the open vCPUs by id.
func (m *VM) VCPUs() []*VCPU {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.vcpus)
}

// VCPU returns the open vCPU with this id, or nil.
func (m *VM) VCPU(id uint32) *VCPU {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, ok := m.findLocked(id)
	if !ok {
		return nil
	}
	return m.vcpus[i]
}

func (m *VM) findLocked(id uint32) (int, bool) {
	return slices.BinarySearchFunc(m.vcpus, id, func(v *VCPU, id uint32) int { return int(int64(v.cfg.ID) - int64(id)) })
}

// Pause pauses every vCPU, all of them at once.
func (m *VM) Pause(ctx context.Context) error { return m.each(ctx, "pause", (*VCPU).pause) }

// Resume lets every vCPU run that is not recalled.
func (m *VM) Resume(ctx context.Context) error {
	return m.each(ctx, "resume", func(v *VCPU) error {
		if v.Phase() == Recalled {
			return nil
		}
		return v.resume()
	})
}

// SetTSCOffset sets what is added to the host's TSC to get the guest's, in
// ticks modulo 2^64, for all vCPUs there are and will be. The vCPUs must be
// paused: the guest must not see one of them jump before the others. After an
// error some may have it and some not.
func (m *VM) SetTSCOffset(ctx context.Context, offset uint64) error {
	err := m.each(ctx, "set the TSC offset", func(v *VCPU) error {
		if v.Phase() == Running || v.Phase() == Waiting {
			return ErrNotPaused
		}
		return v.kvm.SetTSCOffset(offset)
	})
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.tscOffset, m.tscSet = offset, true
	m.mu.Unlock()
	return nil
}

// each has every vCPU do something on its thread, concurrently, and joins
// their errors. One that is closed meanwhile is none of them.
func (m *VM) each(ctx context.Context, what string, fn func(*VCPU) error) error {
	ctx, cancel := m.deadline(ctx)
	defer cancel()
	var errs []error
	fail := func(err error) {
		if err != nil && !errors.Is(err, ErrFinished) {
			errs = append(errs, err)
		}
	}
	posted := map[*VCPU]request{}
	for _, v := range m.VCPUs() {
		r := newRequest(what, func() error { return fn(v) })
		if err := v.post(ctx, r); err != nil {
			fail(err)
			continue
		}
		posted[v] = r
	}
	for v, r := range posted {
		fail(v.await(ctx, r))
	}
	return errors.Join(errs...)
}

// Close finishes all vCPUs, then the VM. After it returns without an error no
// thread of the VM is left and nothing writes to the guest's memory. A vCPU
// whose thread does not stop is an error with its name; it keeps the VM alive
// in the kernel.
func (m *VM) Close() error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()

	vcpus := m.VCPUs()
	errs := make([]error, len(vcpus))
	var wg sync.WaitGroup
	for i, v := range vcpus {
		wg.Go(func() { errs[i] = v.Close() })
	}
	wg.Wait()
	return errors.Join(append(errs, m.kvm.Close())...)
}

// add enters a new vCPU.
func (m *VM) add(v *VCPU) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("%v: %w", v, ErrFinished)
	}
	i, ok := m.findLocked(v.cfg.ID)
	if ok {
		return fmt.Errorf("%v exists", v)
	}
	m.vcpus = slices.Insert(m.vcpus, i, v)
	return nil
}

// remove forgets a vCPU that has finished or was never started.
func (m *VM) remove(v *VCPU) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.vcpus = slices.DeleteFunc(m.vcpus, func(o *VCPU) bool { return o == v })
}
