package dsm

import (
	"sync/atomic"
)

// errands is what threads found to do while they had a region locked, and what
// needs other regions: it waits until one of them has nothing locked any more.
// Whoever adds an errand flushes when it is done, like one who adds a message.
type errands struct {
	pending atomic.Bool // there is something to do

	mu   mutex // a leaf
	list []errand
}

// An errand is either the end of a streak that held the token, or a Token message
// of this node to itself.
type errand struct {
	msg    Msg     // if thread is nil
	thread *Thread // gives the token back
	n      int     // of pages
	pages  [StreakMax]uint32
}

func (q *errands) add(x *errand) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.list = append(q.list, *x)
	q.pending.Store(true)
}

// take removes the oldest errand.
func (q *errands) take(x *errand) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return false
	}
	*x = q.list[0]
	q.list = q.list[:copy(q.list, q.list[1:])]
	q.pending.Store(len(q.list) > 0)
	return true
}

// runErrands does what there is to do, and what that adds. No lock may be held.
func (e *Engine) runErrands() {
	var x errand
	for e.errands.pending.Load() && e.errands.take(&x) {
		var err error
		if x.thread != nil {
			err = e.giveBack(x.thread, x.pages[:x.n])
		} else {
			err = e.tokenMessage(e.cfg.Self, x.msg)
		}
		if err != nil {
			e.fail(err)
		}
	}
}
