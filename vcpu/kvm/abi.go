package kvm

// The kernel's structures (linux/kvm.h, asm/kvm.h). Their sizes are asserted
// in abi_unsafe.go. All of them are plain values: copying one copies it all.

// Regs is struct kvm_regs: the general registers.
type Regs struct {
	RAX, RBX, RCX, RDX uint64
	RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11   uint64
	R12, R13, R14, R15 uint64
	RIP, RFLAGS        uint64
}

// Segment is struct kvm_segment: a segment register with its hidden part.
type Segment struct {
	Base     uint64
	Limit    uint32
	Selector uint16
	Type     uint8
	Present  uint8
	DPL      uint8
	DB       uint8
	S        uint8
	L        uint8
	G        uint8
	AVL      uint8
	Unusable uint8
	_        uint8
}

// DTable is struct kvm_dtable: GDTR or IDTR.
type DTable struct {
	Base  uint64
	Limit uint16
	_     [3]uint16
}

// Sregs is struct kvm_sregs: segments, control registers, EFER.
type Sregs struct {
	CS, DS, ES, FS, GS, SS Segment
	TR, LDT                Segment
	GDT, IDT               DTable
	CR0, CR2, CR3, CR4     uint64
	CR8                    uint64
	EFER                   uint64
	APICBase               uint64
	InterruptBitmap        [4]uint64
}

// XCR is struct kvm_xcr.
type XCR struct {
	XCR   uint32
	_     uint32
	Value uint64
}

// XCRs is struct kvm_xcrs. N of the entries are in use.
type XCRs struct {
	N     uint32
	Flags uint32
	XCRs  [16]XCR
	_     [16]uint64
}

// DebugRegs is struct kvm_debugregs.
type DebugRegs struct {
	DB    [4]uint64
	DR6   uint64
	DR7   uint64
	Flags uint64
	_     [9]uint64
}

// VCPUEvents is struct kvm_vcpu_events: what is being delivered to the guest.
type VCPUEvents struct {
	Exception struct {
		Injected     uint8
		Nr           uint8
		HasErrorCode uint8
		Pending      uint8
		ErrorCode    uint32
	}
	Interrupt struct {
		Injected uint8
		Nr       uint8
		Soft     uint8
		Shadow   uint8
	}
	NMI struct {
		Injected uint8
		Pending  uint8
		Masked   uint8
		_        uint8
	}
	SIPIVector uint32
	Flags      uint32
	SMI        struct {
		SMM          uint8
		Pending      uint8
		SMMInsideNMI uint8
		LatchedInit  uint8
	}
	TripleFault         uint8
	_                   [26]uint8
	ExceptionHasPayload uint8
	ExceptionPayload    uint64
}

// MSR is struct kvm_msr_entry.
type MSR struct {
	Index uint32
	_     uint32
	Value uint64
}

// CPUIDEntry is struct kvm_cpuid_entry2: the answer to one CPUID leaf.
type CPUIDEntry struct {
	Function           uint32
	Index              uint32
	Flags              uint32
	EAX, EBX, ECX, EDX uint32
	_                  [3]uint32
}

type userspaceMemoryRegion struct {
	slot          uint32
	flags         uint32
	guestPhysAddr uint64
	memorySize    uint64
	userspaceAddr uint64
}

type enableCapArg struct {
	cap  uint32
	_    uint32 // flags
	args [4]uint64
	_    [64]byte
}

type deviceAttrArg struct {
	_     uint32 // flags
	group uint32
	attr  uint64
	addr  uint64
}

// signalMask is struct kvm_signal_mask with the kernel's 8-byte sigset. Go
// would align the set to 8, so it is two words.
type signalMask struct {
	len uint32
	set [2]uint32
}

// runPage is struct kvm_run up to the synchronised registers, which are not
// used.
type runPage struct {
	requestInterruptWindow     uint8
	immediateExit              uint8
	_                          [6]uint8
	exitReason                 uint32
	readyForInterruptInjection uint8
	ifFlag                     uint8
	flags                      uint16
	cr8                        uint64
	apicBase                   uint64
	exit                       [32]uint64 // the union
	validRegs                  uint64
	dirtyRegs                  uint64
	sync                       [2048]byte
}

// The members of kvm_run's union.
type (
	runIO struct {
		direction  uint8
		size       uint8
		port       uint16
		count      uint32
		dataOffset uint64
	}
	runMMIO struct {
		physAddr uint64
		data     [8]byte
		len      uint32
		isWrite  uint8
	}
	runMSR struct {
		error  uint8
		_      [7]uint8
		reason uint32
		index  uint32
		data   uint64
	}
	runFailEntry struct {
		hardwareReason uint64
		cpu            uint32
	}
	runInternal struct {
		suberror uint32
		ndata    uint32
		data     [16]uint64
	}
	runSystemEvent struct {
		typ   uint32
		ndata uint32
		data  [16]uint64
	}
	runMemoryFault struct {
		flags uint64
		gpa   uint64
		size  uint64
	}
)
