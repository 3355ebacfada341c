// Package trace records what happens on a guest's nodes (faults, pages, interrupts
// and device accesses between them) and writes it as a file that
// https://ui.perfetto.dev and chrome://tracing show, all nodes on one clock.
//
//	node 0: Recorder ─┐
//	node 1: Recorder ─┼── Events ──► Write ──► file
//	node 2: Recorder ─┘
package trace

import (
	"sync"
	"sync/atomic"

	"coalesce/link"
)

// Budget bounds the memory of a node's recorder, in bytes.
const Budget = 32 << 20

// memorySize is the size of an Event in memory, in bytes.
const memorySize = 40

// Recorder keeps the newest events of a node, in a ring for each vCPU and each
// other node, so that what is busy does not drive out what is quiet. Recording does
// not allocate and takes one lock that is rarely contended.
//
// Any goroutine may use it. It is a dsm.Tracer.
type Recorder struct {
	now    func() uint64
	cpus   []uint16 // ids of the node's vCPUs, by their place on the node
	rings  []ring   // of the vCPUs, then of the nodes
	frozen atomic.Bool
}

// ring holds the newest events of one vCPU, or of the traffic with one node.
type ring struct {
	mu     sync.Mutex
	events []Event
	n      uint64 // recorded so far
}

// NewRecorder returns one for a node with these vCPUs (guest-wide ids) in a guest of
// so many nodes. now is the clock that all the guest's nodes have in common, in
// cycles.
func NewRecorder(now func() uint64, cpus []uint16, nodes int) *Recorder {
	r := &Recorder{now: now, cpus: cpus, rings: make([]ring, len(cpus)+nodes)}
	for i := range r.rings {
		r.rings[i].events = make([]Event, Budget/memorySize/len(r.rings))
	}
	return r
}

// Now returns the clock.
func (r *Recorder) Now() uint64 { return r.now() }

// Fault records that the node's vCPU at a place on the node waited for a page from
// a time until now.
func (r *Recorder) Fault(place uint32, gpa uint64, write, local bool, from uint64) {
	if int(place) >= len(r.cpus) {
		return
	}
	e := Event{Kind: Fault, Start: from, Arg: gpa, CPU: r.cpus[place]}
	if write {
		e.Flags |= Writing
	}
	if local {
		e.Flags |= Local
	}
	r.record(int(place), &e)
}

// PageSent records the n-th content for a node; it took from a time until now to
// put together.
func (r *Recorder) PageSent(to link.NodeID, n, gpa uint64, bytes int, write bool, from uint64) {
	r.page(PageSent, to, n, gpa, bytes, write, from)
}

// PageReceived records the n-th content from a node, which came at a time and is
// mapped now.
func (r *Recorder) PageReceived(peer link.NodeID, n, gpa uint64, bytes int, write bool, from uint64) {
	r.page(PageReceived, peer, n, gpa, bytes, write, from)
}

func (r *Recorder) page(k Kind, peer link.NodeID, n, gpa uint64, bytes int, write bool, from uint64) {
	e := Event{Kind: k, Start: from, ID: n, Arg: gpa, Peer: uint8(peer), CPU: NoCPU, Size: uint16(bytes)}
	if write {
		e.Flags |= Writing
	}
	r.record(len(r.cpus)+int(peer), &e)
}

// Message records an event of another kind, which ends now. It belongs to its vCPU,
// if that is one of the node's, else to its peer.
func (r *Recorder) Message(e Event) {
	for i, id := range r.cpus {
		if id == e.CPU {
			r.record(i, &e)
			return
		}
	}
	r.record(len(r.cpus)+int(e.Peer), &e)
}

// record puts an event that ends now into a ring.
func (r *Recorder) record(ring int, e *Event) {
	if r.frozen.Load() || ring >= len(r.rings) {
		return
	}
	e.End = max(e.Start, r.now())
	g := &r.rings[ring]
	g.mu.Lock()
	g.events[g.n%uint64(len(g.events))] = *e
	g.n++
	g.mu.Unlock()
}

// Freeze ends the recording: what is recorded can be read without being overtaken.
func (r *Recorder) Freeze() { r.frozen.Store(true) }

// Rings is how many rings there are.
func (r *Recorder) Rings() int { return len(r.rings) }

// Read appends to b up to n encoded events of a ring, the oldest first, after
// skipping some that were read before. It returns how many are left behind them,
// and how many older ones were dropped. Freeze comes before.
func (r *Recorder) Read(b []byte, ring int, skip uint64, n int) (events []byte, left, dropped uint64) {
	g := &r.rings[ring]
	g.mu.Lock()
	defer g.mu.Unlock()
	size := uint64(len(g.events))
	if g.n > size {
		dropped = g.n - size
	}
	at := dropped + min(skip, g.n-dropped)
	end := min(g.n, at+uint64(max(0, n)))
	for ; at < end; at++ {
		b = g.events[at%size].Append(b)
	}
	return b, g.n - end, dropped
}

// Node is what was recorded on one node.
type Node struct {
	ID   link.NodeID
	Name string
	// Events in any order, times on the clock of node 0.
	Events []Event
	// Dropped is how many older events are missing; those of a ring that dropped
	// some are complete only from CompleteFrom on.
	Dropped      uint64
	CompleteFrom uint64 // 0 if nothing is missing
	// Error bounds how wrong the node's times are on the clock of node 0, in
	// cycles.
	Error uint64
	// Missing says why nothing, or not all, could be fetched.
	Missing string
}

// Add appends a ring's events, of which so many older ones were dropped.
func (n *Node) Add(events []Event, dropped uint64) {
	n.Events = append(n.Events, events...)
	n.Dropped += dropped
	if dropped > 0 && len(events) > 0 {
		// Events are recorded as they end.
		n.CompleteFrom = max(n.CompleteFrom, events[0].End)
	}
}

// Collect returns what a frozen recorder of this process has.
func (r *Recorder) Collect(id link.NodeID, name string) (*Node, error) {
	n := &Node{ID: id, Name: name}
	for ring := range r.rings {
		b, _, dropped := r.Read(nil, ring, 0, Budget/EventSize)
		events, err := Decode(b)
		if err != nil {
			return nil, err
		}
		n.Add(events, dropped)
	}
	return n, nil
}
