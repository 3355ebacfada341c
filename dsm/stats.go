package dsm

import (
	"fmt"
	"io"
	"sync"
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
	upgrades      atomic.Uint64 // writes granted without data
	downgrades    atomic.Uint64 // M→O: write-protected for a reader elsewhere
	invalidations atomic.Uint64 // →I: given up
	deferred      atomic.Uint64 // commands of a home that a hold or pin delayed
	messagesIn    atomic.Uint64
	messagesOut   atomic.Uint64
	regionsArmed  atomic.Uint64 // regions homed here that another node asked for
	pins          atomic.Uint64 // pages pinned by devices
	tokenRequests atomic.Uint64 // times a vCPU here asked for the progress token
	tokenGrants   atomic.Uint64 // grants made (client)

	latency latency
}

func (c *counters) init() { c.latency.h = hdrhistogram.New(1, 60_000_000, 2) }

// latency is the distribution of the time from a request to its answer.
type latency struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram // microseconds
}

func (l *latency) record(ns int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A value beyond the range is one of a session about to end.
	_ = l.h.RecordValue(max(1, ns/1000))
}

// Stats is a snapshot of the engine's metrics; the fields are explained at
// the counters of the same name.
type Stats struct {
	FaultsRead, FaultsWrite, FaultsLocal  uint64
	PagesIn, PagesOut                     uint64
	Upgrades, Downgrades, Invalidations   uint64
	Deferred                              uint64
	MessagesIn, MessagesOut               uint64
	BytesIn, BytesOut                     uint64 // on the page links, headers included
	RegionsArmed, Pins                    uint64
	TokenRequests, TokenGrants            uint64
	LatencyP50, LatencyP99, LatencySample int64 // µs, µs, number of samples
}

// Stats returns the metrics now.
func (e *Engine) Stats() Stats {
	c := &e.stats
	s := Stats{
		FaultsRead: c.faultsRead.Load(), FaultsWrite: c.faultsWrite.Load(), FaultsLocal: c.faultsLocal.Load(),
		PagesIn: c.pagesIn.Load(), PagesOut: c.pagesOut.Load(),
		Upgrades: c.upgrades.Load(), Downgrades: c.downgrades.Load(), Invalidations: c.invalidations.Load(),
		Deferred:   c.deferred.Load(),
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.messagesOut.Load(),
		RegionsArmed: c.regionsArmed.Load(), Pins: c.pins.Load(),
		TokenRequests: c.tokenRequests.Load(), TokenGrants: c.tokenGrants.Load(),
	}
	for i := range e.peers {
		if conn := e.peers[i].Load(); conn != nil {
			l := conn.Stats()
			s.BytesIn += l.BytesIn
			s.BytesOut += l.BytesOut
		}
	}
	c.latency.mu.Lock()
	defer c.latency.mu.Unlock()
	s.LatencyP50 = c.latency.h.ValueAtQuantile(50)
	s.LatencyP99 = c.latency.h.ValueAtQuantile(99)
	s.LatencySample = c.latency.h.TotalCount()
	return s
}

// Dump writes the pages that are on the way, for somebody who looks at a guest
// that does not move.
func (e *Engine) Dump(w io.Writer) {
	for i := range e.regions {
		r := &e.regions[i]
		r.mu.Lock()
		for j := range RegionPages {
			if r.pages == nil {
				break
			}
			en := &r.pages[j]
			if en.page.Want == WantNothing && en.page.Deferred == Nothing && en.dir.Phase == Idle && en.page.Pins == 0 {
				continue
			}
			page := r.first + uint32(j)
			fmt.Fprintf(w, "gpa %#x home %d: copy %+v", e.mem.GPA(page), r.home, en.page)
			if en.page.Want != WantNothing {
				fmt.Fprintf(w, " for %d us", (now()-en.requested)/1000)
			}
			if r.home == e.cfg.Self {
				fmt.Fprintf(w, " directory %+v", en.dir)
			}
			fmt.Fprintln(w)
		}
		r.mu.Unlock()
	}
}
