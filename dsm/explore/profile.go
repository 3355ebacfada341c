package explore

import (
	"fmt"

	"coalesce/dsm"
)

// Bounds of a model.
const (
	maxNodes   = 3
	maxPages   = 2
	maxThreads = 4
)

// Access is a page that an instruction needs.
type Access struct {
	Page  uint8
	Write bool
}

// Instr is an instruction: what it needs at once, in the order in which it
// faults.
type Instr []Access

// R and W are instructions that read and write one page.
func R(page uint8) Instr { return Instr{{Page: page}} }

// W is described at R.
func W(page uint8) Instr { return Instr{{Page: page, Write: true}} }

// Thread is a vCPU.
type Thread struct {
	Node dsm.NodeID
	// Program holds what it executes: once, in this order, if Once is set; else
	// whatever of it, whenever, for ever.
	Program []Instr
	Once    bool
}

// HoldRule says when a page is within its minimum hold.
type HoldRule uint8

// The rules. The token's streak holds beside all of them.
const (
	HoldNone HoldRule = iota // never
	HoldFree                 // whenever that can make a difference
	HoldUsed                 // until every vCPU that was woken for the page has run
)

// Disturbance is something that may happen at any time and need not.
type Disturbance uint8

// The disturbances. The protocol has no eviction, leave and re-homing yet.
const (
	Stale     Disturbance = iota // a userfault whose thread does not wait for it (any more)
	Duplicate                    // a userfault like one that was sent
	Interrupt                    // a signal ends a thread's wait
	Reclaim                      // the kernel unmaps a page
	Fetch                        // the engine asks for a page ahead of its fault, perhaps to be mapped at the first only
	Promote                      // a fault or a promotion has the token's flag without the token

	disturbances
)

func (d Disturbance) String() string {
	return [...]string{"stale", "duplicate", "interrupt", "reclaim", "fetch", "promote"}[d]
}

// Profile is a model to explore.
type Profile struct {
	Name    string
	Nodes   int
	Homes   []dsm.NodeID // of each page; pages with the same home share a region
	Threads []Thread
	// Devices are the nodes with a device that reads and writes every page.
	Devices []dsm.NodeID
	Hold    HoldRule
	// Habit lets a read miss ask to write.
	Habit bool
	// Token adds streaks and the progress token. With Eager the first robbery
	// makes a vCPU ask for it.
	Token, Eager bool
	// Contents adds what a Data message carries: the page, what changed in it, or
	// nothing, as the copies' lineages allow.
	Contents bool
	// Budget is how often each disturbance may happen.
	Budget [disturbances]uint8
	// Starvation looks for weakly fair cycles, too. It keeps all edges and
	// forgoes symmetry.
	Starvation bool
	// Slow marks what is too large for the tests.
	Slow bool
}

// check reports a profile that is out of bounds.
func (p *Profile) check() error {
	switch {
	case p.Nodes < 1 || p.Nodes > maxNodes:
		return fmt.Errorf("profile %s: %d nodes, limit %d", p.Name, p.Nodes, maxNodes)
	case len(p.Homes) < 1 || len(p.Homes) > maxPages:
		return fmt.Errorf("profile %s: %d pages, limit %d", p.Name, len(p.Homes), maxPages)
	case len(p.Threads) > maxThreads:
		return fmt.Errorf("profile %s: %d threads, limit %d", p.Name, len(p.Threads), maxThreads)
	}
	return nil
}

// free returns a thread for each node that does each of instrs at any time.
func free(nodes int, instrs ...Instr) (threads []Thread) {
	for n := range nodes {
		threads = append(threads, Thread{Node: dsm.NodeID(n), Program: instrs})
	}
	return threads
}

// once returns a thread that does instrs in their order.
func once(node dsm.NodeID, instrs ...Instr) Thread {
	return Thread{Node: node, Program: instrs, Once: true}
}
