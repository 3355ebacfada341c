package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"coalesce/dsm"
	"coalesce/link"
)

// World is one run of a scenario.
type World struct {
	sc     Scenario
	bound  time.Duration
	dice   dice // costs, delays, disturbances
	now    int64
	queue  events
	nodes  []*node
	truth  truth
	places places

	phase  phase
	ended  uint64 // events when the programs were stopped
	err    error  // the first violation
	result Result

	threads []*thread
	current *thread // that runs; nil: none does
	blocked int     // threads that wait for a lock
	over    bool    // threads are to end

	out io.Writer // takes the trace; nil: nobody does

	payloads [][]byte // for reuse
	pages    []pageBytes
}

const (
	// aftermath is for how many events after the programs' end the kernel goes on
	// to do as it likes.
	aftermath = 2_000
	// restless is how many events after the programs' end are too many.
	restless = 1_000_000
)

type phase uint8

const (
	working phase = iota
	stopped       // the programs finish and all comes to rest
	reading       // every node reads the counters
)

// Result is what a run came to.
type Result struct {
	Events, Frames, Faults uint64
	Instructions           uint64
	Time                   time.Duration // virtual
	// The longest that an instruction took from its first try, that one took
	// which needed several pages, and that a device waited.
	MaxWait, MaxWide, MaxPin time.Duration
	// Share is the largest part of its Bound that an instruction took.
	Share float64
	Stats dsm.Stats // of all nodes together
}

func (r *Result) String() string {
	return fmt.Sprintf("%d events, %d instructions, %d userfaults, %d frames, %d pages in %v; longest: an instruction %v, one of several pages %v, a pin %v; %.1f %% of the bound",
		r.Events, r.Instructions, r.Faults, r.Frames, r.Stats.PagesIn, r.Time, r.MaxWait, r.MaxWide, r.MaxPin, 100*r.Share)
}

func (r *Result) waited(ns int64) { r.MaxPin = max(r.MaxPin, time.Duration(ns)) }

// Violation is something that must not happen and did.
type Violation struct {
	Seed uint64
	At   time.Duration
	What string
}

func (v *Violation) Error() string { return fmt.Sprintf("seed %d at %v: %s", v.Seed, v.At, v.What) }

// Run runs a scenario to its end, or to the first violation, which it returns as
// a *Violation. out, which may be nil, takes a trace.
func Run(sc Scenario, out io.Writer) (Result, error) {
	w := &World{sc: sc, bound: sc.Bound(), dice: newDice(sc.Seed, streamWorld), out: out}
	w.takeLocks()
	defer w.end()
	w.build()
	w.run()
	if w.err == nil && w.survivors() == len(w.nodes) {
		w.readCounters()
	}
	w.result.Time = time.Duration(w.now)
	w.sum()
	if w.err != nil && out != nil {
		fmt.Fprintf(out, "%v\n", w.err)
		w.dump(out)
	}
	return w.result, w.err
}

// build makes the nodes, joins them, and schedules all that comes of itself.
func (w *World) build() {
	w.truth = newTruth(w, w.sc.Pages())
	w.places = newPlaces(&w.sc, newDice(w.sc.Seed, streamScenario+1<<32))
	for id := range w.sc.Nodes {
		w.nodes = append(w.nodes, newNode(w, dsm.NodeID(id)))
	}
	for _, a := range w.nodes {
		for _, b := range w.nodes {
			if a == b {
				continue
			}
			l := &wire{from: b, to: a, spec: w.sc.Links[[2]dsm.NodeID{b.id, a.id}]}
			a.peers[b.id] = a.serve(fmt.Sprintf("pages %d", b.id), l.deliver)
			b.wires[a.id] = l
			if err := b.driver.Connect(a.id, l); err != nil {
				panic(fmt.Sprintf("sim: connect nodes: %v", err))
			}
		}
	}
	stream := uint64(streamVCPUs)
	for _, n := range w.nodes {
		for range n.spec.VCPUs {
			n.addVCPU(newDice(w.sc.Seed, stream))
			stream++
		}
		for range n.spec.Devices {
			n.addDevice(newDice(w.sc.Seed, stream))
			stream++
		}
		if n.spec.Stranger {
			n.addStranger(newDice(w.sc.Seed, stream))
			stream++
		}
	}
	w.every(w.sc.Reclaim, func() {
		w.anyNode().kernel.reclaim(w.anyPage())
	})
	w.every(w.sc.Stale, w.stale)
	if c := w.sc.Crash; c != nil {
		w.at(c.At, w.crash)
	}
}

// run goes on until all is at rest, or something is wrong.
func (w *World) run() {
	for w.err == nil && w.advance() {
	}
	if w.err == nil {
		w.rest()
	}
}

// at schedules what happens at a time; after, what happens in ns from now.
func (w *World) at(t int64, do func())     { w.queue.push(max(t, w.now), do) }
func (w *World) after(in int64, do func()) { w.queue.push(w.now+max(in, 1), do) }

