package dsm

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// servicePriority is the nice value of service threads.
const servicePriority = -15

// LockServiceThread locks the calling goroutine to its thread, names the thread
// (at most 15 bytes show) and puts it before the vCPUs': they wait for what it
// does, and one that spins in the guest for another node's write would
// otherwise use up the time that write needs to arrive. Without the right to
// (CAP_SYS_NICE) the priority stays as it is. The goroutine stays locked, so the
// thread ends with it.
//
// A real-time policy would do more and be wrong: the Go runtime waits for its
// own ordinary threads by spinning, which such a thread never gives way to.
func LockServiceThread(name string) {
	runtime.LockOSThread()
	// Only a name: nothing depends on it.
	_ = os.WriteFile("/proc/thread-self/comm", []byte(name), 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, servicePriority)
}

// ThreadCPUTime is how long a thread of this process has run, 0 once it is gone. It
// reads the CPU-time clock whose id is made from the thread's (the kernel's
// MAKE_THREAD_CPUCLOCK with CPUCLOCK_SCHED, include/linux/posix-timers.h).
func ThreadCPUTime(tid int) time.Duration {
	const perThread, sched = 4, 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid<<3|perThread|sched), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
