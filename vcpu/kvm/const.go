package kvm

// ioctl numbers (linux/kvm.h). They encode direction and structure size, so
// a structure of the wrong size would not match: abi_unsafe.go asserts sizes.
const (
	KVM_GET_API_VERSION            = 0xae00
	KVM_CREATE_VM                  = 0xae01
	KVM_GET_MSR_INDEX_LIST         = 0xc004ae02
	KVM_CHECK_EXTENSION            = 0xae03
	KVM_GET_VCPU_MMAP_SIZE         = 0xae04
	KVM_GET_SUPPORTED_CPUID        = 0xc008ae05
	KVM_GET_MSR_FEATURE_INDEX_LIST = 0xc004ae0a

	KVM_CREATE_VCPU            = 0xae41
	KVM_SET_USER_MEMORY_REGION = 0x4020ae46
	KVM_SET_TSS_ADDR           = 0xae47
	KVM_SET_IDENTITY_MAP_ADDR  = 0x4008ae48

	KVM_RUN             = 0xae80
	KVM_GET_REGS        = 0x8090ae81
	KVM_SET_REGS        = 0x4090ae82
	KVM_GET_SREGS       = 0x8138ae83
	KVM_SET_SREGS       = 0x4138ae84
	KVM_INTERRUPT       = 0x4004ae86
	KVM_GET_MSRS        = 0xc008ae88
	KVM_SET_MSRS        = 0x4008ae89
	KVM_SET_SIGNAL_MASK = 0x4004ae8b
	KVM_SET_CPUID2      = 0x4008ae90
	KVM_SET_MP_STATE    = 0x4004ae99
	KVM_NMI             = 0xae9a
	KVM_GET_VCPU_EVENTS = 0x8040ae9f
	KVM_SET_VCPU_EVENTS = 0x4040aea0
	KVM_GET_DEBUGREGS   = 0x8080aea1
	KVM_SET_DEBUGREGS   = 0x4080aea2
	KVM_SET_TSC_KHZ     = 0xaea2
	KVM_GET_TSC_KHZ     = 0xaea3
	KVM_ENABLE_CAP      = 0x4068aea3
	KVM_GET_XSAVE       = 0x9000aea4
	KVM_SET_XSAVE       = 0x5000aea5
	KVM_GET_XCRS        = 0x8188aea6
	KVM_SET_XCRS        = 0x4188aea7
	KVM_GET_XSAVE2      = 0x9000aecf
	KVM_SET_DEVICE_ATTR = 0x4018aee1
	KVM_GET_DEVICE_ATTR = 0x4018aee2
)

// apiVersion is the only value KVM_GET_API_VERSION has returned since 2.6.22.
const apiVersion = 12

// Cap is a capability number (linux/kvm.h, KVM_CAP_*).
type Cap uint32

const (
	KVM_CAP_TSC_CONTROL              Cap = 60
	KVM_CAP_IMMEDIATE_EXIT           Cap = 136
	KVM_CAP_EXCEPTION_PAYLOAD        Cap = 164
	KVM_CAP_X86_USER_SPACE_MSR       Cap = 188
	KVM_CAP_ENFORCE_PV_FEATURE_CPUID Cap = 190
	KVM_CAP_XSAVE2                   Cap = 208
)

// Argument of KVM_CAP_X86_USER_SPACE_MSR, and MSRExit.Reason.
const (
	KVM_MSR_EXIT_REASON_INVAL   = 1 << 0
	KVM_MSR_EXIT_REASON_UNKNOWN = 1 << 1
	KVM_MSR_EXIT_REASON_FILTER  = 1 << 2
)

// KVM_MP_STATE_RUNNABLE is the only state KVM accepts without an in-kernel
// irqchip; wait-for-SIPI and halted are kept by the APIC's side.
const KVM_MP_STATE_RUNNABLE = 0

