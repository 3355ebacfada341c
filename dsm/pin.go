package dsm

import "fmt"

// Pinned is guest memory a device may copy from or, if pinned for writing, to.
// Invalidations wait for Release, so it is held for a copy and no longer.
type Pinned struct {
	// Bytes is the pinned range, in the alias view.
	Bytes []byte

	engine *Engine
	page   uint32
	write  bool
}

// pinWaiter is a goroutine parked until its page can be pinned.
type pinWaiter struct {
	page  uint32
	write bool
	ready chan struct{} // closed when the pin is in force
}

// Pin waits until this node may read, or write, the n bytes at gpa, which must
// not cross a page boundary, and keeps the page until Release. A goroutine
// that has one page pinned must not wait for another: two devices could wait
// for each other. It returns the session's error when it ends first.
func (e *Engine) Pin(gpa uint64, n int, write bool) (Pinned, error) {
	pinned, ready, err := e.pin(gpa, n, write)
	e.flush()
	if err != nil || ready == nil {
		return pinned, err
	}
	select {
	case <-ready:
		return pinned, nil
	case <-e.failed:
		return Pinned{}, e.failErr
	}
}

// pin is Pin without the wait: the pin is in force once ready is closed, or at
// once if ready is nil. flush follows.
func (e *Engine) pin(gpa uint64, n int, write bool) (p Pinned, ready <-chan struct{}, err error) {
	page, ok := e.host.Index(gpa)
	off := int(gpa % PageSize)
	if !ok || n < 0 || off+n > PageSize {
		return Pinned{}, nil, fmt.Errorf("pin %d bytes at guest address %#x: outside memory or across a page boundary", n, gpa)
	}
	if err := e.Err(); err != nil {
		return Pinned{}, nil, err
	}
	e.stats.pins.Add(1)
	w, err := e.pinOrWait(page, write)
	if err != nil {
		e.fail(err)
		return Pinned{}, nil, err
	}
	p = Pinned{Bytes: e.host.Alias(page, 1)[off : off+n], engine: e, page: page, write: write}
	if w != nil {
		ready = w.ready
	}
	return p, ready, nil
}

// pinOrWait pins a page, or returns a waiter whose pin the page's coming puts in
// force.
func (e *Engine) pinOrWait(page uint32, write bool) (*pinWaiter, error) {
	r := e.region(page)
	r.mu.Lock()
	defer r.mu.Unlock()
	got, err := e.pinLocked(r, page, write)
	if err != nil || got {
		return nil, err
	}
	w := &pinWaiter{page: page, write: write, ready: make(chan struct{})}
	r.pins = append(r.pins, w)
	return w, nil
}

// pinLocked tries to pin and otherwise leaves a request under way.
func (e *Engine) pinLocked(r *region, page uint32, write bool) (bool, error) {
	for {
		got, err := e.stepLocked(r, page, Event{Kind: EvPin, Write: write}, nil)
		if err != nil || got {
			return got, err
		}
		// At the home the request may have been granted on the spot.
		if !r.pages[page%RegionPages].page.Access.allows(write) {
			return false, nil
		}
	}
}

// retryPinsLocked grants the pins that a change of the page made possible.
// r.mu must be held.
func (e *Engine) retryPinsLocked(r *region, page uint32) error {
	kept := r.pins[:0]
	var failure error
	for _, w := range r.pins {
		if w.page != page || failure != nil {
			kept = append(kept, w)
			continue
		}
		got, err := e.pinLocked(r, page, w.write)
		switch {
		case got:
			close(w.ready)
		default:
			failure = err
			kept = append(kept, w)
		}
	}
	clear(r.pins[len(kept):])
	r.pins = kept
	return failure
}

// Release ends the pin.
func (p Pinned) Release() {
	e := p.engine
	defer e.flush() // runs last, the region unlocked
	r := e.region(p.page)
	r.mu.Lock()
	defer r.mu.Unlock()
	en := &r.pages[p.page%RegionPages]
	if _, err := e.stepLocked(r, p.page, Event{Kind: EvUnpin, Write: p.write, Held: e.held(en, p.page)}, nil); err != nil {
		e.fail(err)
	}
}

// ReadAt copies guest memory at gpa to b, page by page.
func (e *Engine) ReadAt(b []byte, gpa int64) (int, error) {
	return e.copyPages(len(b), gpa, false, func(page []byte, at int) { copy(b[at:], page) })
}

// WriteAt copies b to guest memory at gpa, page by page.
func (e *Engine) WriteAt(b []byte, gpa int64) (int, error) {
	return e.copyPages(len(b), gpa, true, func(page []byte, at int) { copy(page, b[at:]) })
}

func (e *Engine) copyPages(n int, gpa int64, write bool, do func(page []byte, at int)) (int, error) {
	for at := 0; at < n; {
		here := uint64(gpa) + uint64(at)
		chunk := min(n-at, PageSize-int(here%PageSize))
		p, err := e.Pin(here, chunk, write)
		if err != nil {
			return at, err
		}
		do(p.Bytes, at)
		p.Release()
		at += chunk
	}
	return n, nil
}
