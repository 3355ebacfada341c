package sim

import (
	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// kernel is a node's dsm.Host: guest memory in two views and the clocks. It does
// what Linux does, as package uffd's rules and their tests describe it; the
// numbers in comments are theirs.
type kernel struct {
	n     *node
	alias []*pageBytes // nil: a hole
	pte   []pte
	// Of each region: it faults to the engine; its own 2 MiB page maps it.
	registered, huge []bool

	unread   []*userfault
	vanished uint64 // were gone before they were read

	alarm   uint64 // counts settings; only the last one goes off
	expired bool   // it has gone off and was not read
	closed  bool
}

// pte is a page table entry of the guest view.
type pte struct {
	present bool
	// wp: write-protected; of an entry that is not present, a marker (5).
	wp bool
}

// userfault is a message to the engine about a thread that sleeps, or slept.
type userfault struct {
	uffd.Fault
	v *vcpu // that sleeps until the page is woken; nil: nobody
}

func newKernel(n *node, pages int) *kernel {
	k := &kernel{n: n, alias: make([]*pageBytes, pages), pte: make([]pte, pages),
		registered: make([]bool, pages/dsm.RegionPages), huge: make([]bool, pages/dsm.RegionPages)}
	for r, home := range n.w.sc.Homes {
		k.huge[r] = home == n.id && n.spec.Huge
		first := uint32(r) * dsm.RegionPages
		for p := first; home == n.id && p < first+dsm.RegionPages; p++ {
			// Before it is registered, any access maps it.
			n.w.truth.writers[p] = dsm.NodeSet(0).With(n.id)
			k.pte[p].present = k.huge[r]
		}
	}
	return k
}

// bytes returns a page of the page cache; reading a hole allocates it (6).
func (k *kernel) bytes(page uint32) *pageBytes {
	if k.alias[page] == nil {
		k.alias[page] = k.n.w.newPage()
	}
	return k.alias[page]
}

// set changes an entry.
func (k *kernel) set(page uint32, to pte) {
	k.pte[page] = to
	k.n.w.truth.mapped(k.n, page, to.present, to.present && !to.wp)
}

// access is a thread's access through the guest view. If it cannot be had, f is
// what the engine is told.
func (k *kernel) access(page uint32, write bool) (f uffd.Fault, ok bool) {
	switch e := k.pte[page]; {
	case k.closed || !k.registered[page/dsm.RegionPages]:
		if !e.present {
			k.pte[page] = pte{present: true}
		}
		return f, true
	case !e.present:
		// A marker makes no difference (5): it is a minor fault if the page is there.
		return uffd.Fault{Page: page, Write: write, Minor: k.alias[page] != nil}, false
	case write && e.wp:
		return uffd.Fault{Page: page, Write: true, WP: true}, false
	}
	return f, true
}

// post puts a message into the queue.
func (k *kernel) post(f *userfault) {
	k.n.w.trace(k.n, "kernel: %s", (*faultText)(&f.Fault))
	k.unread = append(k.unread, f)
	k.n.faults.wake()
}

// forget removes a message of a thread that does not sleep any more. If it was
// read already it is stale, which the engine has to live with (3).
func (k *kernel) forget(f *userfault) {
	f.v = nil
	for i, o := range k.unread {
		if o == f {
			k.unread = append(k.unread[:i], k.unread[i+1:]...)
			k.vanished++
			return
		}
	}
}

// wake lets the threads go on that sleep on n pages from page on.
func (k *kernel) wake(page uint32, n int) {
	for _, v := range k.n.vcpus {
		if f := v.fault; f != nil && f.Page-page < uint32(n) {
			k.forget(f)
			v.woken()
		}
	}
}

// split drops a 2 MiB mapping: all 512 pages are gone from the guest view (10).
func (k *kernel) split(page uint32) {
	r := page / dsm.RegionPages
	if !k.huge[r] {
		return
	}
	k.huge[r] = false
	for p := r * dsm.RegionPages; p < (r+1)*dsm.RegionPages; p++ {
		k.set(p, pte{})
	}
}

// reclaim unmaps a page, valid or not (7).
func (k *kernel) reclaim(page uint32) {
	if e := k.pte[page]; e.present && k.registered[page/dsm.RegionPages] && !k.huge[page/dsm.RegionPages] {
		k.n.w.trace(k.n, "kernel: unmaps page %#x to reclaim it", page)
		e.present = false
		k.set(page, e)
	}
}

// What follows is dsm.Host. The memory is one window from address 0 on.

func (k *kernel) Pages() int { return len(k.pte) }

func (k *kernel) Index(gpa uint64) (page uint32, ok bool) {
	return uint32(gpa / dsm.PageSize), gpa/dsm.PageSize < uint64(len(k.pte))
}

func (k *kernel) GPA(page uint32) uint64 { return uint64(page) * dsm.PageSize }

func (k *kernel) Alias(page uint32, n int) []byte {
	if n != 1 {
		panic("sim: the pages of the alias do not lie side by side")
	}
	return k.bytes(page)[:]
}

func (k *kernel) PopulateAlias(page uint32, n int) error {
	for p := page; p < page+uint32(n); p++ {
		k.bytes(p)
	}
	return nil
}

func (k *kernel) Register(page uint32, n int) error {
	k.n.w.Switch()
	for r := page / dsm.RegionPages; r < (page+uint32(n))/dsm.RegionPages; r++ {
		k.n.w.trace(k.n, "kernel: region %d is registered", r)
		k.registered[r] = true
		for p := r * dsm.RegionPages; p < (r+1)*dsm.RegionPages; p++ {
			k.set(p, k.pte[p]) // what is mapped stays mapped
		}
	}
	return nil
}

func (k *kernel) Continue(page uint32, n int, wp bool) (mapped int, err error) {
	k.n.w.Switch()
	defer func() { k.wake(page, mapped) }()
	stop := func(why error) (int, error) {
		if mapped > 0 {
			why = uffd.ErrPartial
		}
		return mapped, why
	}
	for p := page; p < page+uint32(n); p++ {
		switch {
		case !k.registered[p/dsm.RegionPages]:
			return stop(uffd.ErrUnregistered)
		case k.n.w.dice.chance(0.001):
			return stop(uffd.ErrPartial) // the address space is changing (2)
		case k.pte[p].present:
			return stop(uffd.ErrPresent) // and wakes nobody (2)
		case k.alias[p] == nil:
			return stop(uffd.ErrHole)
		}
		k.set(p, pte{present: true, wp: wp}) // over a marker, too (5, 10)
		k.n.meanwhile(p)
		mapped++
	}
	return mapped, nil
}

func (k *kernel) WriteProtect(page uint32, n int) error {
	k.n.w.Switch()
	for p := page; p < page+uint32(n); p++ {
		k.n.meanwhile(p)
		k.taken(p, true)
		k.split(p)
		k.set(p, pte{present: k.pte[p].present, wp: true})
	}
	return nil
}

func (k *kernel) Unprotect(page uint32, n int) error {
	k.n.w.Switch()
	for p := page; p < page+uint32(n); p++ {
		k.set(p, pte{present: k.pte[p].present})
		k.n.meanwhile(p)
	}
	k.wake(page, n)
	return nil
}

func (k *kernel) Zap(page uint32, n int) error {
	k.n.w.Switch()
	for p := page; p < page+uint32(n); p++ {
		k.n.meanwhile(p)
		k.taken(p, false)
		k.split(p)
		k.set(p, pte{wp: k.pte[p].wp}) // a marker stays (5)
	}
	return nil
}

// taken checks that the engine may take a page: what the token's holder has
// fetched stays until it is used, unless the node needs the page for more than it
// has it for. onlyWrite: it may still be read.
func (k *kernel) taken(page uint32, onlyWrite bool) {
	v, _ := k.n.holder()
	if v == nil || !v.fetched[page] || k.n.driver.Page(page).Want != dsm.WantNothing {
		return
	}
	if e := k.pte[page]; v.needs(page, onlyWrite) && e.present && !(onlyWrite && e.wp) {
		k.n.w.violated("node %d gives up page %#x, which the token's holder, vCPU %d, has fetched and not used", k.n.id, page, v.index)
	}
}

func (k *kernel) Wake(page uint32, n int) error {
	k.n.w.Switch()
	k.wake(page, n)
	return nil
}

func (k *kernel) Vanished() uint64 { return k.vanished }

func (k *kernel) Breathe() { k.n.w.current.sleep(100_000) }

func (k *kernel) Now() int64 { return k.n.w.now + k.n.boot }

func (k *kernel) CPUTime(tid uint32) uint64 {
	for _, v := range k.n.vcpus {
		if v.tid == tid {
			return v.cpuTime()
		}
	}
	return 0
}

func (k *kernel) SetAlarm(in int64) {
	k.alarm++
	k.expired = false // as timerfd_settime does
	setting := k.alarm
	k.n.w.after(in, func() {
		if setting == k.alarm && !k.n.dead {
			k.expired = true
			k.n.holds.wake()
		}
	})
}

// Close unregisters everything, which wakes everybody.
func (k *kernel) Close() error {
	k.closed = true
	k.wake(0, len(k.pte))
	k.unread = nil
	return nil
}
