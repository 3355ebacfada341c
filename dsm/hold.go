package dsm

import (
	"container/heap"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// minimumHold says how long a page stays where it was installed (Mirage). What
// counts is what its vCPU has been able to do with it: a hold ends when the
// vCPU has run for some time with all it asked for, or halts. Time in which it
// waits for the next page of its working set does not count, or each page that
// it fetches would cost it the others; but one that waits longer than a transfer
// takes waits for somebody else's hold, and gives way. A wall-clock limit bounds
// it all. Both follow the time transfers take, with whatever load the hosts and
// the links have.
type minimumHold struct {
	fixed    int64        // ns, both limits if not 0
	transfer atomic.Int64 // ns, exponentially weighted mean
}

const (
	// patienceTransfers is how long a vCPU waits for a page before it no
	// longer holds others, in transfers.
	patienceTransfers = 2
	// limitTransfers bounds a hold, in transfers.
	limitTransfers = 24
	// maxHold bounds what a fellow node can be asked to wait, in ns.
	maxHold = 100_000_000
	// minTransfer is the least first guess of a transfer's time.
	minTransfer = 50 * time.Microsecond
	// transferWeight is the part of the mean that a sample replaces: 1/16.
	transferWeight = 16
)

// observe takes in how long a transfer took, in ns. One that took much longer
// than the others waited for something else, and counts as twice the mean.
func (h *minimumHold) observe(took int64) {
	mean := h.transfer.Load()
	took = min(took, 2*mean)
	h.transfer.Store(mean + (took-mean)/transferWeight)
}

// transfers returns the time of n transfers in ns.
func (h *minimumHold) transfers(n int64) int64 {
	if h.fixed != 0 {
		return h.fixed
	}
	return min(n*h.transfer.Load(), maxHold)
}

// limit is the longest hold, in ns of wall-clock time.
func (h *minimumHold) limit() int64 { return h.transfers(limitTransfers) }

// run is how long a vCPU may run before its pages go, in ns of its thread's CPU
// time: half of what it took to fetch one of them.
func (h *minimumHold) run() int64 { return h.transfers(1) / 2 }

// patience is how long a vCPU may wait for a page before it gives way, in ns.
func (h *minimumHold) patience() int64 { return h.transfers(patienceTransfers) }

// proof is how long a vCPU has to run to prove its progress, in ns of its
// thread's CPU time: more than it takes to come back from a fault and execute
// one instruction.
func (h *minimumHold) proof() uint64 { return uint64(h.transfers(1)) }

// recheck is the least time after which a held page is looked at again, in ns.
func (h *minimumHold) recheck() int64 { return max(h.transfers(1)/4, 20_000) }

// holdQueue orders the commands that a minimum hold delays by the end of the
// hold. A timerfd wakes its thread: Go's own timers round to milliseconds.
type holdQueue struct {
	fd int

	mu      sync.Mutex
	heap    deadlines
	stopped bool
}

type deadline struct {
	at   int64 // monotonic ns
	page uint32
}

type deadlines []deadline

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].at < d[j].at }
func (d deadlines) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *deadlines) Push(x any)        { *d = append(*d, x.(deadline)) }
func (d *deadlines) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}

func (q *holdQueue) init() error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create the hold timer: %w", os.NewSyscallError("timerfd_create", err))
	}
	q.fd = fd
	return nil
}

// push schedules EvRelease for page. A page held beyond its hold, by a pin or
// the token, is released by that and only tried here.
func (q *holdQueue) push(at int64, page uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	heap.Push(&q.heap, deadline{at, page})
	if q.heap[0].at == at {
		q.armLocked()
	}
}

// armLocked sets the timer to the first deadline. mu must be held.
func (q *holdQueue) armLocked() {
	in := int64(1)
	if !q.stopped {
		if len(q.heap) == 0 {
			return
		}
		in = max(1, q.heap[0].at-now())
	}
	// Fails for a bad descriptor or time only; both are ours.
	_ = unix.TimerfdSettime(q.fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(in)}, nil)
}

// due removes the pages whose hold has ended.
func (q *holdQueue) due(into []uint32) (pages []uint32, stopped bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := now()
	for len(q.heap) > 0 && q.heap[0].at <= t && len(into) < cap(into) {
		into = append(into, heap.Pop(&q.heap).(deadline).page)
	}
	q.armLocked()
	return into, q.stopped
}

// expire ends all holds early: each is looked at again, and goes on if its page
// is still held.
func (q *holdQueue) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.heap) == 0 {
		return
	}
	for i := range q.heap {
		q.heap[i].at = 0
	}
	q.armLocked()
}

func (q *holdQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.armLocked()
}

func (q *holdQueue) close() error { return unix.Close(q.fd) }

// serveHolds carries out deferred commands when their hold ends.
func (e *Engine) serveHolds() {
	LockServiceThread("holds")
	defer e.running.Done()
	var expirations [8]byte
	pages := make([]uint32, 0, 64)
	for {
		if _, err := unix.Read(e.holds.fd, expirations[:]); err != nil && err != unix.EINTR {
			e.fail(fmt.Errorf("read the hold timer: %w", err))
			return
		}
		due, stopped := e.holds.due(pages)
		if stopped {
			return
		}
		for _, page := range due {
			if page == tokenCheck {
				e.checkHolder()
				continue
			}
			if err := e.release(page); err != nil {
				e.fail(err)
			}
		}
		e.flush() // what was held together goes together
	}
}

// release carries out the command deferred for page, unless it is held still.
func (e *Engine) release(page uint32) error {
	r := e.region(page)
	r.mu.Lock()
	defer r.mu.Unlock()
	en := &r.entriesLocked(e.cfg.Self)[page%RegionPages]
	switch {
	case en.page.Deferred == Nothing:
		return nil
	case en.page.Pins > 0:
		return nil // the last Release carries it out
	case e.inHoldersStreak(page):
		return nil // the proof of progress does
	}
	if _, err := e.stepLocked(r, page, Event{Kind: EvRelease, Held: e.held(en, page)}, nil); err != nil {
		return err
	}
	return e.retryPinsLocked(r, page)
}
