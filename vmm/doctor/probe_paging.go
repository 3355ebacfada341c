package doctor

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"coalesce/dsm/uffd"
	"coalesce/vcpu/kvm"
)

// walks counts the faults on a guest's page tables while the guest goes on using
// pages that they map.
type walks struct {
	taken     int // after the tables were unmapped
	protected int // after they were write-protected, with accessed and dirty bits set
}

// watchWalks changes the right to a guest's page tables while the guest counts in
// memory, and watches who asks for them before the count is done.
//
// With nested paging, either change also ends what the processor remembers of the
// tables. It must walk them in guest memory again for the guest to go on, and
// faults where they are unmapped. Processors that count a walk as a write even if
// no bit changes fault where they are write-protected, too: EPT with accessed and
// dirty flags (SDM vol. 3, "EPT Violations") and AMD's nested paging always.
//
// With shadow paging the processor walks KVM's own tables, and the count goes on.
// KVM reads the guest's once the guest exits: to emulate its last store.
func watchWalks(sys *kvm.System) (w walks, err error) {
	g, err := newMicroGuest(sys, countProgram, 3, nil)
	if err != nil {
		return walks{}, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	r, err := startResolver(g.mem, g.count)
	if err != nil {
		return walks{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()

	// Long enough for another thread to get a turn in it.
	n, _, err := g.longRun(20 * time.Millisecond)
	if err != nil {
		return walks{}, err
	}
	if w.taken, err = g.faultsOnTables(r, n, r.u.Zap); err != nil {
		return walks{}, err
	}
	// Tables that nobody walked are unmapped still. All must be mapped, or the next
	// fault could be another's on that account.
	for page := uint32(firstTable); page < firstTable+tables; page++ {
		if _, err := r.u.Continue(page, 1, false); err != nil && err != uffd.ErrPresent {
			return walks{}, err
		}
	}
	w.protected, err = g.faultsOnTables(r, n, r.u.WriteProtect)
	return w, err
}

// faultsOnTables lets the guest count to n, changes its page tables meanwhile, and
// returns how many faults on them came before the count was done.
func (g *microGuest) faultsOnTables(r *resolver, n uint32, change func(page uint32, n int) error) (int, error) {
	const tries = 3
	for range tries {
		if _, err := r.take(); err != nil {
			return 0, err
		}
		g.setCount(0)
		g.mail(n)
		changed := make(chan error, 1)
		var after uint64
		go func() {
			for g.count() == 0 {
				runtime.Gosched()
			}
			err := change(firstTable, tables)
			after = g.count()
			changed <- err
		}()
		_, err := g.toDoor()
		if err != nil {
			g.setCount(1) // ends the wait for the first count
		}
		if err := errors.Join(err, <-changed); err != nil {
			return 0, err
		}
		seen, err := r.take()
		if err != nil {
			return 0, err
		}
		early := 0
		for _, f := range seen {
			if f.Page >= firstTable && f.Page < firstTable+tables && f.note < uint64(n) {
				early++
			}
		}
		// With no fault, the guest must have had to go on for a while.
		if early > 0 || after < uint64(n)/2 {
			return early, nil
		}
		n *= 4
	}
	return 0, fmt.Errorf("the guest's count was over before its page tables were changed, %d times", tries)
}

// probeNestedPaging sees whether the processor walks guest page tables itself.
func probeNestedPaging(p *patient) Check {
	module, nested := p.kvmModule()
	says := ""
	if nested != "" {
		says = fmt.Sprintf(" (%s %s=%s)", module, nested, p.file("sys/module/"+module+"/parameters/"+nested))
	} else if module != "" {
		says = fmt.Sprintf(" (%s)", module)
	}
	c := Check{
		Status: Missing,
		Costs:  "no Linux guest across hosts: stale translations would survive another host's change of a page table",
		Mend:   "run on a processor with EPT or NPT (or where the hypervisor below offers it)",
	}
	if nested != "" {
		c.Mend = reload(module, nested+"=1")
	}
	w, err := watchWalks(p.sys)
	switch {
	case err != nil:
		// Without userfaultfd there is nothing to measure with: the module's word counts.
		p.nested = nested != "" && on(p.file("sys/module/"+module+"/parameters/"+nested))
		c.Measured = fmt.Sprintf("not measured: %v%s", err, says)
		if p.nested {
			c.Status, c.Costs, c.Mend = Degraded, "unknown until it is measured", "make the userfaultfd check ok"
		}
		return c
	case w.taken == 0:
		c.Measured = "shadow paging: a guest goes on without its page tables" + says
		return c
	}
	p.nested = true
	p.walksWrite = w.protected > 0
	return ok("the processor walks guest page tables: %d faults where %d were taken away%s", w.taken, tables, says)
}

// probeWalks tells whether the walks that probeNestedPaging saw count as writes.
func probeWalks(p *patient) Check {
	switch {
	case !p.nested:
		return Check{Status: Missing, Measured: "not probed: needs nested paging"}
	case !p.walksWrite:
		return ok("reads only: hosts can share page tables")
	}
	c := Check{
		Status:   Degraded,
		Measured: "writes: a write-protected page table faults though no bit in it changes",
		Costs:    "hosts cannot share page tables: these bounce whenever two hosts use the same ones",
		Mend:     "none here: AMD's nested paging always writes",
	}
	if module, _ := p.kvmModule(); module == "kvm_intel" {
		c.Mend = reload(module, "eptad=0")
	}
	return c
}