// Flags of VCPUEvents that KVM_SET_VCPU_EVENTS honours.
const (
	KVM_VCPUEVENT_VALID_NMI_PENDING = 0x1
	KVM_VCPUEVENT_VALID_SHADOW      = 0x4
	KVM_VCPUEVENT_VALID_PAYLOAD     = 0x10
)

// KVM_CPUID_FLAG_SIGNIFCANT_INDEX (the header's spelling) marks an entry that
// answers for one sub-leaf only.
const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1

// Device attributes of a vCPU: the TSC offset.
const (
	KVM_VCPU_TSC_CTRL   = 0
	KVM_VCPU_TSC_OFFSET = 0
)

// ExitReason says why KVM_RUN returned (linux/kvm.h, KVM_EXIT_*).
type ExitReason uint32

const (
	KVM_EXIT_UNKNOWN         ExitReason = 0
	KVM_EXIT_EXCEPTION       ExitReason = 1
	KVM_EXIT_IO              ExitReason = 2
	KVM_EXIT_HYPERCALL       ExitReason = 3
	KVM_EXIT_DEBUG           ExitReason = 4
	KVM_EXIT_HLT             ExitReason = 5
	KVM_EXIT_MMIO            ExitReason = 6
	KVM_EXIT_IRQ_WINDOW_OPEN ExitReason = 7
	KVM_EXIT_SHUTDOWN        ExitReason = 8
	KVM_EXIT_FAIL_ENTRY      ExitReason = 9
	KVM_EXIT_INTR            ExitReason = 10
	KVM_EXIT_SET_TPR         ExitReason = 11
	KVM_EXIT_TPR_ACCESS      ExitReason = 12
	KVM_EXIT_NMI             ExitReason = 16
	KVM_EXIT_INTERNAL_ERROR  ExitReason = 17
	KVM_EXIT_SYSTEM_EVENT    ExitReason = 24
	KVM_EXIT_X86_RDMSR       ExitReason = 29
	KVM_EXIT_X86_WRMSR       ExitReason = 30
	KVM_EXIT_X86_BUS_LOCK    ExitReason = 33
	KVM_EXIT_NOTIFY          ExitReason = 37
	KVM_EXIT_MEMORY_FAULT    ExitReason = 39

	// ExitReasons bounds the numbers above: tables indexed by an ExitReason
	// have this many entries.
	ExitReasons = 64
)

var exitNames = map[ExitReason]string{
	KVM_EXIT_UNKNOWN:         "unknown",
	KVM_EXIT_EXCEPTION:       "exception",
	KVM_EXIT_IO:              "io",
	KVM_EXIT_HYPERCALL:       "hypercall",
	KVM_EXIT_DEBUG:           "debug",
	KVM_EXIT_HLT:             "hlt",
	KVM_EXIT_MMIO:            "mmio",
	KVM_EXIT_IRQ_WINDOW_OPEN: "irq window",
	KVM_EXIT_SHUTDOWN:        "shutdown",
	KVM_EXIT_FAIL_ENTRY:      "fail entry",
	KVM_EXIT_INTR:            "intr",
	KVM_EXIT_SET_TPR:         "set tpr",
	KVM_EXIT_TPR_ACCESS:      "tpr access",
	KVM_EXIT_NMI:             "nmi",
	KVM_EXIT_INTERNAL_ERROR:  "internal error",
	KVM_EXIT_SYSTEM_EVENT:    "system event",
	KVM_EXIT_X86_RDMSR:       "rdmsr",
	KVM_EXIT_X86_WRMSR:       "wrmsr",
	KVM_EXIT_X86_BUS_LOCK:    "bus lock",
	KVM_EXIT_NOTIFY:          "notify",
	KVM_EXIT_MEMORY_FAULT:    "memory fault",
}

// InternalErrorName says what a KVM_EXIT_INTERNAL_ERROR's suberror means.
func InternalErrorName(suberror uint32) string {
	switch suberror {
	case 1:
		return "instruction emulation failed"
	case 2:
		return "simultaneous exceptions"
	case 3:
		return "fault while delivering an event"
	case 4:
		return "unexpected hardware exit"
	}
	return "unknown"
}
