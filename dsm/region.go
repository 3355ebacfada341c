package dsm

import (
	"fmt"

	"coalesce/dsm/uffd"
)

// region is 2 MiB of guest memory on this node.
type region struct {
	first uint32 // page index
	home  NodeID

	mu    mutex
	armed bool                // registered with userfaultfd
	pages *[RegionPages]entry // nil until a page leaves its first state
	pins  []*pinWaiter        // parked until their page can be had
	moved int64               // when a page last came here or became writable, in monotonic ns; 0 if none did
}

// scratch is what a step needs, so that it never allocates. A region is too
// small a thing to have one of its own.
type scratch struct {
	out  Actions
	self [MaxNodes + 8]Msg // messages of this node to itself
	todo int
	// delayed: the message at hand has FlagDelayed.
	delayed bool
}

// entry is all this node knows about one page.
type entry struct {
	page Page
	dir  Dir // meaningful at the home
	// heldUntil is the limit of the minimum hold, in monotonic ns.
	heldUntil int64
	// requested is when the outstanding request was sent, in monotonic ns.
	requested int64
	thread    *Thread // the vCPU that faulted on it last
	traffic   traffic
	follower  follower
	habit     habit
	ahead     ahead
	lineage   Lineage
	twin      int32 // slot of its twin, if that is this page's still
	returned  bool  // it was made writable here before
}

// entries returns the pages' states, made on first use. mu must be held.
func (r *region) entriesLocked(self NodeID) *[RegionPages]entry {
	if r.pages == nil {
		r.pages = new([RegionPages]entry)
		for i := range r.pages {
			r.pages[i].dir = NewDir(r.home)
			if r.home == self {
				r.pages[i].lineage.Dirty = true
				r.pages[i].page.Access = Modified
			}
		}
	}
	return r.pages
}

// armLocked registers a region that was ordinary memory so far, since another
// node asks for a page of it. mu must be held.
func (e *Engine) armLocked(r *region) error {
	if r.armed {
		return nil
	}
	if err := e.host.Register(r.first, RegionPages); err != nil {
		return fmt.Errorf("register region %#x with userfaultfd: %w", r.first, err)
	}
	r.armed = true
	e.stats.regionsArmed.Add(1)
	return nil
}

// stepLocked feeds one event to the protocol and carries out what it asks for,
// including the messages it sends to this node itself. c is the content of a
// Data message. It reports whether an EvPin was granted. r.mu must be held.
// It may not block and does not allocate once the region has entries.
func (e *Engine) stepLocked(r *region, page uint32, ev Event, c *content) (pinned bool, err error) {
	en := &r.entriesLocked(e.cfg.Self)[page%RegionPages]
	node := Node{Self: e.cfg.Self, Home: r.home, Interval: e.interval.Load()}
	var dir *Dir
	if r.home == e.cfg.Self {
		dir = &en.dir
	}
	ev.Msg.Page = page
	s := e.scratches.Get().(*scratch)
	defer e.scratches.Put(s)
	s.todo = 0
	s.delayed = ev.Msg.Flags&FlagDelayed != 0
	for done := 0; ; done++ {
		wanted := en.page.Want
		s.out.Reset()
		if err := Step(node, &en.page, dir, ev, &s.out); err != nil {
			return false, err
		}
		if wanted == WantNothing && en.page.Want != WantNothing {
			en.requested = e.host.Now()
		}
		for _, a := range s.out.All() {
			if a.Op == OpPinned {
				pinned = true
				continue
			}
			if err := e.perform(r, s, en, page, a, ev.From, c); err != nil {
				return false, err
			}
		}
		if done == s.todo {
			break
		}
		m := s.self[done]
		if done+1 == s.todo {
			// All before it are handled: however many follow one another, few
			// are outstanding at once.
			s.todo, done = 0, -1
		}
		ev = Event{Kind: EvMessage, From: e.cfg.Self, Msg: m, Held: e.held(en, page)}
	}
	return pinned, nil
}

