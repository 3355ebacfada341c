package explore

import (
	"coalesce/dsm"
)

// checkState looks for broken rules in w.s. Rules that a step of the engine
// breaks within are left out while it is under way.
func (w *world) checkState() {
	for i := range w.p.Homes {
		w.checkPage(uint8(i))
		if !w.busy() {
			w.checkDirectory(uint8(i))
		}
	}
	if w.p.Token {
		w.checkToken()
	}
}

// busy reports whether some node's engine is within a step.
func (w *world) busy() bool {
	for n := range w.p.Nodes {
		if w.s.pend[n].on {
			return true
		}
	}
	return false
}

// checkPage: one writer or readers, and they have the last write.
func (w *world) checkPage(page uint8) {
	var writers, readers dsm.NodeSet
	for i := range w.p.Nodes {
		n := dsm.NodeID(i)
		c := &w.s.copies[n][page]
		d := &w.s.devices[n]
		pins := d.phase == pinned && d.page == page
		switch {
		case c.pte == writable || pins && d.write:
			writers = writers.With(n)
		case c.pte == readOnly || pins:
			readers = readers.With(n)
		default:
			continue
		}
		if !c.fresh {
			w.breaks("node %d has %s mapped, or pinned, without the last write", n, pageName(page))
		}
		if w.s.pend[n].on {
			continue
		}
		if pins && !allows(c.page.Access, d.write) || !c.pte.covered(c.page.Access) {
			w.breaks("node %d may do more with %s than its state %v allows", n, pageName(page), c.page.Access)
		}
	}
	if writers != 0 && (readers != 0 || writers&(writers-1) != 0) {
		w.breaks("%s has writers on nodes %v and readers on nodes %v", pageName(page), setName(writers), setName(readers))
	}
}

func (e pte) covered(a dsm.Access) bool { return e == none || allows(a, e == writable) }

// checkDirectory: every copy is in the home's set, except the requester's of a
// transfer that is not done; and what is in the set is a copy, except while a
// message that changes that is on its way.
func (w *world) checkDirectory(page uint8) {
	home := w.p.Homes[page]
	d := &w.s.dirs[page]
	for i := range w.p.Nodes {
		n := dsm.NodeID(i)
		c := &w.s.copies[n][page]
		has := c.page.Access != dsm.Invalid
		switch {
		case has == d.Copies.Has(n):
			if has && d.Owner != n && c.page.Access != dsm.Shared && (d.Phase != dsm.Moving || d.Requester != n) {
				w.breaks("node %d has %s in state %v, its directory names owner %d", n, pageName(page), c.page.Access, d.Owner)
			}
		case has:
			if d.Phase != dsm.Moving || d.Requester != n {
				w.breaks("the directory does not know node %d's copy of %s", n, pageName(page))
			}
		default:
			if !w.travels(home, n, page, dsm.Data) && !w.travels(n, home, page, dsm.InvAck) &&
				!(d.Phase == dsm.Moving && d.Write && d.Owner == n) {
				w.breaks("the directory counts on node %d's copy of %s, which is not there", n, pageName(page))
			}
		}
	}
}

// travels reports whether a message is on its way.
func (w *world) travels(from, to dsm.NodeID, page uint8, kind dsm.Kind) bool {
	l := &w.s.links[from][to]
	for _, m := range l.m[:l.n] {
		if m.page == page && m.kind == kind {
			return true
		}
	}
	return false
}

// checkToken: who asks is known or about to be; one holds; the holder's request
// is at its queue's head, or on its way there.
func (w *world) checkToken() {
	q := &w.s.tokens
	for k := range w.p.Threads {
		t := &w.s.threads[k]
		n := w.p.Threads[k].Node
		s := w.load(k)
		holds := q.n > 0 && int(q.threads[0]) == k
		if s.Asking() {
			known := holds && w.tokenTravels(0, n, dsm.TokenGrant, k) || w.tokenTravels(n, 0, dsm.TokenReq, k)
			for i := 1; i < int(q.n); i++ {
				known = known || int(q.threads[i]) == k
			}
			if !known {
				w.breaks("vCPU %d asks for the token and nobody knows", k)
			}
		}
		if !s.Holding() {
			continue
		}
		if !holds {
			w.breaks("vCPU %d has the token, the client does not know", k)
		}
		if t.granting || t.promote > 0 || t.unseen || t.ran || t.phase != asleep || t.queued || w.busy() {
			continue
		}
		d := &w.s.dirs[t.page]
		if d.Position(n) > 0 && !w.promotes(n, t.page) {
			w.breaks("vCPU %d holds the token and its request for %s waits in the queue", k, pageName(t.page))
		}
	}
}

