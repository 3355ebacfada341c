package sim

import (
	"fmt"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// node is one host: an engine, the kernel below it, and the threads around it.
type node struct {
	w      *World
	id     dsm.NodeID
	spec   NodeSpec
	boot   int64 // added to the world's time
	kernel *kernel
	driver *dsm.Driver

	faults, holds *server
	peers         []*server // by node; nil for itself
	wires         []*wire   // to each node
	vcpus         []*vcpu
	devices       []*device

	flushing int   // threads between their work and their flush
	delayed  int64 // ns that the call at hand waited, besides its cost

	failed, dead bool // the session ended here; the process is gone
}

// server is a thread of the engine. It does one thing after the other and then
// sleeps until there is more:
//
//	asleep ── wake ──► late ──► do ──► … ──► Flush ──► … ──► do, or asleep
//
// Other threads get their turn wherever there are dots.
type server struct {
	n     *node
	name  string
	awake bool
	// do does the next thing there is to do, if any.
	do func() bool
}

// What the engine's threads take, in ns, on a node that is not slow.
const (
	costWake  = 8_000
	costWork  = 6_000
	costFlush = 3_000

	longestPause = 5_000_000 // without a processor
)

func newNode(w *World, id dsm.NodeID) *node {
	n := &node{w: w, id: id, spec: w.sc.Nodes[id], boot: w.dice.Int64N(1e15)}
	n.kernel = newKernel(n, w.sc.Pages())
	n.peers = make([]*server, len(w.sc.Nodes))
	n.wires = make([]*wire, len(w.sc.Nodes))
	n.faults = &server{n: n, name: "faults", do: n.faultReader()}
	n.holds = &server{n: n, name: "holds", do: n.lookAtHolds}
	driver, err := dsm.NewDriver(dsm.Config{Self: id, Homes: w.sc.Homes, View: 1, Hold: w.sc.Hold, Transfer: w.sc.Transfer, Clock: guestClock{n}}, n.kernel)
	if err != nil {
		panic(fmt.Sprintf("sim: make an engine: %v", err))
	}
	n.driver = driver
	return n
}

// cost draws how long something takes here that takes base elsewhere.
func (n *node) cost(base int64) int64 {
	t := int64(float64(base) * n.spec.Slow * (0.5 + n.w.dice.Float64()))
	if n.w.dice.chance(n.spec.Pause) {
		t += n.w.dice.Int64N(longestPause)
	}
	return t
}

func (s *server) wake() {
	if s.awake || s.n.dead {
		return
	}
	s.awake = true
	s.n.w.after(s.n.cost(costWake), s.run)
}

func (s *server) run() {
	n := s.n
	if n.dead {
		return
	}
	n.delayed = 0
	n.w.actor = s.name
	if !s.do() {
		s.awake = false
		return
	}
	n.flushing++
	n.settle()
	n.w.after(n.cost(costWork)+n.delayed, func() {
		if n.dead {
			return
		}
		n.w.actor = s.name
		n.driver.Flush()
		n.flushing--
		n.settle()
		n.w.after(n.cost(costFlush), s.run)
	})
}

// faultReader returns what the thread of the userfaults does: it reads up to 16
// and answers them one by one; in between they may become stale.
func (n *node) faultReader() func() bool {
	var read []uffd.Fault
	return func() bool {
		if len(read) == 0 {
			k := n.kernel
			for _, f := range k.unread[:min(16, len(k.unread))] {
				read = append(read, f.Fault)
			}
			k.unread = append(k.unread[:0], k.unread[len(read):]...)
			if len(read) == 0 {
				return false
			}
		}
		f := read[0]
		read = read[1:]
		n.w.trace(n, "answers %s", (*faultText)(&f))
		n.w.result.Faults++
		a := n.driver.Page(f.Page).Access
		lacks := a == dsm.Invalid || f.Write && a != dsm.Modified
		n.driver.Fault(f)
		if v := n.holder(); v != nil && v.tid == f.TID && lacks {
			v.fetched[f.Page] = true
		}
		return true
	}
}

func (n *node) lookAtHolds() bool {
	if !n.kernel.expired {
		return false
	}
	n.kernel.expired = false
	n.w.trace(n, "looks at its holds")
	n.driver.Alarm()
	return true
}

// holder returns the vCPU here that holds the progress token, as the engine has it.
func (n *node) holder() *vcpu {
	i, ok := n.driver.Holder()
	if !ok {
		return nil
	}
	return n.vcpus[i]
}

// settle follows every call of the engine.
func (n *node) settle() {
	if n.flushing == 0 && !n.failed {
		if err := n.driver.Unsent(); err != nil {
			n.w.violated("node %d: %v, and nobody is about to send", n.id, err)
		}
	}
	h := n.holder()
	for _, v := range n.vcpus {
		if v != h {
			clear(v.fetched)
		}
	}
	for _, d := range n.devices {
		d.look()
	}
	if !n.failed && n.driver.Engine.Err() != nil {
		n.fails()
	}
}

// fails is what the node's owner does when the engine reports the session's end:
// it stops the vCPUs and closes the engine.
func (n *node) fails() {
	n.failed = true
	err := n.driver.Engine.Err()
	n.w.trace(n, "the session ends: %v", err)
	if n.w.sc.Crash == nil || n.w.now < n.w.sc.Crash.At {
		n.w.violated("the session of node %d ends: %v", n.id, err)
		return
	}
	n.w.after(n.cost(1_000_000), func() {
		for _, v := range n.vcpus {
			v.stop()
		}
		if err := n.driver.Engine.Close(); err != nil {
			n.w.violated("close the engine of node %d: %v", n.id, err)
		}
		for _, d := range n.devices {
			d.look()
		}
		n.dead = true
	})
}

// die ends the node's process, or its host.
func (n *node) die() {
	n.w.trace(n, "dies")
	n.dead = true
	for _, v := range n.vcpus {
		v.stop()
	}
	for _, l := range n.wires {
		if l != nil {
			l.cut(n.w.sc.Crash.How == Vanished)
		}
	}
}

// guestClock is the guest's TSC of a node, at 1 GHz.
type guestClock struct{ n *node }

func (c guestClock) Now() uint64 { return uint64(c.n.w.now + c.n.spec.Skew + 1e9) }

func (c guestClock) Await(stamp uint64) error {
	if ahead := int64(stamp - c.Now()); ahead > 0 {
		c.n.delayed += ahead
	}
	return nil
}
