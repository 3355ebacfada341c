package explore

import "coalesce/dsm"

// mutation makes the protocol wrong in one place, to see whether that is
// noticed: around the production code, or in the duties of those who call it.
type mutation struct {
	// before may change what a step is given; false leaves the step out.
	before func(n dsm.Node, p *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool
	// after may change what a step leaves, and what it asks for. ev is what came.
	after func(n dsm.Node, p *dsm.Page, d *dsm.Dir, ev dsm.Event, acts []dsm.Action) []dsm.Action
	// perform may change an action before it is carried out.
	perform func(w *world, n dsm.NodeID, a *act)
	// queue stands before the token queue; false ignores the message.
	queue func(q *dsm.TokenQueue, kind dsm.Kind, from dsm.Waiter) bool
	// fault returns what the engine takes a userfault for.
	fault func(e pte, write bool) bool
	// pass takes the place of a lineage's Pass.
	pass  func(l *dsm.Lineage, to dsm.NodeID, changed bool) (version uint32, holders dsm.NodeSet, knew bool)
	skips duty
}

// duty is something that the engine or the kernel has to do.
type duty uint8

const (
	noDuty            duty = iota
	dutyFill               // fill the alias before a page is mapped
	dutyWake               // wake a page's waiters
	dutyPush               // put what is deferred into the hold queue
	dutyStreak             // keep the pages of the holder's streak
	dutyReleaseStreak      // carry out what the streak delayed
	dutyHalt               // take the token from a vCPU that halts
	dutyProven             // promote no request of a vCPU that has proved its progress
	dutyTwin               // take a twin of what becomes writable
	dutyMark               // map a page that was asked for ahead once somebody waits for it
)