// promotes reports whether a request with the token's flag is on its way.
func (w *world) promotes(n dsm.NodeID, page uint8) bool {
	l := &w.s.links[n][w.p.Homes[page]]
	for _, m := range l.m[:l.n] {
		if m.kind == dsm.Req && m.page == page && m.flags&dsm.FlagToken != 0 {
			return true
		}
	}
	return false
}

func (w *world) tokenTravels(from, to dsm.NodeID, kind dsm.Kind, k int) bool {
	if from == to {
		return w.s.bag[kind-dsm.TokenReq]>>k&1 != 0
	}
	return w.travels(from, to, uint8(k), kind)
}

// checkQueue compares a directory's queue before and after a step: places only
// fall, but a request of the token's holder goes to the head.
func (w *world) checkQueue(before, after *dsm.Dir, ev dsm.Event) {
	token := ev.Kind == dsm.EvMessage && ev.Msg.Kind == dsm.Req && ev.Msg.Flags&dsm.FlagToken != 0
	for i := range after.Waiting() {
		n, _ := after.Waiter(i)
		was := before.Position(n)
		if token && n != ev.From {
			was++
		}
		if was >= 0 && i > was && before.Position(n) >= 0 {
			w.breaks("node %d falls back from place %d to %d in a queue", n, before.Position(n), i)
		}
	}
	if token && after.Position(ev.From) > 0 {
		w.breaks("node %d's request with the token is at place %d of the queue", ev.From, after.Position(ev.From))
	}
}

// checkTaken is called before a page is unmapped, or write-protected: the
// holder's streak keeps its pages until its instruction is complete, unless its
// node itself waits for the page.
func (w *world) checkTaken(n dsm.NodeID, page uint8, protect bool) {
	k := int(w.s.holding[n]) - 1
	if k < 0 || w.s.copies[n][page].page.Want != dsm.WantNothing {
		return
	}
	t := &w.s.threads[k]
	s := w.load(k)
	if s.Holding() && s.Open(uint32(page)) && !t.ran && !t.unseen {
		what := "unmapped"
		if protect {
			what = "write-protected"
		}
		w.breaks("%s is %s under the token's holder before its instruction is complete", pageName(page), what)
	}
}

// atRest reports whether nothing is left to do and nobody waits.
func (w *world) atRest() bool {
	s := w.s
	if w.busy() || s.tokens.n > 0 || s.bag != [3]uint8{} || s.holding != [maxNodes]uint8{} {
		return false
	}
	for i := range s.extra {
		if s.extra[i].on {
			return false
		}
	}
	for i := range w.p.Homes {
		if d := &s.dirs[i]; d.Phase != dsm.Idle || d.Waiting() > 0 {
			return false
		}
		for n := range w.p.Nodes {
			if c := &s.copies[n][i]; c.page.Want != dsm.WantNothing || c.page.Deferred != dsm.Nothing || c.page.Pins > 0 {
				return false
			}
		}
	}
	for n := range w.p.Nodes {
		if s.devices[n].phase != idle {
			return false
		}
		for m := range w.p.Nodes {
			if s.links[n][m].n > 0 {
				return false
			}
		}
	}
	for k := range w.p.Threads {
		t := &s.threads[k]
		if t.phase != idle || t.giving != givesNothing || t.granting || t.promote > 0 || t.proving {
			return false
		}
		if w.p.Threads[k].Once && int(t.pc) < len(w.p.Threads[k].Program) {
			return false
		}
		if st := w.load(k); w.p.Token && (st.Asking() || st.Holding()) {
			return false
		}
	}
	return true
}
