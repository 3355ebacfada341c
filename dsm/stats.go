package dsm

import (
	"fmt"
	"io"
	"math"
	"sync/atomic"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// counters are the engine's metrics, all declared here. Each counts since the
// engine was made.
type counters struct {
	faultsRead    atomic.Uint64 // userfaults for reading
	faultsWrite   atomic.Uint64 // userfaults for writing, write-protection ones included
	faultsLocal   atomic.Uint64 // of both, those answered without a message
	pagesIn       atomic.Uint64 // pages installed from other nodes
	pagesOut      atomic.Uint64 // pages sent to other nodes
	pagesChanged  atomic.Uint64 // of those, sent as what had changed in them
	pagesKnown    atomic.Uint64 // of those, sent without content: the receiver had it
	upgrades      atomic.Uint64 // writes granted without data
	downgrades    atomic.Uint64 // M→O: write-protected for a reader elsewhere
	invalidations atomic.Uint64 // →I: given up
	deferred      atomic.Uint64 // commands of a home that a hold or pin delayed
	messagesIn    atomic.Uint64
	messagesOut   atomic.Uint64
	faultsAgain   atomic.Uint64 // of both, repeated by a thread that spins
	fetched       atomic.Uint64 // pages asked for along with one that was faulted on
	prefetched    atomic.Uint64 // pages asked for ahead of a vCPU that reads through memory
	prefetchUsed  atomic.Uint64 // of those, marks that were used and pages that were waited for
	regionsArmed  atomic.Uint64 // regions homed here that another node asked for
	pins          atomic.Uint64 // pages pinned by devices
	tokenRequests atomic.Uint64 // times a vCPU here asked for the progress token
	tokenGrants   atomic.Uint64 // grants made (client)

	latency latency
}

func (c *counters) init() { c.latency.h = hdrhistogram.New(1, 60_000_000, 2) }

// latency is the distribution of the time from a request to its answer.
type latency struct {
	mu mutex
	h  *hdrhistogram.Histogram // microseconds
}

func (l *latency) record(ns int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A value beyond the range is one of a session about to end.
	_ = l.h.RecordValue(max(1, ns/1000))
}

// snapshot returns a copy of the distribution. What takes long in it is done
// without the lock, for which faults wait.
func (l *latency) snapshot() *hdrhistogram.Histogram {
	l.mu.Lock()
	s := l.h.Export()
	l.mu.Unlock()
	return hdrhistogram.Import(s)
}

// Stats is a snapshot of the engine's metrics; the fields are explained at
// the counters of the same name.
type Stats struct {
	FaultsRead, FaultsWrite, FaultsLocal  uint64
	FaultsAgain, FaultsVanished           uint64 // the latter: gone before they were read
	PagesIn, PagesOut                     uint64
	PagesChanged, PagesKnown              uint64 // of PagesOut
	Upgrades, Downgrades, Invalidations   uint64
	Deferred, Fetched                     uint64
	Prefetched, PrefetchUsed              uint64
	MessagesIn, MessagesOut               uint64
	BytesIn, BytesOut                     uint64 // on the page links, headers included
	RegionsArmed, Pins                    uint64
	TokenRequests, TokenGrants            uint64
	LatencyP50, LatencyP99, LatencySample int64 // µs, µs, number of samples
	Transfer, Hold                        int64 // mean transfer and limit of the minimum hold at present, µs
}

// Stats returns the metrics now.
func (e *Engine) Stats() Stats {
	c := &e.stats
	s := Stats{
		FaultsRead: c.faultsRead.Load(), FaultsWrite: c.faultsWrite.Load(), FaultsLocal: c.faultsLocal.Load(), FaultsAgain: c.faultsAgain.Load(), FaultsVanished: e.host.Vanished(),
		PagesIn: c.pagesIn.Load(), PagesOut: c.pagesOut.Load(), PagesChanged: c.pagesChanged.Load(), PagesKnown: c.pagesKnown.Load(),
		Upgrades: c.upgrades.Load(), Downgrades: c.downgrades.Load(), Invalidations: c.invalidations.Load(),
		Deferred: c.deferred.Load(), Fetched: c.fetched.Load(),
		Prefetched: c.prefetched.Load(), PrefetchUsed: c.prefetchUsed.Load(),
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.messagesOut.Load(),
		RegionsArmed: c.regionsArmed.Load(), Pins: c.pins.Load(),
		TokenRequests: c.tokenRequests.Load(), TokenGrants: c.tokenGrants.Load(),
	}
	s.Transfer, s.Hold = e.hold.transfer.Load()/1000, e.hold.limit()/1000
	for i := range e.peers {
		if o := e.peers[i].Load(); o != nil {
			l := o.link.Stats()
			s.BytesIn += l.BytesIn
			s.BytesOut += l.BytesOut
		}
	}
	h := c.latency.snapshot()
	s.LatencyP50, s.LatencyP99, s.LatencySample = h.ValueAtQuantile(50), h.ValueAtQuantile(99), h.TotalCount()
	return s
}

// eachEntry visits every page that is not in its first state, its region
// locked.
func (e *Engine) eachEntry(visit func(page uint32, r *region, en *entry)) {
	for i := range e.regions {
		r := &e.regions[i]
		r.mu.Lock()
		if r.pages != nil {
			for j := range r.pages {
				visit(r.first+uint32(j), r, &r.pages[j])
			}
		}
		r.mu.Unlock()
	}
}

// Dump writes the pages that are on the way and the hottest ones, for somebody
// who looks at a guest that does not move.
func (e *Engine) Dump(w io.Writer) {
	e.eachEntry(func(page uint32, r *region, en *entry) {
		if en.page.Want == WantNothing && en.page.Deferred == Nothing && en.dir.Phase == Idle && en.page.Pins == 0 {
			return
		}
		fmt.Fprintf(w, "gpa %#x home %d: copy %+v", e.host.GPA(page), r.home, en.page)
		if en.page.Want != WantNothing {
			fmt.Fprintf(w, " for %d us", (e.host.Now()-en.requested)/1000)
		}
		if r.home == e.cfg.Self {
			fmt.Fprintf(w, " directory %+v", en.dir)
		}
		fmt.Fprintln(w)
	})
	fmt.Fprint(w, "hottest")
	for _, h := range e.hottest(24, math.MaxInt64) {
		fmt.Fprintf(w, " %#x:%d", h.GPA, h.Moves())
	}
	fmt.Fprintln(w)
}
