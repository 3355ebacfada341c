package dsm

import (
	"errors"
	"fmt"

	"coalesce/dsm/uffd"
	"coalesce/link"
)

// Driver runs an engine without threads: package sim calls, in an order of its
// own, what service threads, vCPUs and devices call otherwise. Its methods are
// what those threads do between two waits, and may be called where they may; what
// says "Flush follows" leaves messages behind that the same thread has to flush.
//
// The rest looks at the engine's state. It is for one thread that has all
// others stopped.
type Driver struct {
	// Engine is for AddThread, Err, Stats, Dump and Close. Start and AddPeer
	// need the kernel and are not for it.
	Engine *Engine
}

// NewDriver makes an engine on a host. cfg.Memory is not used.
func NewDriver(cfg Config, h Host) (*Driver, error) {
	if err := cfg.check(h.Pages()); err != nil {
		return nil, err
	}
	e, err := newEngine(cfg, h)
	if err != nil {
		return nil, err
	}
	return &Driver{e}, nil
}

// Connect adds a peer: what is sent to it goes to l.
func (d *Driver) Connect(peer NodeID, l Link) error { return d.Engine.connect(peer, l) }

// Fault answers a userfault. Flush follows.
func (d *Driver) Fault(f uffd.Fault) {
	if err := d.Engine.fault(f); err != nil {
		d.Engine.fail(err)
	}
}

// Receive handles a frame of a peer. Flush follows.
func (d *Driver) Receive(peer NodeID, h *link.Header, payload []byte) {
	if err := d.Engine.receive(peer, h, payload); err != nil {
		d.Engine.lost(peer, err)
	}
}

// Lost ends the session since the link to a peer broke.
func (d *Driver) Lost(peer NodeID, err error) { d.Engine.lost(peer, err) }

// Alarm is for when the host's alarm goes off. Flush follows.
func (d *Driver) Alarm() { d.Engine.releaseDue() }

// Flush sends what was gathered. Nothing may be left after it but what other
// threads, which flush as well, add.
func (d *Driver) Flush() { d.Engine.flush() }

// Pin is Engine.Pin without its wait: the pin is in force at once if ready is
// nil, else once ready is closed, or never if the session ends. Flush follows.
func (d *Driver) Pin(gpa uint64, n int, write bool) (p Pinned, ready <-chan struct{}, err error) {
	return d.Engine.pin(gpa, n, write)
}

// Page returns the node's side of a page.
func (d *Driver) Page(page uint32) Page {
	r := d.Engine.region(page)
	if r.pages == nil {
		p := Page{}
		if r.home == d.Engine.cfg.Self {
			p.Access = Modified
		}
		return p
	}
	return r.pages[page%RegionPages].page
}

// Holder returns the index of the vCPU here that holds the progress token and
// has given no proof yet, and its streak.
func (d *Driver) Holder() (vcpu uint32, streak []uint32, ok bool) {
	t := d.Engine.streaks.holding.Load()
	if t == nil || !t.streak.Holding() || t.seen != t.proofs.Load() {
		return 0, nil, false
	}
	return t.index, t.streak.Pages(), true
}

// Unsent returns what waits for a flush, which somebody owes: an error if
// nobody is about to.
func (d *Driver) Unsent() error {
	e := d.Engine
	for i := range e.peers {
		if o := e.peers[i].Load(); o != nil && (len(o.buf) > 0 || o.pending.Load()) {
			return fmt.Errorf("%d bytes for node %d are not sent (pending: %v)", len(o.buf), i, o.pending.Load())
		}
	}
	if len(e.errands.list) > 0 || e.errands.pending.Load() {
		return fmt.Errorf("%d errands are not run (pending: %v)", len(e.errands.list), e.errands.pending.Load())
	}
	return nil
}