// perform carries out one action of a message from a node. The region's mu is held.
func (e *Engine) perform(r *region, s *scratch, en *entry, page uint32, a Action, from NodeID, c *content) error {
	switch a.Op {
	case OpSend:
		if a.To == e.cfg.Self {
			s.self[s.todo] = a.Msg
			s.todo++
			return nil
		}
		if a.Msg.Kind == Data {
			return e.sendData(a.To, &a.Msg, en)
		}
		return e.send(a.To, &a.Msg)
	case OpInstall:
		if err := c.apply(e.host.Alias(page, 1), en.lineage.Version); err != nil {
			return err
		}
		en.lineage.Fetched(from, e.cfg.Self, c.version, c.holders)
		if a.Writable {
			e.writable(en, page)
		}
		e.installed(en, s.delayed)
		if a.Writable {
			e.moved(r, en, &en.traffic.writes)
		} else {
			e.moved(r, en, &en.traffic.reads)
		}
		en.habit.installed(a.Writable)
		e.stats.pagesIn.Add(1)
		var err error
		if !en.ahead.mark { // nobody waits for a mark, and the first who needs it is to fault
			err = e.mapPage(page, a.Writable)
		}
		if e.cfg.Tracer != nil {
			e.cfg.Tracer.PageReceived(from, c.number, e.host.GPA(page), len(c.body), a.Writable, c.came)
		}
		e.arrived(page)
		return err
	case OpUpgrade:
		e.writable(en, page)
		e.installed(en, true)
		e.moved(r, en, &en.traffic.upgrades)
		en.habit.upgraded()
		e.stats.upgrades.Add(1)
		err := e.host.Unprotect(page, 1)
		e.arrived(page)
		return e.wrap("lift the write protection of", page, err)
	case OpResolve:
		e.stats.faultsLocal.Add(1)
		if a.Writable {
			return e.mapAround(r, page)
		}
		return e.mapPage(page, false)
	case OpProtect:
		e.stats.downgrades.Add(1)
		return e.wrap("write-protect", page, e.host.WriteProtect(page, 1))
	case OpZap:
		e.stats.invalidations.Add(1)
		en.habit.left()
		en.ahead.left(e.host.Now(), e.hold.transfer.Load())
		en.traffic.left++
		return e.wrap("unmap", page, e.host.Zap(page, 1))
	case OpDefer:
		e.stats.deferred.Add(1)
		e.holds.push(e.recheckAt(en), page)
	}
	return nil
}

func (e *Engine) wrap(what string, page uint32, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s guest page %#x: %w", what, e.host.GPA(page), err)
}

// writable prepares for a page to be written from now on: what its content
// becomes is told from what it was. A page that comes for the first time may
// well never leave again, and has no twin.
func (e *Engine) writable(en *entry, page uint32) {
	en.lineage.Dirty = true
	if en.returned {
		en.twin = e.twins.take(page, en.twin, e.host.Alias(page, 1))
	}
	en.returned = true
}

// installed starts the minimum hold of a page that was waited for. delayed says
// that its coming took longer than the transfer.
func (e *Engine) installed(en *entry, delayed bool) {
	t := e.host.Now()
	took := t - en.requested
	ahead, waited := e.prefetch.arrived(&en.ahead, t, took, e.hold.transfer.Load())
	if !waited {
		en.heldUntil = 0
		return
	}
	e.stats.latency.record(took)
	if !delayed && !ahead && e.prefetch.inFlight.Load() == 0 {
		e.hold.observe(took)
	}
	en.heldUntil = t + e.hold.limit()
	if en.thread != nil {
		en.thread.installs.Add(1)
	}
}

// held reports whether a command of the home has to wait: whoever fetched the
// page could not make use of it yet, or it belongs to the streak of the token's
// holder.
func (e *Engine) held(en *entry, page uint32) bool {
	t := e.host.Now()
	if t < en.heldUntil && en.thread != nil && en.thread.needs(t) > 0 {
		return true
	}
	return e.inHoldersStreak(page)
}

// recheckAt is when a held page is to be looked at again.
func (e *Engine) recheckAt(en *entry) int64 {
	t := e.host.Now()
	wait := e.hold.recheck()
	if en.thread != nil {
		wait = max(wait, en.thread.needs(t))
	}
	return min(en.heldUntil, t+wait)
}

// mapPage maps a page whose content the alias holds and wakes its waiters.
func (e *Engine) mapPage(page uint32, writable bool) error {
	for {
		_, err := e.host.Continue(page, 1, !writable)
		switch err {
		case nil:
			return nil
		case uffd.ErrPartial:
			continue // the address space is changing
		case uffd.ErrPresent:
			// The kernel woke nobody (rule 2).
			return e.rouse(page, writable)
		default:
			return e.wrap("map", page, err)
		}
	}
}

// rouse wakes the waiters of a page that is mapped.
func (e *Engine) rouse(page uint32, writable bool) error {
	if writable {
		return e.wrap("lift the write protection of", page, e.host.Unprotect(page, 1))
	}
	return e.wrap("wake the waiters of", page, e.host.Wake(page, 1))
}

// faultAround is how many pages one local fault maps, when all of them are
// this node's alone; a power of two.
const faultAround = 16

// mapAround maps a page this node alone holds, with the neighbours in its
// block of which that is true too: they cost a fraction of a fault each.
func (e *Engine) mapAround(r *region, page uint32) error {
	block := page &^ (faultAround - 1)
	first, last := page, page
	exclusive := func(p uint32) bool {
		return r.pages[p%RegionPages].page.Access == Modified
	}
	for first > block && exclusive(first-1) {
		first--
	}
	for last+1 < block+faultAround && exclusive(last+1) {
		last++
	}
	if err := e.host.PopulateAlias(first, int(last-first+1)); err != nil {
		return e.wrap("populate", first, err)
	}
	for p := first; p <= last; {
		n, err := e.host.Continue(p, int(last-p+1), false)
		switch err {
		case nil, uffd.ErrPartial:
		case uffd.ErrPresent:
			if p == page {
				// The others have no waiter that this fault stands for.
				if err := e.rouse(p, true); err != nil {
					return err
				}
			}
			n = 1
		default:
			return e.wrap("map", p, err)
		}
		p += uint32(n)
	}
	return nil
}
