// Package sim runs whole memory engines, two to eight nodes of one guest, on a
// virtual machine of its own: from one seed, in one thread, in virtual time.
//
// # What is real and what is not
//
// The engine is the production code, driven through [dsm.Driver]. Around it
// everything is made up, and decided by the seed:
//
//	seed ─► Scenario: nodes, homes, links, holds, programs, what goes wrong
//	          │
//	          ▼        ┌───────────────── node ──────────────────┐
//	   World: one      │ vCPUs, devices          threads of the  │
//	   queue of events │    │ access  ▲ wake     engine          │
//	   in virtual time │    ▼         │           │ Fault        │
//	                   │ kernel: PTEs, userfaults ▼ Flush        │
//	                   │    ▲ Continue, Zap … ── dsm.Engine ─────┼─► wire ─► …
//	                   └────┼────────────────────────────────────┘
//	                        ▼
//	                truth: what memory must hold, who may hold it
//
// In the files:
//
//   - kernel.go: page table entries with write protection and its markers, the
//     queue of userfaults, wakes and what they forget, as package uffd's ten rules
//     and its tests describe them; reclaim; huge mappings; CPU time.
//   - wire.go: a link delays, loses and is cut as package link shows it: frames
//     come whole, once and in order; a loss delays what is behind it; the end of a
//     peer is an error.
//   - thread.go, node.go: the engine's threads. Each does one thing at a time, takes
//     time for it, sleeps and is woken late; between a thread's work and its flush
//     the others get their turn. A slow node is slow in all of it.
//   - vcpu.go, program.go: vCPUs that execute instructions of 1 to 25 pages, all of
//     which must be there at once, use processor time, halt, exit, and are kicked.
//   - device.go: pins.
//
// # What is checked
//
// Always: at every change of a page table entry and for every pin, one writer or
// many readers; every page that becomes accessible, is read or is written holds
// byte for byte what was last written; a page of the token holder's instruction
// does not leave before the instruction is complete; whatever a thread leaves to be
// sent or done has been after its flush. Now and then: every deferred command has
// somebody who will look at it. An instruction that takes longer than
// [Scenario.Bound] is a failure.
//
// At the end the programs stop and everything must come to rest: no access waits,
// no request, command, pin, or token is out; every counter has the number that was
// counted beside it, on every node; what was sent was received. If a node died,
// every other's session ended with an error that names it, and nobody waits.
//
// # Locks
//
// Built as it is, a call of the engine is indivisible. With the build tag
// simulated the engine's locks are the world's: wherever a thread takes one, lets
// one go, or calls the kernel, others of its node may run, and may have to wait for
// it. That is every order of what the locks keep apart; what happens without one,
// between two atomic operations, is left to the race detector and the tests with
// real threads in package dsm. TestWithLocks builds and runs the seeds so.
package sim