// Audit looks for what nobody would see to any more, and for what contradicts
// itself, while no call runs.
func (d *Driver) Audit() error {
	e := d.Engine
	now := e.host.Now()
	looks := map[uint32]int64{} // when a held page is looked at again first
	for _, x := range e.holds.sorted {
		looks[x.page] = x.at // the first one comes last
	}
	for i := range e.errands.list {
		for _, page := range e.errands.list[i].pages[:e.errands.list[i].n] {
			looks[page] = now // the end of the streak does
		}
	}
	var errs []error
	for slot, page := range e.twins.of {
		if page == noPage {
			continue
		}
		if en := &e.region(page).pages[page%RegionPages]; int(en.twin) != slot {
			errs = append(errs, fmt.Errorf("page %#x: the twin in slot %d is kept for it, and it has the one in slot %d", page, slot, en.twin))
		}
	}
	underWay := int32(0)
	e.eachEntry(func(page uint32, r *region, en *entry) {
		report := func(format string, a ...any) {
			errs = append(errs, fmt.Errorf("page %#x, %+v: "+format, append([]any{page, en.page}, a...)...))
		}
		if en.page.Deferred != Nothing && en.page.Pins == 0 && !e.inHoldersStreak(page) {
			if at, ok := looks[page]; !ok {
				report("nobody looks at the deferred command again")
			} else if at > max(en.heldUntil, now) {
				report("the deferred command is looked at %d ns after the end of its hold", at-en.heldUntil)
			}
		}
		if until := en.heldUntil - now; until > max(maxHold, e.hold.fixed) {
			report("held for another %d ns", until)
		}
		if en.lineage.Holders.Has(e.cfg.Self) {
			report("the node counts itself among the holders of version %d", en.lineage.Version)
		}
		switch en.ahead.state {
		case aheadAsked, aheadWaited:
			underWay++
			if en.page.Want != WantRead {
				report("taken to be on its way ahead of a vCPU")
			}
		case aheadCame:
			if en.heldUntil > now {
				report("held, and nobody waited for it when it came")
			}
			if en.page.Access == Invalid || en.page.Access == Modified {
				report("came ahead of a vCPU to be read")
			}
		}
		if en.page.Access == Modified && !en.lineage.Dirty {
			report("may be written, and is taken for version %d", en.lineage.Version)
		}
	})
	if n := e.prefetch.inFlight.Load(); n != underWay || n > maxAhead {
		errs = append(errs, fmt.Errorf("%d pages are on their way ahead of vCPUs, counted are %d", underWay, n))
	}
	if list := e.streaks.threads.Load(); list != nil {
		for _, t := range *list {
			for _, s := range t.streams.list[:t.streams.n] {
				if asked := s.steps(s.edge) - 1; s.asks() && (asked > s.depth || s.depth > maxAhead) {
					errs = append(errs, fmt.Errorf("vCPU %d: %d pages of %d are asked for ahead of page %#x, where it was seen", t.index, asked, s.depth, s.last))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Rest returns what is under way or owed, to be called where nothing should be.
func (d *Driver) Rest() error {
	e := d.Engine
	errs := []error{d.Unsent(), d.Audit()}
	e.eachEntry(func(page uint32, r *region, en *entry) {
		if en.page.Want != WantNothing || en.page.Deferred != Nothing || en.page.Pins != 0 {
			errs = append(errs, fmt.Errorf("page %#x: the copy is %+v", page, en.page))
		}
		if en.dir.Phase != Idle || en.dir.Waiting() != 0 {
			errs = append(errs, fmt.Errorf("page %#x: the directory entry is %+v", page, en.dir))
		}
	})
	for i := range e.regions {
		if n := len(e.regions[i].pins); n > 0 {
			errs = append(errs, fmt.Errorf("region %d: %d pins wait", i, n))
		}
	}
	if list := e.streaks.threads.Load(); list != nil {
		for _, t := range *list {
			if t.waiting.Load() != noPage {
				errs = append(errs, fmt.Errorf("vCPU %d is taken to wait for page %#x", t.index, t.waiting.Load()))
			}
			if t.streak.phase != counting {
				errs = append(errs, fmt.Errorf("vCPU %d: its streak's phase is %d", t.index, t.streak.phase))
			}
		}
	}
	if t := e.streaks.holding.Load(); t != nil {
		errs = append(errs, fmt.Errorf("vCPU %d holds the token", t.index))
	}
	if q := &e.streaks.queue; q.held {
		errs = append(errs, fmt.Errorf("the client takes vCPU %d of node %d for the token's holder, %d wait", q.holder.VCPU, q.holder.Node, len(q.waiting)))
	}
	return errors.Join(errs...)
}
