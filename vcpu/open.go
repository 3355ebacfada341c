package vcpu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"coalesce/vcpu/kvm"
)

// open makes the KVM vCPU and the timer. Thread only, as all of this file.
func (v *VCPU) open() (err error) {
	v.tid = unix.Gettid()
	if err := blockKick(); err != nil {
		return err
	}
	var name threadName
	copy(name[:len(name)-1], v.String())
	if v.oldName, err = swapThreadName(name); err != nil {
		return err
	}
	if err := v.alarm.init(v.tid); err != nil {
		return err
	}
	if v.kvm, err = v.vm.kvm.CreateVCPU(v.cfg.ID); err != nil {
		return err
	}
	// Everything but the kick waits until the guest has been left; a signal
	// for the process goes to another thread.
	if err := v.kvm.SetSignalMask(^signalBit(kickSignal)); err != nil {
		return err
	}
	// What the guest has not been told of, KVM must not do: a masked
	// kvmclock would otherwise still write guest memory when asked to.
	err = v.kvm.EnableCap(kvm.KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1)
	if err != nil && !errors.Is(err, kvm.ErrNotSupported) {
		return err
	}
	if v.cfg.TSCKHz != 0 {
		if err := v.kvm.SetTSCKHz(v.cfg.TSCKHz); err != nil {
			return fmt.Errorf("setting the TSC to %d kHz: %w", v.cfg.TSCKHz, err)
		}
	}
	if err := v.kvm.SetCPUID2(v.cfg.CPUID); err != nil {
		return err
	}
	if err := v.kvm.SetRunnable(); err != nil {
		return err
	}
	if err := v.applyTSCOffset(); err != nil {
		return err
	}
	return v.reset()
}

// shut frees what open made, as far as it got.
func (v *VCPU) shut() {
	if v.kvm != nil {
		v.kvm.Close()
	}
	v.alarm.delete()
	// A thread that Go starts while this one ends takes over its name.
	_, _ = swapThreadName(v.oldName)
}

// applyTSCOffset gives the vCPU the VM's offset, if one was set.
func (v *VCPU) applyTSCOffset() error {
	v.vm.mu.Lock()
	offset, set := v.vm.tscOffset, v.vm.tscSet
	v.vm.mu.Unlock()
	if !set {
		return nil
	}
	return v.kvm.SetTSCOffset(offset)
}
