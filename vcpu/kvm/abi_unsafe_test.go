package kvm

import (
	"testing"
	"unsafe"
)

// The ioctl numbers are what linux/kvm.h's macros make of the structures here.
func TestIoctlNumbers(t *testing.T) {
	const none, write, read = 0, 1, 2
	number := func(dir, nr, size uintptr) uintptr { return dir<<30 | size<<16 | 0xae<<8 | nr }
	const kvmXSAVE = 4096 // struct kvm_xsave
	for _, c := range []struct {
		name string
		got  uintptr
		want uintptr
	}{
		{"KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID, number(read|write, 0x05, 8)},
		{"KVM_GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST, number(read|write, 0x02, 4)},
		{"KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, number(write, 0x46, unsafe.Sizeof(userspaceMemoryRegion{}))},
		{"KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, number(write, 0x48, 8)},
		{"KVM_RUN", KVM_RUN, number(none, 0x80, 0)},
		{"KVM_GET_REGS", KVM_GET_REGS, number(read, 0x81, unsafe.Sizeof(Regs{}))},
		{"KVM_SET_REGS", KVM_SET_REGS, number(write, 0x82, unsafe.Sizeof(Regs{}))},
		{"KVM_GET_SREGS", KVM_GET_SREGS, number(read, 0x83, unsafe.Sizeof(Sregs{}))},
		{"KVM_SET_SREGS", KVM_SET_SREGS, number(write, 0x84, unsafe.Sizeof(Sregs{}))},
		{"KVM_INTERRUPT", KVM_INTERRUPT, number(write, 0x86, 4)},
		{"KVM_GET_MSRS", KVM_GET_MSRS, number(read|write, 0x88, 8)},
		{"KVM_SET_MSRS", KVM_SET_MSRS, number(write, 0x89, 8)},
		{"KVM_SET_SIGNAL_MASK", KVM_SET_SIGNAL_MASK, number(write, 0x8b, 4)},
		{"KVM_SET_CPUID2", KVM_SET_CPUID2, number(write, 0x90, 8)},
		{"KVM_SET_MP_STATE", KVM_SET_MP_STATE, number(write, 0x99, 4)},
		{"KVM_GET_VCPU_EVENTS", KVM_GET_VCPU_EVENTS, number(read, 0x9f, unsafe.Sizeof(VCPUEvents{}))},
		{"KVM_SET_VCPU_EVENTS", KVM_SET_VCPU_EVENTS, number(write, 0xa0, unsafe.Sizeof(VCPUEvents{}))},
		{"KVM_GET_DEBUGREGS", KVM_GET_DEBUGREGS, number(read, 0xa1, unsafe.Sizeof(DebugRegs{}))},
		{"KVM_SET_DEBUGREGS", KVM_SET_DEBUGREGS, number(write, 0xa2, unsafe.Sizeof(DebugRegs{}))},
		{"KVM_ENABLE_CAP", KVM_ENABLE_CAP, number(write, 0xa3, unsafe.Sizeof(enableCapArg{}))},
		{"KVM_GET_XSAVE", KVM_GET_XSAVE, number(read, 0xa4, kvmXSAVE)},
		{"KVM_SET_XSAVE", KVM_SET_XSAVE, number(write, 0xa5, kvmXSAVE)},
		{"KVM_GET_XCRS", KVM_GET_XCRS, number(read, 0xa6, unsafe.Sizeof(XCRs{}))},
		{"KVM_SET_XCRS", KVM_SET_XCRS, number(write, 0xa7, unsafe.Sizeof(XCRs{}))},
		{"KVM_GET_XSAVE2", KVM_GET_XSAVE2, number(read, 0xcf, kvmXSAVE)},
		{"KVM_SET_DEVICE_ATTR", KVM_SET_DEVICE_ATTR, number(write, 0xe1, unsafe.Sizeof(deviceAttrArg{}))},
		{"KVM_GET_DEVICE_ATTR", KVM_GET_DEVICE_ATTR, number(write, 0xe2, unsafe.Sizeof(deviceAttrArg{}))},
	} {
		if c.got != c.want {
			t.Errorf("%s is %#x, want %#x", c.name, c.got, c.want)
		}
	}
}