// every has something happen again and again, at random, until a while after the
// programs' end.
func (w *World) every(mean int64, do func()) {
	if mean == 0 {
		return
	}
	w.after(int64(w.dice.ExpFloat64()*float64(mean)), func() {
		if w.phase == working || w.phase == stopped && w.result.Events < w.ended+aftermath {
			do()
			w.every(mean, do)
		}
	})
}

// advance lets the next event happen.
func (w *World) advance() bool {
	if len(w.queue.heap) == 0 {
		return false
	}
	e := w.queue.pop()
	w.now = e.at
	w.result.Events++
	e.do()
	switch {
	case w.phase == working && (w.work() > uint64(w.sc.Work) || w.now > w.sc.Until || w.survivors() == 0):
		w.phase = stopped
		w.ended = w.result.Events
	case w.phase != working && w.result.Events > w.ended+restless:
		w.violated("the programs stopped %d events ago, and there is no rest", w.result.Events-w.ended)
	case w.result.Events%2048 == 0:
		w.audit()
	}
	return true
}

// work is how much was done.
func (w *World) work() uint64 {
	return w.result.Instructions + w.result.Faults + w.result.Frames
}

// stopping reports whether programs are to finish.
func (w *World) stopping() bool { return w.phase != working }

func (w *World) violated(format string, a ...any) {
	if w.err == nil {
		w.err = &Violation{w.sc.Seed, time.Duration(w.now), fmt.Sprintf(format, a...)}
	}
}

// executed takes note of an instruction that is complete.
func (w *World) executed(v *vcpu, f *codeFrame) {
	w.result.Instructions++
	if w.crashed() {
		return
	}
	took := time.Duration(w.now - f.began)
	w.result.MaxWait = max(w.result.MaxWait, took)
	if len(f.accesses) > 1 {
		w.result.MaxWide = max(w.result.MaxWide, took)
	}
	if v.thread == nil {
		return
	}
	w.result.Share = max(w.result.Share, float64(took)/float64(w.bound))
	if took > w.bound {
		w.violated("vCPU %d of node %d took %v for an instruction of %d pages; the bound is %v", v.index, v.n.id, took, len(f.accesses), w.bound)
	}
}

// audit looks at what is not looked at all the time.
func (w *World) audit() {
	for _, n := range w.nodes {
		if n.failed || n.dead {
			continue
		}
		if n.inside == 0 {
			if err := n.driver.Audit(); err != nil {
				w.violated("node %d: %v", n.id, err)
			}
		}
		if w.crashed() {
			continue // they wait for the end
		}
		for _, v := range n.vcpus {
			if long := time.Duration(w.now - v.stalledAt); v.stalled && long > w.bound {
				w.violated("vCPU %d of node %d has been told to wait for %v; the bound is %v", v.index, n.id, long, w.bound)
			}
			for i := range v.frames[:v.depth] {
				if f := &v.frames[i]; f.tried && v.thread != nil && time.Duration(w.now-f.began) > w.bound {
					w.violated("vCPU %d of node %d has been at an instruction of %d pages for %v; the bound is %v",
						v.index, n.id, len(f.accesses), time.Duration(w.now-f.began), w.bound)
				}
			}
		}
	}
}

func (w *World) anyNode() *node { return w.nodes[w.dice.IntN(len(w.nodes))] }
func (w *World) anyPage() uint32 {
	all := [][]uint32{w.places.hot, w.places.tables, w.places.set}[w.dice.IntN(3)]
	return all[w.dice.IntN(len(all))]
}

// stale has a userfault come of which nobody waits any more, or never did.
func (w *World) stale() {
	n := w.anyNode()
	v := n.vcpus[w.dice.IntN(n.spec.VCPUs)]
	f := &userfault{}
	f.Page, f.Write = w.anyPage(), w.dice.chance(0.5)
	if w.dice.chance(0.5) {
		f.Page = v.lastFault
	}
	if n.dead || !n.kernel.registered[f.Page/dsm.RegionPages] {
		return
	}
	f.WP = f.Write && w.dice.chance(0.3)
	f.Minor = !f.WP && n.kernel.alias[f.Page] != nil
	if w.dice.chance(0.8) {
		f.TID = v.tid
	}
	n.kernel.post(f)
}

// crash ends a node.
func (w *World) crash() {
	n := w.nodes[w.sc.Crash.Node]
	if w.sc.Crash.How != Garbles {
		n.die()
		return
	}
	// It sends what no correct node sends, to one of the others.
	to := w.nodes[(int(n.id)+w.dice.upTo(len(w.nodes)-1))%len(w.nodes)]
	bad := [][]byte{
		{0xff, 1, 2, 3},
		(&dsm.Msg{Kind: dsm.Req, Page: uint32(w.sc.Pages())}).Append(nil),
		(&dsm.Msg{Kind: dsm.Inv, Peer: dsm.MaxNodes}).Append(nil),
		(&dsm.Msg{Kind: dsm.Data}).Append(nil),
		append((&dsm.Msg{Kind: dsm.Data}).Append(nil), 0, 0, 0, 0, 0, 0, 0xff, 0xff),
	}
	w.trace(n, "sends garbage to node %d", to.id)
	_ = n.wires[to.id].Send(link.Header{Kind: 1, View: 1}, bad[w.dice.IntN(len(bad))])
}

