package dsm

import (
	"fmt"
	"sync/atomic"
)

// streaks is the node's side of forward progress: the streak of each vCPU, and
// on the client the token's queue.
type streaks struct {
	threads atomic.Pointer[[]*Thread]
	holding atomic.Pointer[Thread] // the vCPU here that has the token
	// checking: a tokenCheck is in the hold queue.
	checking atomic.Bool

	mu    mutex
	queue TokenQueue // on the client
}

// Thread is a vCPU's thread as the engine sees it.
type Thread struct {
	engine *Engine
	index  uint32 // of the vCPU on this node
	tid    uint32
	stall  func(bool)
	proofs atomic.Uint64 // completed exits of KVM_RUN
	idle   atomic.Bool   // the vCPU is halted
	// waiting is the page it waits for, or noPage; written with that page's
	// region locked.
	waiting  atomic.Uint32
	since    atomic.Int64  // when that wait began, in monotonic ns
	began    atomic.Uint64 // when its userfault was read, by the tracer's clock
	writes   atomic.Bool   // it waits to write
	installs atomic.Uint64 // pages installed for it

	// The fault reader alone uses these.
	lastMiss uint32 // page it was last expected to need; noPage before the first
	streams  streams

	mu     mutex // below a region's
	streak Streak
	seen   uint64 // proofs the streak knows of
	faults uint64 // pages faulted on

	// Its CPU time when faults was faultMark.
	cpuMark, faultMark uint64
	// Its CPU time when it was first asked for a page after installMark pages
	// had been installed for it.
	runMark, installMark uint64
	// What needs answered, and when.
	needed, neededAt int64
}

// AddThread makes a vCPU's thread known by its kernel thread id, before it
// runs. Faults of other threads belong to no streak. stall, which may be nil, is
// told when the thread begins to wait for a page of another node and when that
// has come: signals had better spare it in between (see vcpu.VCPU.Stall).
func (e *Engine) AddThread(tid int, stall func(bool)) *Thread {
	e.streaks.mu.Lock()
	defer e.streaks.mu.Unlock()
	var list []*Thread
	if old := e.streaks.threads.Load(); old != nil {
		list = append(list, *old...)
	}
	t := &Thread{engine: e, index: uint32(len(list)), tid: uint32(tid), lastMiss: noPage, stall: stall}
	t.waiting.Store(noPage)
	list = append(list, t)
	e.streaks.threads.Store(&list)
	return t
}

func (e *Engine) threadOf(tid uint32) *Thread {
	list := e.streaks.threads.Load()
	if list == nil {
		return nil
	}
	for _, t := range *list {
		if t.tid == tid {
			return t
		}
	}
	return nil
}

// awaitPage records that the thread sleeps until page comes, since its userfault
// was read at a time of the tracer's clock. The page's region is locked.
func (t *Thread) awaitPage(page uint32, write bool, began uint64) {
	if began != 0 && t.waiting.Load() != page {
		t.began.Store(began)
		t.writes.Store(write)
	}
	if t.waiting.Swap(page) != page {
		t.since.Store(t.engine.host.Now())
	}
	if t.stall == nil {
		return
	}
	t.stall(true)
	if t.engine.Err() != nil {
		t.stall(false) // fail may have looked before, or told it before us
	}
}

