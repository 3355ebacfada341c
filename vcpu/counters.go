package vcpu

import (
	"sync/atomic"
	"time"

	"coalesce/dsm"
	"coalesce/vcpu/kvm"
)

// Counters says what a vCPU has done on this host since it was made. The
// vCPU's thread writes them; any goroutine may read.
type Counters struct {
	Exits       [kvm.ExitReasons]atomic.Uint64 // KVM_RUN returns, by reason
	Entries     atomic.Uint64                  // KVM_RUN calls
	Interrupted atomic.Uint64                  // KVM_RUN returns for a signal
	Waits       atomic.Uint64                  // times it waited halted or for a SIPI
	Kicks       atomic.Uint64                  // signals sent to the thread
	KicksMerged atomic.Uint64                  // kicks that needed no signal
	Interrupts  atomic.Uint64                  // vectors injected
	NMIs        atomic.Uint64                  // NMIs injected
	Windows     atomic.Uint64                  // entries that asked for an interrupt window
	UnknownMSRs atomic.Uint64                  // MSR exits outside the x2APIC's range
	Captures    atomic.Uint64
	Restores    atomic.Uint64
}

func (c *Counters) exit(r kvm.ExitReason) {
	if r < kvm.ExitReasons {
		c.Exits[r].Add(1)
	}
}

// Counters returns the vCPU's counters.
func (v *VCPU) Counters() *Counters { return &v.counters }

// CPUTime is how long the vCPU's thread has run on a host CPU, guest and
// exits together. Any goroutine.
func (v *VCPU) CPUTime() time.Duration {
	if v.Phase() == Finished {
		return time.Duration(v.finalCPU.Load())
	}
	return dsm.ThreadCPUTime(v.tid)
}
