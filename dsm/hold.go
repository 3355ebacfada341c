package dsm

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
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
// hold. The host's alarm tells of the first.
type holdQueue struct {
	host Host

	mu      mutex
	sorted  []deadline // the first one last
	stopped bool
}

type deadline struct {
	at   int64 // monotonic ns
	page uint32
}

// push schedules EvRelease for page. A page held beyond its hold, by a pin or
// the token, is released by that and only tried here.
func (q *holdQueue) push(at int64, page uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, _ := slices.BinarySearchFunc(q.sorted, at, func(d deadline, at int64) int { return cmp.Compare(at, d.at) })
	q.sorted = slices.Insert(q.sorted, i, deadline{at, page})
	if i == len(q.sorted)-1 {
		q.armLocked()
	}
}

// armLocked sets the alarm to the first deadline. mu must be held.
func (q *holdQueue) armLocked() {
	switch n := len(q.sorted); {
	case q.stopped:
		q.host.SetAlarm(1)
	case n > 0:
		q.host.SetAlarm(max(1, q.sorted[n-1].at-q.host.Now()))
	}
}

// due removes the pages whose hold has ended, as many as there is room for.
func (q *holdQueue) due(into []uint32) (pages []uint32, stopped bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t := q.host.Now()
	for n := len(q.sorted); n > 0 && q.sorted[n-1].at <= t && len(into) < cap(into); n-- {
		into = append(into, q.sorted[n-1].page)
		q.sorted = q.sorted[:n-1]
	}
	q.armLocked()
	return into, q.stopped
}

// expire ends all holds early: each is looked at again, and goes on if its page
// is still held.
func (q *holdQueue) expire() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.sorted) == 0 {
		return
	}
	for i := range q.sorted {
		q.sorted[i].at = 0
	}
	q.armLocked()
}

func (q *holdQueue) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	q.armLocked()
}

// serveHolds carries out deferred commands when their hold ends.
func (e *Engine) serveHolds() {
	LockServiceThread("holds")
	defer e.running.Done()
	for {
		if err := e.kernel.awaitAlarm(); err != nil {
			e.fail(fmt.Errorf("await the hold timer: %w", err))
			return
		}
		if stopped := e.releaseDue(); stopped {
			return
		}
		e.flush() // what was held together goes together
	}
}

// releaseDue looks at what is due, a batch of it; if there is more, the alarm is
// set. flush follows. It reports whether the session is over.
func (e *Engine) releaseDue() (stopped bool) {
	var room [64]uint32
	due, stopped := e.holds.due(room[:0])
	if stopped {
		return true
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
	return false
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
