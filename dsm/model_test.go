package dsm

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// model is a world around Step: N nodes, one page, FIFO channels between every
// pair, and for each node the page table entry and the alias's content as
// actors of their own. It checks after every step that there is one writer or
// there are only readers, and on every access that it sees the last write.
type model struct {
	home     NodeID
	nodes    []modelNode
	dir      Dir
	channels map[[2]NodeID][]modelMsg
	last     int // value of the last write
	reads    int
	writes   int
}

type modelMsg struct {
	msg  Msg
	data int
}

type pte uint8

const (
	pteNone pte = iota
	pteReadOnly
	pteWritable
)

type modelNode struct {
	page     Page
	pte      pte
	alias    int
	faulting bool // a thread sleeps in a userfault
	write    bool // it wants to write
	deferred bool // an EvRelease is owed
	pinned   int8 // 0 none, 1 read, 2 write
}

func newModel(n int, home NodeID) *model {
	m := &model{home: home, nodes: make([]modelNode, n), channels: map[[2]NodeID][]modelMsg{}, dir: NewDir(home)}
	m.nodes[home].page.Access = Modified
	return m
}

func (m *model) step(self NodeID, ev Event, data int) error {
	type local struct {
		ev   Event
		data int
	}
	todo := []local{{ev, data}}
	for len(todo) > 0 {
		cur := todo[0]
		todo = todo[1:]
		var out Actions
		var d *Dir
		if self == m.home {
			d = &m.dir
		}
		n := &m.nodes[self]
		if err := Step(Node{Self: self, Home: m.home, Interval: 1}, &n.page, d, cur.ev, &out); err != nil {
			return err
		}
		for _, a := range out.All() {
			switch a.Op {
			case OpSend:
				mm := modelMsg{a.Msg, n.alias}
				if a.To == self {
					todo = append(todo, local{Event{Kind: EvMessage, From: self, Msg: a.Msg}, n.alias})
				} else {
					k := [2]NodeID{self, a.To}
					m.channels[k] = append(m.channels[k], mm)
				}
			case OpInstall:
				if n.pte != pteNone {
					return fmt.Errorf("node %d: install over a present mapping", self)
				}
				n.alias = cur.data
				n.pte = pteReadOnly
				if a.Writable {
					n.pte = pteWritable
				}
				n.faulting = false
			case OpUpgrade:
				if n.pte == pteReadOnly {
					n.pte = pteWritable
				}
				n.faulting = false
			case OpResolve:
				n.pte = pteReadOnly
				if a.Writable {
					n.pte = pteWritable
				}
				n.faulting = false
			case OpProtect:
				if n.pte == pteWritable {
					n.pte = pteReadOnly
				}
			case OpZap:
				n.pte = pteNone
			case OpDefer:
				n.deferred = true
			case OpPinned:
				n.pinned = 1
				if cur.ev.Write {
					n.pinned = 2
				}
			}
		}
	}
	return m.check()
}

func (m *model) check() error {
	writers, readers := 0, 0
	for i := range m.nodes {
		n := &m.nodes[i]
		switch n.page.Access {
		case Modified:
			writers++
		case Shared, Owned:
			readers++
		}
		if n.pte == pteWritable && n.page.Access != Modified || n.pte == pteReadOnly && n.page.Access == Invalid {
			return fmt.Errorf("node %d: mapping %d in state %v", i, n.pte, n.page.Access)
		}
		if n.page.Access != Invalid {
			if n.alias != m.last {
				return fmt.Errorf("node %d: holds %d in state %v, last write was %d", i, n.alias, n.page.Access, m.last)
			}
			if !m.dir.Copies.Has(NodeID(i)) && m.dir.Phase == Idle {
				return fmt.Errorf("node %d: copy unknown to the directory", i)
			}
		}
	}
	if writers > 1 || writers == 1 && readers > 0 {
		return fmt.Errorf("%d writers and %d readers", writers, readers)
	}
	return nil
}

