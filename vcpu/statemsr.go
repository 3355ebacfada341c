package vcpu

import (
	"slices"

	"coalesce/vcpu/kvm"
)

// MSRs that are never part of a State though KVM lists them.
const (
	msrTSC          = 0x10        // the node's offset gives it; writing it makes KVM resynchronise
	msrWallClock    = 0x11        // MSR_KVM_WALL_CLOCK
	msrSystemTime   = 0x12        // MSR_KVM_SYSTEM_TIME
	msrLastBranch   = 0x1db       // MSR_IA32_LASTBRANCHFROMIP and the three after it: read-only
	msrTSCDeadline  = 0x6e0       // never offered
	msrHyperV       = 0x4000_0000 // and the 0x1ff after it: never offered
	msrKVM          = 0x4b56_4d00 // and the 0xff after it: never offered
	msrMTRRBase     = 0x200
	msrMTRRDefType  = 0x2ff
	msrMTRRVariable = 8
)

// mtrrs are state that KVM keeps but does not list.
func mtrrs() []uint32 {
	l := []uint32{0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f}
	for i := range uint32(2 * msrMTRRVariable) {
		l = append(l, msrMTRRBase+i)
	}
	return append(l, msrMTRRDefType)
}

// stateMSRs returns the MSRs that make up a vCPU's state on this host: what
// KVM lists and the MTRRs, less what describes the host and what the guest is
// never offered.
func stateMSRs(sys *kvm.System) ([]uint32, error) {
	all, err := sys.MSRIndexList()
	if err != nil {
		return nil, err
	}
	features, err := sys.MSRFeatureIndexList()
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(x uint32) bool {
		switch {
		case x == msrTSC, x == msrWallClock, x == msrSystemTime, x == msrTSCDeadline,
			x >= msrLastBranch && x < msrLastBranch+4,
			x >= msrHyperV && x < msrHyperV+0x200,
			x >= msrKVM && x < msrKVM+0x100:
			return true
		}
		return slices.Contains(features, x)
	})
	for _, x := range mtrrs() {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all, nil
}

// readMSRs reads the MSRs of the state. KVM lists some that a vCPU could have
// with another CPUID: the first call finds out which. Thread only.
func (v *VCPU) readMSRs() ([]kvm.MSR, error) {
	index := v.msrs
	if index == nil {
		index = v.vm.msrs
	}
	msrs := make([]kvm.MSR, 0, len(index))
	for len(index) > 0 {
		ask := index[:min(len(index), kvm.MaxMSRs)]
		got, err := v.kvm.MSRs(ask)
		if err != nil {
			return nil, err
		}
		msrs = append(msrs, got...)
		index = index[len(got):]
		if len(got) < len(ask) {
			index = index[1:] // not there
		}
	}
	if v.msrs == nil {
		v.msrs = make([]uint32, len(msrs))
		for i, m := range msrs {
			v.msrs[i] = m.Index
		}
	}
	return msrs, nil
}

// writeMSRs sets MSRs. One that KVM refuses must have that value already, or
// be 0, which on a host without it is the same. Thread only.
func (v *VCPU) writeMSRs(msrs []kvm.MSR) error {
	for len(msrs) > 0 {
		batch := msrs[:min(len(msrs), kvm.MaxMSRs)]
		n, err := v.kvm.SetMSRs(batch)
		if err != nil {
			return err
		}
		msrs = msrs[n:]
		if n == len(batch) {
			continue
		}
		refused := msrs[0]
		now, err := v.kvm.MSRs([]uint32{refused.Index})
		if err != nil {
			return err
		}
		if same := len(now) == 1 && now[0].Value == refused.Value; !same && refused.Value != 0 {
			return &RefusedMSRError{MSR: refused.Index, Value: refused.Value}
		}
		msrs = msrs[1:]
	}
	return nil
}
