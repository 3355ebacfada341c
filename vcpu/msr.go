package vcpu

import (
	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// ignoredMSRs read as 0 and swallow writes. KVM does not know them, Linux
// touches them without looking at CPUID first, and a #GP would make it print a
// warning or stop. Every other MSR unknown to KVM raises #GP, as on hardware
// without it.
var ignoredMSRs = map[uint32]string{
	0x0000_0033: "MSR_TEST_CTRL: split lock detection",
	0x0000_0140: "MSR_MISC_FEATURES_ENABLES: CPUID faulting, ring 3 MWAIT",
	0x0000_0198: "MSR_IA32_PERF_STATUS: current P-state",
	0x0000_019c: "MSR_IA32_THERM_STATUS: thermal monitor",
	0xc001_0055: "MSR_K8_INT_PENDING_MSG: C1E detection",
	0xc001_0063: "MSR_AMD_PERF_STATUS: current P-state",
}

// handleMSR answers an access that KVM passed on: x2APIC registers, since
// there is no in-kernel APIC, and MSRs it does not know or whose value it
// rejects. Thread only.
func (v *VCPU) handleMSR(x kvm.MSRExit, write bool) {
	if x.Index >= apic.FirstMSR && x.Index <= apic.LastMSR {
		var (
			value uint64
			err   error
		)
		if write {
			err = v.apic.WriteMSR(x.Index, x.Value)
		} else {
			value, err = v.apic.ReadMSR(x.Index)
		}
		v.kvm.CompleteMSR(value, err != nil)
		return
	}
	v.counters.UnknownMSRs.Add(1)
	_, ignored := ignoredMSRs[x.Index]
	v.kvm.CompleteMSR(0, !ignored)
	if v.cfg.OnUnknownMSR != nil {
		v.cfg.OnUnknownMSR(v, x.Index, write, !ignored)
	}
}