// crashed reports whether a node went wrong already.
func (w *World) crashed() bool { return w.sc.Crash != nil && w.sc.Crash.At <= w.now }

func (w *World) survivors() (alive int) {
	for _, n := range w.nodes {
		if !n.dead && !n.failed {
			alive++
		}
	}
	return alive
}

// rest checks that nothing is under way once there are no more events.
func (w *World) rest() {
	if w.crashed() {
		w.restAfterCrash()
		return
	}
	for _, n := range w.nodes {
		for _, v := range n.vcpus {
			if v.state != finished {
				w.violated("vCPU %d of node %d sleeps for ever", v.index, n.id)
			}
			if v.stalled {
				w.violated("vCPU %d of node %d is never told that its page has come", v.index, n.id)
			}
		}
		for _, d := range n.devices {
			if d.pin != nil {
				w.violated("a device of node %d waits for page %#x for ever", n.id, d.pin.page)
			}
		}
		if err := n.driver.Rest(); err != nil {
			w.violated("node %d is not at rest: %v", n.id, err)
		}
	}
	for _, t := range w.threads {
		if t.mutex != nil {
			w.violated("thread %q of node %d waits for a lock for ever", t.name, t.n.id)
		}
	}
}

// restAfterCrash checks how the session ended.
func (w *World) restAfterCrash() {
	c := w.sc.Crash
	named := false
	for _, n := range w.nodes {
		if n.id == c.Node && c.How != Garbles {
			continue
		}
		err := n.driver.Engine.Err()
		var peer *link.PeerError
		switch {
		case err == nil:
			w.violated("node %d died, and node %d goes on", c.Node, n.id)
			return
		case errors.As(err, &peer) && peer.Node == c.Node, strings.Contains(err.Error(), fmt.Sprintf("node %d", c.Node)):
			named = true
		case c.How != Garbles:
			w.violated("node %d died, and the session of node %d ended with %q", c.Node, n.id, err)
		}
		for _, v := range n.vcpus {
			if v.fault != nil || v.stalled {
				w.violated("vCPU %d of node %d waits after the session's end", v.index, n.id)
			}
		}
		for _, d := range n.devices {
			if d.ready != nil {
				w.violated("a device of node %d waits after the session's end", n.id)
			}
		}
	}
	if !named {
		w.violated("nobody names node %d", c.Node)
	}
}

// readCounters has every node read every counter's page, as the guest does, and
// compares what it holds with what was counted.
func (w *World) readCounters() {
	w.phase = reading
	pages := map[uint32]bool{}
	for c := range w.truth.counted {
		pages[c.page] = true
	}
	for _, n := range w.nodes {
		v := n.vcpus[0]
		v.script = slices.Sorted(maps.Keys(pages))
		v.t.wakeIn(1)
	}
	w.run()
	for c, count := range w.truth.counted {
		for _, n := range w.nodes {
			if got := binary.LittleEndian.Uint64(n.kernel.bytes(c.page)[8*c.word:]); got != count {
				w.violated("%v is %d on node %d, counted were %d", c, got, n.id, count)
			}
		}
	}
}

// sum adds up what the engines counted.
func (w *World) sum() {
	t := &w.result.Stats
	for _, n := range w.nodes {
		s := n.driver.Engine.Stats()
		t.PagesIn += s.PagesIn
		t.PagesOut += s.PagesOut
		t.PagesChanged += s.PagesChanged
		t.PagesKnown += s.PagesKnown
		t.Upgrades += s.Upgrades
		t.Deferred += s.Deferred
		t.Fetched += s.Fetched
		t.Prefetched += s.Prefetched
		t.PrefetchUsed += s.PrefetchUsed
		t.Pins += s.Pins
		t.MessagesIn += s.MessagesIn
		t.MessagesOut += s.MessagesOut
		t.TokenRequests += s.TokenRequests
		t.TokenGrants += s.TokenGrants
		t.FaultsAgain += s.FaultsAgain
		t.FaultsVanished += s.FaultsVanished
	}
	if w.err == nil && w.survivors() == len(w.nodes) && (t.PagesIn != t.PagesOut || t.MessagesIn != t.MessagesOut) {
		w.violated("%d pages and %d messages were sent, %d and %d received", t.PagesOut, t.MessagesOut, t.PagesIn, t.MessagesIn)
	}
}

func (w *World) newPayload() []byte {
	if n := len(w.payloads); n > 0 {
		p := w.payloads[n-1]
		w.payloads = w.payloads[:n-1]
		return p
	}
	return make([]byte, 0, 4200)
}

func (w *World) putPayload(p []byte) { w.payloads = append(w.payloads, p[:0]) }

func (w *World) newPage() *pageBytes {
	if len(w.pages) == 0 {
		w.pages = make([]pageBytes, 64)
	}
	p := &w.pages[0]
	w.pages = w.pages[1:]
	return p
}