// act performs one randomly chosen enabled thing. quiet suppresses new work.
func (m *model) act(r *rand.Rand, quiet bool) (acted bool, err error) {
	type choice func() error
	var choices []choice
	for pair := range len(m.nodes) * len(m.nodes) {
		k := [2]NodeID{NodeID(pair / len(m.nodes)), NodeID(pair % len(m.nodes))}
		if len(m.channels[k]) == 0 {
			continue
		}
		choices = append(choices, func() error {
			mm := m.channels[k][0]
			m.channels[k] = m.channels[k][1:]
			return m.step(k[1], Event{Kind: EvMessage, From: k[0], Msg: mm.msg, Held: !quiet && r.IntN(2) == 0}, mm.data)
		})
	}
	for i := range m.nodes {
		n, id := &m.nodes[i], NodeID(i)
		if n.deferred {
			choices = append(choices, func() error {
				n.deferred = false
				return m.step(id, Event{Kind: EvRelease, Held: !quiet && r.IntN(2) == 0}, 0)
			})
		}
		if n.pinned != 0 {
			choices = append(choices, func() error {
				if n.pinned == 2 {
					m.last++
					n.alias = m.last
				}
				w := n.pinned == 2
				n.pinned = 0
				return m.step(id, Event{Kind: EvUnpin, Write: w}, 0)
			})
		}
		if quiet {
			continue // a sleeping thread is woken by an install only
		}
		if !n.faulting {
			write := r.IntN(2) == 0
			choices = append(choices, func() error {
				switch {
				case write && n.pte == pteWritable:
					m.last++
					m.writes++
					n.alias = m.last
				case !write && n.pte != pteNone:
					m.reads++
					if n.alias != m.last {
						return fmt.Errorf("node %d read %d, last write was %d", i, n.alias, m.last)
					}
				default:
					n.faulting, n.write = true, write
					return m.step(id, Event{Kind: EvFault, Write: write, Token: r.IntN(4) == 0}, 0)
				}
				return m.check()
			})
		}
		if r.IntN(8) == 0 {
			switch r.IntN(5) {
			case 4:
				choices = append(choices, func() error {
					return m.step(id, Event{Kind: EvFetch, Write: r.IntN(2) == 0}, 0)
				})
			case 0: // reclaim
				choices = append(choices, func() error { n.pte = pteNone; return nil })
			case 1: // a stale or duplicate userfault
				choices = append(choices, func() error {
					return m.step(id, Event{Kind: EvFault, Write: r.IntN(2) == 0}, 0)
				})
			case 2:
				if n.pinned == 0 {
					choices = append(choices, func() error {
						return m.step(id, Event{Kind: EvPin, Write: r.IntN(2) == 0}, 0)
					})
				}
			case 3:
				choices = append(choices, func() error { return m.step(id, Event{Kind: EvPromote}, 0) })
			}
		}
	}
	if len(choices) == 0 {
		return false, nil
	}
	return true, choices[r.IntN(len(choices))]()
}

// TestStepRandomWalk runs the production step function in the model along
// random schedules and then lets everything come to rest: no thread may be
// left asleep.
func TestStepRandomWalk(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for _, nodes := range []int{2, 3, 5} {
		for run := range 200 {
			r := rand.New(rand.NewPCG(seed, uint64(nodes*1000+run)))
			m := newModel(nodes, NodeID(r.IntN(nodes)))
			for i := range 600 {
				if _, err := m.act(r, false); err != nil {
					t.Fatalf("seed %d nodes %d run %d step %d: %v", seed, nodes, run, i, err)
				}
			}
			for i := 0; ; i++ {
				acted, err := m.act(r, true)
				if err != nil {
					t.Fatalf("seed %d nodes %d run %d at rest: %v", seed, nodes, run, err)
				}
				if !acted {
					break
				}
				if i > 10000 {
					t.Fatalf("seed %d nodes %d run %d: does not come to rest", seed, nodes, run)
				}
			}
			for i := range m.nodes {
				if n := &m.nodes[i]; n.faulting || n.page.Want != WantNothing || n.page.Deferred != Nothing {
					t.Fatalf("seed %d nodes %d run %d: node %d forgotten: %+v", seed, nodes, run, i, *n)
				}
			}
			if m.dir.Phase != Idle || m.dir.Waiting() != 0 {
				t.Fatalf("seed %d nodes %d run %d: directory not at rest: %+v", seed, nodes, run, m.dir)
			}
			if m.reads == 0 || m.writes == 0 {
				t.Fatalf("seed %d: the walk did nothing", seed)
			}
		}
	}
}

func TestWaitQueue(t *testing.T) {
	var q waitQueue
	for n := range NodeID(MaxNodes) {
		q.push(n, n%2 == 0)
	}
	q.toFront(15)
	q.toFront(3)
	want := []NodeID{3, 15, 0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
	for _, w := range want {
		n, write := q.pop()
		if n != w || write != (w%2 == 0) {
			t.Fatalf("popped %d write=%v, want %d", n, write, w)
		}
	}
	if q != (waitQueue{}) {
		t.Fatalf("empty queue is %+v", q)
	}
	q.push(1, true)
	q.pushFront(2, false)
	if n, w := q.pop(); n != 2 || w {
		t.Fatalf("pushFront: popped %d %v", n, w)
	}
}
