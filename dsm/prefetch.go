package dsm

import "sync/atomic"

// prefetch bounds what is asked for ahead of the vCPUs of this node, on all links
// together. A page that somebody waits for comes behind what was asked for before
// it on the same connection, so that must not be much. The bound grows while it
// is in the way and pages come in time, and shrinks when they come so late that
// they must have waited for each other.
type prefetch struct {
	off      atomic.Bool
	inFlight atomic.Int32 // pages asked for ahead that have not come
	limit    atomic.Int32 // of inFlight
	cutAt    atomic.Int64 // when limit was last made smaller, in monotonic ns
}

const (
	minAhead   = 8
	firstAhead = 32
	maxAhead   = 1024 // pages: 4 MiB
	// aheadDelay is how much longer than a transfer a page that was asked for
	// ahead may take because of others before it, in ns; or half a transfer, if
	// that is more.
	aheadDelay = 1_000_000
	// spoiltTransfers is how soon after it came a page is taken away that another
	// node is at work on, in transfers.
	spoiltTransfers = 4
	maxSpoilt       = 4
)

// aheadState is the progress of a page that is asked for ahead.
//
//	                          a fault
//	         ┌──────► asked ──────────► waited for
//	         │          │                  │
//	none ────┘          ▼ it comes         ▼ it comes
//	  ▲               came               none
//	  └─────────────────┘ it goes, is missed or written
type aheadState uint8

const (
	aheadNone   aheadState = iota
	aheadAsked             // on its way; nobody waits for it
	aheadWaited            // on its way; somebody does
	aheadCame              // nobody waited: no hold
)

// ahead is what a page's entry knows about prefetches of it.
type ahead struct {
	state aheadState
	// mark: the page is a stream's mark; it is not mapped until it is used.
	mark bool
	// spoilt counts how often it was taken away again before it can have been of
	// much use, less the times it was missed: another node writes it.
	spoilt uint8
	came   int64 // when it came, in monotonic ns
}

// Prefetch has pages be asked for ahead of vCPUs that read through memory, or
// not any more; it is so from the start. Any goroutine.
func (e *Engine) Prefetch(on bool) { e.prefetch.off.Store(!on) }

// Ahead returns how many pages are on their way that were asked for ahead. Any
// goroutine.
func (e *Engine) Ahead() int { return int(e.prefetch.inFlight.Load()) }

// fault takes in that somebody needs the page now. It reports whether that is the
// first use of a mark. The page's region is locked.
func (a *ahead) fault() (mark, waited bool) {
	mark, waited = a.mark, a.state == aheadAsked
	a.mark = false
	if waited {
		a.state = aheadWaited
	}
	return mark, waited
}

// arrived takes in that the page came at a time, took ns after it was asked for.
// It reports whether it was asked for ahead, and whether somebody waits for it.
func (p *prefetch) arrived(a *ahead, at, took, transfer int64) (ahead, waited bool) {
	switch a.state {
	case aheadAsked:
		a.state, a.came = aheadCame, at
		n := p.inFlight.Add(-1)
		switch limit := p.limit.Load(); {
		case took > transfer+max(transfer/2, aheadDelay):
			if cut := p.cutAt.Load(); at-cut > took && p.cutAt.CompareAndSwap(cut, at) {
				p.limit.Store(max(minAhead, limit-limit/8))
			}
		case 2*(n+1) >= limit:
			p.limit.Store(min(limit+1, maxAhead))
		}
		return true, false
	case aheadWaited:
		p.inFlight.Add(-1)
		a.state = aheadNone
		return true, true
	}
	a.state = aheadNone
	a.spoilt -= min(a.spoilt, 1)
	return false, true
}

// left takes in that another node took the page at a time.
func (a *ahead) left(at, transfer int64) {
	if a.state == aheadCame && at-a.came < spoiltTransfers*transfer {
		a.spoilt = min(a.spoilt+2, maxSpoilt)
	}
	a.state, a.mark = aheadNone, false
}

// fetchMore asks for what t is expected to need next: it missed page, or came to
// a mark there, or both. No region's lock may be held. Fault reader only.
func (e *Engine) fetchMore(t *Thread, page uint32, write, missed, mark bool) (err error) {
	var s *stream
	switch {
	case e.prefetch.off.Load():
	case mark:
		s = t.streams.touched(page)
	case !write:
		s = t.streams.miss(page)
	}
	if missed {
		if s, err = e.fetchFollowers(t, page, write, s); err != nil {
			return err
		}
	}
	if s == nil || e.prefetch.off.Load() {
		return nil
	}
	if missed {
		e.flush() // or the page would come in one frame with others, when all are there
	}
	return e.fetchAhead(t, s)
}

// fetchAhead asks for the next pages of a stream. No region's lock may be held.
// Fault reader only.
func (e *Engine) fetchAhead(t *Thread, s *stream) error {
	p := &e.prefetch
	limit := p.limit.Load()
	for n := t.streams.deepen(s, limit); n > 0 && p.inFlight.Load() < limit; n-- {
		page := s.edge
		if !e.sameWindow(s.last, page) {
			return nil
		}
		goOn, err := e.fetchOneAhead(s, page)
		if err != nil || !goOn {
			return err
		}
		s.edge = uint32(int64(page) + int64(s.stride))
	}
	return nil
}

// sameWindow reports whether a page, which may be none, belongs to the same
// memory window as another.
func (e *Engine) sameWindow(of, page uint32) bool {
	if page >= uint32(e.host.Pages()) {
		return false
	}
	return int64(e.host.GPA(page))-int64(e.host.GPA(of)) == (int64(page)-int64(of))*PageSize
}

// fetchOneAhead asks to read a page of a stream unless it is here or on its way.
// It reports whether the stream goes on behind it.
func (e *Engine) fetchOneAhead(s *stream, page uint32) (goOn bool, err error) {
	r := e.region(page)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.home == e.cfg.Self && !r.armed {
		return false, nil // ordinary memory: all of it is here
	}
	en := &r.entriesLocked(e.cfg.Self)[page%RegionPages]
	switch {
	case en.page.Access != Invalid || en.page.Want != WantNothing:
		return true, nil
	case en.ahead.spoilt > 0:
		return false, nil
	}
	en.ahead.state = aheadAsked
	if s.mark == noPage {
		s.mark, en.ahead.mark = page, true
	}
	e.prefetch.inFlight.Add(1)
	e.stats.prefetched.Add(1)
	_, err = e.stepLocked(r, page, Event{Kind: EvFetch}, nil)
	return true, err
}