// needs returns for how long, in ns, the thread will need what was fetched for
// it, at least; 0 if it does not. It does unless it is halted, kept waiting by
// others, or has run for long enough with all its pages in place. See
// minimumHold. The pages of a working set are asked for together, so an answer
// is good for the next few of them.
func (t *Thread) needs(at int64) int64 {
	h := &t.engine.hold
	switch {
	case t.idle.Load():
		return 0
	case t.waiting.Load() != noPage:
		return max(0, t.since.Load()+h.patience()-at)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.installs.Load()
	if n == t.installMark && at < t.neededAt+h.run()/4 {
		return t.needed
	}
	cpu := t.cpuTime()
	if n != t.installMark {
		t.installMark, t.runMark = n, cpu
	}
	t.neededAt, t.needed = at, max(0, h.run()-int64(cpu-t.runMark))
	return t.needed
}

// arrived ends the wait of every thread for page; noPage stands for all pages.
func (e *Engine) arrived(page uint32) {
	list := e.streaks.threads.Load()
	if list == nil {
		return
	}
	for _, t := range *list {
		waits := t.waiting.Load()
		if waits == noPage || page != noPage && waits != page {
			continue
		}
		began, write := t.began.Load(), t.writes.Load()
		if !t.waiting.CompareAndSwap(waits, noPage) {
			continue // it waits for another page already
		}
		if e.cfg.Tracer != nil && page != noPage {
			e.cfg.Tracer.Fault(t.index, e.host.GPA(page), write, false, began)
		}
		if t.stall != nil {
			t.stall(false)
		}
	}
}

// Proof records that KVM_RUN returned with a completed exit: the vCPU made
// progress. It is called on the vCPU's thread at every exit and is one atomic
// addition unless the vCPU holds the token.
func (t *Thread) Proof() {
	t.proofs.Add(1)
	if t.engine.streaks.holding.Load() == t {
		t.prove()
	}
}

// Idle records that the vCPU halts, or runs again. While it is halted it needs
// no page, so nothing is held for it. It is called on the vCPU's thread.
func (t *Thread) Idle(idle bool) {
	t.idle.Store(idle)
	if idle {
		t.engine.holds.expire()
	}
}

// prove ends the streak and gives the token back if the vCPU holds it.
func (t *Thread) prove() {
	var pages [StreakMax]uint32
	t.mu.Lock()
	n := copy(pages[:], t.streak.Pages())
	t.seen = t.proofs.Load()
	release := t.streak.Proof()
	t.mu.Unlock()
	if !release {
		return
	}
	if err := t.engine.giveBack(t, pages[:n]); err != nil {
		t.engine.fail(err)
	}
	t.engine.flush()
}

// giveBack returns the token and carries out what the streak delayed. No lock
// may be held; flush follows.
func (e *Engine) giveBack(t *Thread, pages []uint32) error {
	e.streaks.holding.CompareAndSwap(t, nil)
	for _, p := range pages {
		if err := e.release(p); err != nil {
			return err
		}
	}
	return e.sendToken(0, TokenRelease, t.index)
}

// faulted adds a page to a vCPU's streak, first ending one that a proof or its
// length has ended. It reports whether the vCPU holds the token. The page's
// region is locked, so a release that the end of a streak owes is handed over.
func (e *Engine) faulted(t *Thread, page uint32) (token bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.faults++
	if proofs := t.proofs.Load(); proofs != t.seen {
		t.seen = proofs
		e.endStreakLocked(t)
	}
	again, full := t.streak.Fault(page)
	if full || again && t.ranLocked() {
		e.endStreakLocked(t)
		again, _ = t.streak.Fault(page)
	}
	if again && t.streak.Robbed() {
		e.stats.tokenRequests.Add(1)
		if err := e.sendToken(0, TokenReq, t.index); err != nil {
			e.fail(err)
		}
	}
	return t.streak.Holding()
}

// endStreakLocked records a proof of progress. t.mu must be held.
func (e *Engine) endStreakLocked(t *Thread) {
	if !t.streak.Holding() {
		t.streak.Proof() // nothing to give back: no copy of the pages on the fault path
		return
	}
	x := errand{thread: t}
	x.n = copy(x.pages[:], t.streak.Pages())
	t.streak.Proof()
	e.errands.add(&x)
}

// ranLocked reports whether the thread has used the processor for the time of
// a hold since this was last asked, which is another proof of progress. Time
// that it spent on faults counts too, so it is asked of a page that comes back
// only. t.mu must be held.
func (t *Thread) ranLocked() bool {
	cpu := t.cpuTime()
	ran := cpu-t.cpuMark >= t.engine.hold.proof()
	t.cpuMark, t.faultMark = cpu, t.faults
	return ran
}

// maxVCPUs bounds the vCPUs of a node.
const maxVCPUs = 256

// noPage is no page index.
const noPage = ^uint32(0)

// inHoldersStreak reports whether the page may not leave before the token's
// holder, a vCPU of this node, has made progress.
func (e *Engine) inHoldersStreak(page uint32) bool {
	t := e.streaks.holding.Load()
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streak.Holding() && t.seen == t.proofs.Load() && t.streak.Open(page)
}

// sendToken sends a Token message; flush follows. Regions may be locked, so one
// to this node itself becomes an errand.
func (e *Engine) sendToken(to NodeID, k Kind, vcpu uint32) error {
	m := Msg{Kind: k, Page: vcpu}
	if to == e.cfg.Self {
		e.errands.add(&errand{msg: m})
		return nil
	}
	return e.send(to, &m)
}

// tokenMessage handles a message about the progress token.
func (e *Engine) tokenMessage(from NodeID, m Msg) error {
	w := Waiter{Node: from, VCPU: m.Page}
	switch {
	case m.Kind == TokenGrant && from == 0:
		return e.tokenGranted(m.Page)
	case m.Kind == TokenGrant || e.cfg.Self != 0:
		return &ViolationError{e.cfg.Self, from, m, "the client alone grants the token"}
	case m.Page >= maxVCPUs:
		return &ViolationError{e.cfg.Self, from, m, "a node has no such vCPU"}
	}
	e.streaks.mu.Lock()
	next, ok := Waiter{}, false
	if m.Kind == TokenReq {
		next, ok = e.streaks.queue.Request(w)
	} else {
		next, ok = e.streaks.queue.Release(w)
	}
	e.streaks.mu.Unlock()
	if !ok {
		return nil
	}
	e.stats.tokenGrants.Add(1)
	return e.sendToken(next.Node, TokenGrant, next.VCPU)
}

// tokenGranted gives the token to a vCPU of this node.
func (e *Engine) tokenGranted(vcpu uint32) error {
	list := e.streaks.threads.Load()
	if list == nil || vcpu >= uint32(len(*list)) {
		return fmt.Errorf("progress token granted to vCPU %d, which is not here", vcpu)
	}
	t := (*list)[vcpu]
	t.mu.Lock()
	if t.seen != t.proofs.Load() {
		t.seen = t.proofs.Load()
		t.streak.Proof()
	}
	release := t.streak.Granted()
	page, waits := t.streak.Last()
	if !release {
		t.cpuMark, t.faultMark = t.cpuTime(), t.faults
		e.streaks.holding.Store(t)
	}
	unseen := t.seen != t.proofs.Load() // a proof that came before holding was set
	t.mu.Unlock()
	switch {
	case release:
		return e.sendToken(0, TokenRelease, vcpu)
	case unseen:
		t.prove()
		return nil
	}
	e.watchHolder()
	if !waits {
		return nil
	}
	r := e.region(page)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !e.inHoldersStreak(page) {
		return nil // it proved its progress meanwhile: its next request goes behind the others'
	}
	if err := e.armLocked(r); err != nil {
		return err
	}
	_, err := e.stepLocked(r, page, Event{Kind: EvPromote}, nil)
	return err
}

// tokenCheck stands for a page in the hold queue: look whether the token's
// holder proved its progress by using the processor.
const tokenCheck = noPage

// checkHolder takes the token from a vCPU here that has run for the time of a
// hold without a fault: whatever instruction needed the pages is complete. So it
// is if the vCPU halts: what made a streak of it was a userfault that came late.
func (e *Engine) checkHolder() {
	e.streaks.checking.Store(false)
	t := e.streaks.holding.Load()
	if t == nil {
		return
	}
	t.mu.Lock()
	cpu := t.cpuTime()
	proven := t.idle.Load() || t.faults == t.faultMark && cpu-t.cpuMark >= e.hold.proof()
	if t.faults != t.faultMark {
		t.faultMark, t.cpuMark = t.faults, cpu
	}
	t.mu.Unlock()
	if proven {
		t.prove()
		return
	}
	e.watchHolder()
}

// watchHolder has checkHolder run before long, once. A fixed hold may be far
// shorter than the pages take that the holder waits for.
func (e *Engine) watchHolder() {
	if e.streaks.checking.CompareAndSwap(false, true) {
		e.holds.push(e.host.Now()+max(int64(e.hold.proof()), e.hold.transfer.Load()), tokenCheck)
	}
}

// cpuTime returns the CPU time of the vCPU's thread in ns, 0 once it is gone.
func (t *Thread) cpuTime() uint64 { return t.engine.host.CPUTime(t.tid) }
