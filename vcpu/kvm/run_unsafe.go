package kvm

import (
	"fmt"
	"unsafe"
)

// runPageSize is the part of the shared mapping that runPage describes.
const runPageSize = int(unsafe.Sizeof(runPage{}))

// Run is a vCPU's kvm_run page, shared with the kernel. All of it belongs to
// the thread that calls Enter, and only between two calls. What the exit
// accessors return is valid when ExitReason is theirs.
type Run struct {
	p   *runPage
	mem []byte
}

func newRun(mem []byte) Run {
	return Run{p: (*runPage)(unsafe.Pointer(unsafe.SliceData(mem))), mem: mem}
}

// exitAs views the union as one of its members.
func exitAs[T any](r Run) *T { return (*T)(unsafe.Pointer(&r.p.exit)) }

// ExitReason says why Enter returned.
func (r Run) ExitReason() ExitReason { return ExitReason(r.p.exitReason) }

// String names an exit reason as in linux/kvm.h, lower case.
func (e ExitReason) String() string {
	if s, ok := exitNames[e]; ok {
		return s
	}
	return fmt.Sprintf("exit %d", uint32(e))
}

// IFFlag is the guest's RFLAGS.IF at the last exit.
func (r Run) IFFlag() bool { return r.p.ifFlag != 0 }

// ReadyForInterruptInjection says that KVM_INTERRUPT would be delivered at
// once, as of the last exit.
func (r Run) ReadyForInterruptInjection() bool { return r.p.readyForInterruptInjection != 0 }

// RequestInterruptWindow asks for an exit as soon as the guest can take an
// interrupt.
func (r Run) RequestInterruptWindow(on bool) { r.p.requestInterruptWindow = bit(on) }

// SetImmediateExit makes the next Enter finish the pending I/O instruction,
// if any, and return interrupted without running the guest.
func (r Run) SetImmediateExit(on bool) { r.p.immediateExit = bit(on) }

// CR8 is the guest's CR8 (APIC TPR bits 7:4) at the last exit.
func (r Run) CR8() uint64 { return r.p.cr8 }

// SetCR8 is taken over by the next Enter.
func (r Run) SetCR8(v uint64) { r.p.cr8 = v }

// APICBase is the guest's IA32_APIC_BASE at the last exit.
func (r Run) APICBase() uint64 { return r.p.apicBase }

// IOExit is KVM_EXIT_IO: count accesses of size bytes each at port.
type IOExit struct {
	Port  uint16
	Size  int // 1, 2 or 4
	Count int
	Out   bool
	Data  []byte // Size*Count bytes inside the shared page
}

// IO describes the port access. An error means that the kernel's numbers
// point outside the shared page.
func (r Run) IO() (IOExit, error) {
	x := exitAs[runIO](r)
	n := uint64(x.size) * uint64(x.count)
	if x.dataOffset > uint64(len(r.mem)) || n > uint64(len(r.mem))-x.dataOffset {
		return IOExit{}, fmt.Errorf("KVM_EXIT_IO: %d bytes at offset %#x of a mapping of %#x", n, x.dataOffset, len(r.mem))
	}
	return IOExit{
		Port: x.port, Size: int(x.size), Count: int(x.count), Out: x.direction != 0,
		Data: r.mem[x.dataOffset : x.dataOffset+n : x.dataOffset+n],
	}, nil
}

// MMIOExit is KVM_EXIT_MMIO: an access to memory that no slot covers.
type MMIOExit struct {
	GPA   uint64
	Write bool
	Data  []byte // 1 to 8 bytes inside the shared page
}

// MMIO describes the memory access.
func (r Run) MMIO() MMIOExit {
	x := exitAs[runMMIO](r)
	return MMIOExit{GPA: x.physAddr, Write: x.isWrite != 0, Data: x.data[:min(x.len, 8)]}
}

// MSRExit is KVM_EXIT_X86_RDMSR or KVM_EXIT_X86_WRMSR.
type MSRExit struct {
	Index  uint32
	Reason uint32 // KVM_MSR_EXIT_REASON_*
	Value  uint64 // what the guest writes
}

// MSR describes the MSR access.
func (r Run) MSR() MSRExit {
	x := exitAs[runMSR](r)
	return MSRExit{Index: x.index, Reason: x.reason, Value: x.data}
}

// CompleteMSR answers it: the value read, or #GP for the guest.
func (r Run) CompleteMSR(value uint64, gp bool) {
	x := exitAs[runMSR](r)
	x.data, x.error = value, bit(gp)
}

// FailEntry returns the hardware's reason of a KVM_EXIT_FAIL_ENTRY and the
// host CPU it happened on.
func (r Run) FailEntry() (reason uint64, cpu uint32) {
	x := exitAs[runFailEntry](r)
	return x.hardwareReason, x.cpu
}

// InternalError returns a KVM_EXIT_INTERNAL_ERROR's cause (InternalErrorName)
// and KVM's notes on it, inside the shared page.
func (r Run) InternalError() (suberror uint32, data []uint64) {
	x := exitAs[runInternal](r)
	return x.suberror, x.data[:min(x.ndata, 16)]
}

// SystemEvent returns a KVM_EXIT_SYSTEM_EVENT's type and data.
func (r Run) SystemEvent() (typ uint32, data []uint64) {
	x := exitAs[runSystemEvent](r)
	return x.typ, x.data[:min(x.ndata, 16)]
}

// HardwareExitReason is what the processor said in a KVM_EXIT_UNKNOWN.
func (r Run) HardwareExitReason() uint64 { return r.p.exit[0] }

// MemoryFault is a KVM_EXIT_MEMORY_FAULT, which comes with EFAULT.
type MemoryFault struct{ Flags, GPA, Size uint64 }

// MemoryFault describes where KVM could not get at guest memory.
func (r Run) MemoryFault() MemoryFault {
	x := exitAs[runMemoryFault](r)
	return MemoryFault{Flags: x.flags, GPA: x.gpa, Size: x.size}
}

func bit(on bool) uint8 {
	if on {
		return 1
	}
	return 0
}
