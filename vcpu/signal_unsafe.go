package vcpu

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfo is the kernel's siginfo_t as far as the fields read here.
type siginfo struct {
	signo int32
	errno int32
	code  int32
	_     [128 - 12]byte
}

var (
	_ [unsafe.Sizeof(siginfo{}) - 128]byte
	_ [128 - unsafe.Sizeof(siginfo{})]byte
)

// codeTimer is SI_TIMER: sent by a POSIX timer.
const codeTimer = -2

// takeKick consumes one pending kick without waiting and says whether there
// was one and whether it was the timer's.
func takeKick() (taken, timer bool) {
	set := signalBit(kickSignal)
	var (
		info siginfo
		zero unix.Timespec
	)
	// It does not block, so the scheduler need not be told.
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)),
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&zero)), unsafe.Sizeof(set), 0, 0)
	return errno == 0, errno == 0 && info.code == codeTimer
}

// awaitKick waits until a kick is pending and consumes it. It may return
// early, without one (EINTR).
func awaitKick() (taken, timer bool) {
	set := signalBit(kickSignal)
	var info siginfo
	_, _, errno := syscall.Syscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(&set)),
		uintptr(unsafe.Pointer(&info)), 0, unsafe.Sizeof(set), 0, 0)
	return errno == 0, errno == 0 && info.code == codeTimer
}

// sigevent is the kernel's struct sigevent for SIGEV_THREAD_ID.
type sigevent struct {
	value  uint64
	signo  int32
	notify int32
	tid    int32
	_      [64 - 20]byte
}

var (
	_ [unsafe.Sizeof(sigevent{}) - 64]byte
	_ [64 - unsafe.Sizeof(sigevent{})]byte
)

const sigevThreadID = 4 // SIGEV_THREAD_ID

// alarm is a POSIX timer on CLOCK_MONOTONIC that kicks one thread. While it is
// muted it does not fire; what has become due meanwhile fires at the end.
type alarm struct {
	id int32

	mu    sync.Mutex
	armed int64 // absolute ns it was set to, 0 if it is not armed
	muted bool
}

// init makes the timer, which kicks the thread tid.
func (a *alarm) init(tid int) error {
	ev := sigevent{signo: kickSignal, notify: sigevThreadID, tid: int32(tid)}
	_, _, errno := syscall.RawSyscall(unix.SYS_TIMER_CREATE, unix.CLOCK_MONOTONIC,
		uintptr(unsafe.Pointer(&ev)), uintptr(unsafe.Pointer(&a.id)))
	if errno != 0 {
		return fmt.Errorf("timer_create: %w", errno)
	}
	return nil
}

// set arms the timer for an absolute CLOCK_MONOTONIC time in ns, in the past
// for at once, or disarms it with 0. Setting what is set costs nothing.
func (a *alarm) set(ns int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ns == a.armed {
		return nil
	}
	a.armed = ns
	if a.muted {
		return nil
	}
	return a.settimeLocked(ns)
}

// fired says that the timer has sent its signal.
func (a *alarm) fired() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = 0
}

// mute keeps the timer from firing, or lets it again. Any thread.
func (a *alarm) mute(muted bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.muted == muted {
		return nil
	}
	a.muted = muted
	switch {
	case a.armed == 0:
		return nil
	case muted:
		return a.settimeLocked(0)
	}
	return a.settimeLocked(a.armed)
}

// settimeLocked programs the kernel's timer. mu must be held.
func (a *alarm) settimeLocked(ns int64) error {
	const timerAbstime = 1
	var spec struct{ interval, value unix.Timespec }
	spec.value = unix.NsecToTimespec(ns)
	_, _, errno := syscall.RawSyscall6(unix.SYS_TIMER_SETTIME, uintptr(a.id), timerAbstime,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("timer_settime: %w", errno)
	}
	return nil
}

// delete frees the timer.
func (a *alarm) delete() {
	syscall.RawSyscall(unix.SYS_TIMER_DELETE, uintptr(a.id), 0, 0)
}

// threadName is a thread's name with its terminating zero (TASK_COMM_LEN).
type threadName [16]byte

// swapThreadName names the calling thread, which makes it recognisable in ps
// and top, and returns the name it had.
func swapThreadName(name threadName) (old threadName, err error) {
	if err := unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&old)), 0, 0, 0); err != nil {
		return old, fmt.Errorf("PR_GET_NAME: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name)), 0, 0, 0); err != nil {
		return old, fmt.Errorf("PR_SET_NAME: %w", err)
	}
	return old, nil
}
