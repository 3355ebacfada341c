// Package coherence tests the memory of a guest on several hosts from inside, without a kernel: teams of vCPUs
// (package bare), one in each `coalesce` process, run small programs on shared pages, check what they see, and say on
// the serial port what they did.
//
//	counters.go  contended counters, whole and across two pages (split locks)
//	litmus.go    litmus tests of the memory model
//	fetch.go     instructions that another host rewrites
//	storm.go     random accesses to many pages
//	scan.go      reading through memory that another host writes
//	movs.go      one instruction that needs many pages, while all fight over them
//
// The programs' parts run one after the other in one kernel. They do their work in ring 3, so that a KVM which emulates
// ring 0 runs them at full speed, and leave page tables alone, so that it is coherent. The tests print what they saw;
// `go test -v ./tests/coherence -args -times 20` takes more time for it.
package coherence

import "coalesce/tests/bare"

// part is a piece of a team's program. It begins and ends with all vCPUs at a barrier, may change every register but
// R14, R15 and RSP, and reports what it has done under its name.
type part func(t *bare.Team)

// kernel makes a kernel of parts.
func kernel(n int, seed uint64, parts ...part) ([]byte, error) {
	t, err := bare.NewTeam(n, seed)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		t.Barrier()
		p(t)
	}
	return t.End()
}

// kinds says in words what the kinds of failures are.
var kinds = map[uint64]string{
	counterBack:   "a counter went back",
	counterTotal:  "a counter's end is not the sum of what was added",
	counterSum:    "a counter's values were not seen once each",
	fetchStale:    "code older than what its writer had announced ran",
	fetchFuture:   "code that its writer had not begun to write ran",
	stormBack:     "a shared counter went back",
	stormOwn:      "a word that this vCPU alone writes is not what it wrote",
	stormBlock:    "words that change together differ",
	stormLock:     "a block was not changed as often as its lock was taken",
	stormTotal:    "a shared counter's end is not the sum of what was added",
	stormLast:     "a word's end is not what its vCPU wrote last",
	stormChecksum: "two vCPUs do not see the same memory",
	scanBack:      "a word that a reader came to again went back",
	scanOrder:     "two words were seen in another order than they were written in",
	scanLast:      "a word's end is not what was written last",
	movsFight:     "a word that this vCPU alone writes is not what it wrote",
	movsPointer:   "an instruction was not executed once",
	movsResult:    "an instruction has not copied what there was",
}
