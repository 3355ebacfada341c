package dsm

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// LockServiceThread locks the calling goroutine to its thread and puts that
// thread before the vCPUs': they wait for what it does, and one that spins in
// the guest for another node's write would otherwise use up the time that
// write needs to arrive. Without the right to (CAP_SYS_NICE) it only locks.
// Threads that it may create do not inherit the priority, and since the
// goroutine stays locked the thread ends with it.
func LockServiceThread() {
	runtime.LockOSThread()
	fifo := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1, Flags: unix.SCHED_FLAG_RESET_ON_FORK}
	if unix.SchedSetAttr(0, &fifo, 0) != nil {
		// The nearest an ordinary process may come, if it may.
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
	}
}
