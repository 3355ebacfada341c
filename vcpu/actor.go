package vcpu

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm"
)

// request is something for the vCPU's thread to do between two KVM_RUNs.
type request struct {
	what string
	fn   func() error
	done chan error // has room for the answer
}

func newRequest(what string, fn func() error) request {
	return request{what: what, fn: fn, done: make(chan error, 1)}
}

// do has the thread carry out fn and waits for the answer.
func (v *VCPU) do(ctx context.Context, what string, fn func() error) error {
	ctx, cancel := v.vm.deadline(ctx)
	defer cancel()
	r := newRequest(what, fn)
	if err := v.post(ctx, r); err != nil {
		return err
	}
	return v.await(ctx, r)
}

// deadline limits a request to the VM's stop timeout.
func (m *VM) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, m.timeout, errTimeout(m.timeout))
}

// errTimeout says that the VM's own limit has passed.
type errTimeout time.Duration

func (e errTimeout) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(e)) }

// post queues a request and kicks the thread.
func (v *VCPU) post(ctx context.Context, r request) error {
	select {
	case v.requests <- r:
		v.Kick()
		return nil
	case <-v.finished:
		return v.errFinished()
	case <-ctx.Done():
		return v.stuck(ctx, r)
	}
}

// await waits for a posted request's answer.
func (v *VCPU) await(ctx context.Context, r request) error {
	select {
	case err := <-r.done:
		return v.wrap(r, err)
	case <-v.finished:
		// It may have been answered just before the end.
		select {
		case err := <-r.done:
			return v.wrap(r, err)
		default:
			return v.errFinished()
		}
	case <-ctx.Done():
		return v.stuck(ctx, r)
	}
}

func (v *VCPU) errFinished() error { return fmt.Errorf("%v: %w", v, ErrFinished) }

func (v *VCPU) stuck(ctx context.Context, r request) error {
	return &StuckError{VCPU: v.String(), What: r.what, Where: v.where(), Err: context.Cause(ctx)}
}

func (v *VCPU) wrap(r request, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%v: cannot %s: %w", v, r.what, err)
}

// where says where the thread is, for people.
func (v *VCPU) where() string {
	switch place(v.place.Load()) {
	case inGuest:
		return "inside KVM_RUN"
	case waiting:
		return "waiting for an interrupt"
	}
	return "in a device access"
}

// Kick makes the thread look at its APIC and its requests again. Any
// goroutine; on the vCPU's own thread it costs nothing.
//
// No kick is lost. The kicker, having stored what there is to see, swaps
// kicked and then reads place; the thread clears kicked, then looks, then
// stores place, then reads kicked, then enters. If the kicker read outside,
// its swap came before the thread's last read of kicked: the thread sees it,
// unless it cleared kicked after the swap, and then it looked after that. If
// the kicker read anything else, its signal ends the entry or the wait. If it
// found kicked set, an earlier kicker is at one of these points, and the
// thread's next look comes after.
func (v *VCPU) Kick() {
	if v.kicked.Swap(true) || place(v.place.Load()) == outside {
		v.counters.KicksMerged.Add(1)
		return
	}
	if v.stalled.Load() {
		return // Stall(false) sends it: it clears stalled, then reads kicked
	}
	v.signal()
}

// Stall holds back every signal to the vCPU's thread, or with false lets them
// through again, those that came meanwhile included. It is for whoever resolves
// page faults: a thread that waits for a page inside KVM's instruction emulator
// spins while a signal is pending, instead of sleeping until the page is there.
// Each Stall(true) must be followed by a Stall(false) once the page has come.
// Any goroutine; the thread need not really be waiting.
func (v *VCPU) Stall(stalled bool) {
	v.stalled.Store(stalled)
	// A timer that cannot be set has been deleted with its thread.
	_ = v.alarm.mute(stalled)
	if !stalled && v.kicked.Load() && place(v.place.Load()) != outside {
		v.signal()
	}
}

// signal sends the kick.
func (v *VCPU) signal() {
	v.counters.Kicks.Add(1)
	// The thread cannot be gone: it leaves with place outside, and should it
	// leave after the caller has read that, a number that has been given to
	// another thread of this process means one spurious wake-up there.
	if unix.Tgkill(unix.Getpid(), v.tid, kickSignal) == unix.EAGAIN {
		go v.signalLater()
	}
}

// signalLater sends the kick once the kernel takes it: the user's processes may
// have used up the signals that may be pending (RLIMIT_SIGPENDING), of which
// nobody tells when that is over.
func (v *VCPU) signalLater() {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		select {
		case <-v.finished:
			return
		case <-time.After(wait):
		}
		if unix.Tgkill(unix.Getpid(), v.tid, kickSignal) != unix.EAGAIN {
			return
		}
	}
}

// onNewThread runs f on a thread of its own, which ends with it. The process's
// main thread is never that thread: it cannot end, and would stay behind with
// the kick blocked.
func onNewThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f() // returns locked, so the thread ends
			return
		}
		defer runtime.UnlockOSThread()
		other := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(other)
			f()
		}()
		<-other
	}()
}

// thread is the actor. It reports on started and then serves until finished.
func (v *VCPU) thread(started chan<- error) {
	defer close(v.finished)
	defer v.vm.remove(v)
	defer v.shut()
	err := v.open()
	started <- err
	if err != nil {
		return
	}
	for {
		v.kicked.Store(false) // before looking: see Kick
		if !v.serve() {
			break
		}
		if err := v.round(); err != nil {
			v.stop(err)
		}
	}
	v.finalCPU.Store(int64(dsm.ThreadCPUTime(v.tid)))
}

// serve carries out the requests there are, and while the vCPU may not run
// waits for more. It returns false when the vCPU is finished.
func (v *VCPU) serve() bool {
	for {
		switch v.Phase() {
		case Finished:
			return false
		case Running, Waiting:
			select {
			case r := <-v.requests:
				r.done <- r.fn()
			default:
				return true
			}
		default:
			r := <-v.requests
			r.done <- r.fn()
		}
	}
}
