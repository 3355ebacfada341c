package sim

import (
	"fmt"
	"slices"

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

	inside int // threads within a call of the engine
	owing  int // threads that are, or owe the flush after it

	failed bool // the session ended here
	ending bool // the owner has its threads end
	dead   bool // all is gone
}

// server is a thread of the engine. It does one thing after the other and then
// sleeps until there is more. Between what it does and its flush others run.
type server struct {
	n    *node
	t    *thread
	idle bool
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
	n.faults = n.serve("faults", n.faultReader())
	n.holds = n.serve("holds", n.lookAtHolds)
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

// serve makes a thread of the engine. do returns what there is to do next, nil if
// there is nothing.
func (n *node) serve(name string, next func() (do func())) *server {
	s := &server{n: n, idle: true}
	s.t = n.spawn(name, func(t *thread) {
		for !n.ending {
			do := next()
			if do == nil {
				s.idle = true
				t.park()
				t.sleep(n.cost(costWake))
				continue
			}
			n.owing++
			n.call(do)
			t.sleep(n.cost(costWork))
			n.call(n.driver.Flush)
			n.owing--
			n.settle()
			t.sleep(n.cost(costFlush))
		}
	})
	return s
}

// wake is for whoever has something for the thread to do.
func (s *server) wake() {
	if s.idle {
		s.idle = false
		s.t.wakeIn(1)
	}
}

// call calls the engine.
func (n *node) call(do func()) {
	n.inside++
	do()
	n.inside--
	n.settle()
}

// callFlushed calls what flushes by itself.
func (n *node) callFlushed(do func()) {
	n.owing++
	n.inside++
	do()
	n.inside--
	n.owing--
	n.settle()
}

// faultReader returns what the thread of the userfaults does: it reads up to 16
// and answers them one by one; meanwhile they may become stale.
func (n *node) faultReader() func() func() {
	var read []uffd.Fault
	var f uffd.Fault
	answer := func() {
		n.w.trace(n, "answers %s", (*faultText)(&f))
		n.w.result.Faults++
		n.driver.Fault(f)
		if v, streak := n.holder(); v != nil && v.tid == f.TID && slices.Contains(streak, f.Page) {
			v.fetched[f.Page] = true // unless it was there already
		}
	}
	return func() func() {
		if len(read) == 0 {
			k := n.kernel
			for _, f := range k.unread[:min(16, len(k.unread))] {
				read = append(read, f.Fault)
			}
			k.unread = append(k.unread[:0], k.unread[len(read):]...)
			if len(read) == 0 {
				return nil
			}
		}
		f = read[0]
		read = read[1:]
		return answer
	}
}

func (n *node) lookAtHolds() func() {
	if !n.kernel.expired {
		return nil
	}
	n.kernel.expired = false
	n.w.trace(n, "looks at its holds")
	return n.driver.Alarm
}

// holder returns the vCPU here that holds the progress token, as the engine has
// it, and its streak.
func (n *node) holder() (v *vcpu, streak []uint32) {
	i, streak, ok := n.driver.Holder()
	if !ok {
		return nil, nil
	}
	return n.vcpus[i], streak
}

// settle follows every call of the engine.
func (n *node) settle() {
	if n.owing == 0 && !n.failed {
		if err := n.driver.Unsent(); err != nil {
			n.w.violated("node %d: %v, and nobody is about to send", n.id, err)
		}
	}
	h, _ := n.holder()
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
// it stops the vCPUs and closes the engine, and waits for all threads.
func (n *node) fails() {
	n.failed = true
	err := n.driver.Engine.Err()
	n.w.trace(n, "the session ends: %v", err)
	if !n.w.crashed() {
		n.w.violated("the session of node %d ends: %v", n.id, err)
		return
	}
	n.spawn("owner", func(t *thread) {
		t.sleep(n.cost(1_000_000))
		n.ending = true
		for _, v := range n.vcpus {
			v.t.wakeIn(1)
		}
		if err := n.driver.Engine.Close(); err != nil {
			n.w.violated("close the engine of node %d: %v", n.id, err)
		}
		for _, d := range n.devices {
			d.look()
		}
		for n.inside > 0 {
			t.sleep(10_000)
		}
		n.dead = true
	}).wakeIn(1)
}

// die ends the node's process, or its host.
func (n *node) die() {
	n.w.trace(n, "dies")
	n.dead = true
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
		c.n.w.current.sleep(ahead)
	}
	return nil
}
