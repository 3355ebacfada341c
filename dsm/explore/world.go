package explore

import (
	"fmt"

	"coalesce/dsm"
)

// world does to a state what the engine, the kernel and the guest do. The
// methods that stand for the engine's bear the names of what they stand for.
type world struct {
	p     *Profile
	wrong *mutation // nil: everything as it is
	s     *state
	tape  tape
	// broken is the first rule that was broken, in words.
	broken string
	// sent: the engine's step sent something to another node.
	sent bool
	// words collects what happens, if it is wanted.
	words *[]string

	out    dsm.Actions
	streak dsm.Streak
	queue  dsm.TokenQueue
	vcpus  [maxThreads]dsm.Waiter // the threads' names for the token queue
}

func newWorld(p *Profile, wrong *mutation) *world {
	w := &world{p: p, wrong: wrong}
	var count [maxNodes]uint32
	for k, t := range p.Threads {
		w.vcpus[k] = dsm.Waiter{Node: t.Node, VCPU: count[t.Node]}
		count[t.Node]++
	}
	return w
}

func (w *world) breaks(format string, args ...any) {
	if w.broken == "" {
		w.broken = fmt.Sprintf(format, args...)
	}
}

func (w *world) say(format string, args ...any) {
	*w.words = append(*w.words, fmt.Sprintf(format, args...))
}

// does reports whether a duty of the engine or the kernel is done; a mutation
// may leave one out.
func (w *world) does(d duty) bool { return w.wrong == nil || w.wrong.skips != d }

// allows is what the engine sees of a copy.
func allows(a dsm.Access, write bool) bool {
	if write {
		return a == dsm.Modified
	}
	return a != dsm.Invalid
}

// admits is what the processor sees of a page table entry.
func (e pte) admits(write bool) bool { return e == writable || e == readOnly && !write }

// event is the engine's stepLocked, with retryPinsLocked behind it. fresh stands
// for the content of a Data message.
func (w *world) event(n dsm.NodeID, page uint8, ev dsm.Event, fresh bool) {
	pins := ev.Kind == dsm.EvMessage || ev.Kind == dsm.EvRelease || ev.Kind == dsm.EvPin
	w.s.pend[n] = pending{on: true, from: ev.From, page: page, fresh: fresh, pins: pins}
	w.step(n, ev)
	w.carryOn(n)
}

// carryOn does what is left of a step, up to the point where others may notice
// that it is not one.
func (w *world) carryOn(n dsm.NodeID) {
	q := &w.s.pend[n]
	for {
		for q.nacts > 0 {
			a := q.acts[0]
			if w.sent && a.op != dsm.OpSend && a.op != dsm.OpDefer && a.op != dsm.OpPinned {
				return
			}
			copy(q.acts[:], q.acts[1:q.nacts])
			q.nacts--
			q.acts[q.nacts] = act{}
			w.perform(n, a)
			if w.broken != "" {
				return
			}
		}
		if q.nself == 0 {
			break
		}
		m := q.self[0]
		copy(q.self[:], q.self[1:q.nself])
		q.nself--
		q.self[q.nself] = msg{}
		w.step(n, dsm.Event{Kind: dsm.EvMessage, From: n, Msg: m.dsm(), Held: w.heldFor(m.kind, n, q.page)})
		if w.broken != "" {
			return
		}
	}
	page, pins := q.page, q.pins
	*q = pending{}
	if pins {
		w.retryPins(n, page)
	}
}

// step runs the production step function on the page at hand.
func (w *world) step(n dsm.NodeID, ev dsm.Event) {
	q := &w.s.pend[n]
	node := dsm.Node{Self: n, Home: w.p.Homes[q.page]}
	c := &w.s.copies[n][q.page]
	var d *dsm.Dir
	if node.Self == node.Home {
		d = &w.s.dirs[q.page]
	}
	ev.Msg.Page = uint32(q.page)
	came := ev
	var before dsm.Dir
	if d != nil {
		before = *d
	}
	w.out.Reset()
	if w.wrong != nil && w.wrong.before != nil && !w.wrong.before(node, &c.page, d, &ev) {
		return
	}
	if err := dsm.Step(node, &c.page, d, ev, &w.out); err != nil {
		w.breaks("%v", err)
		return
	}
	acts := w.out.All()
	if w.wrong != nil && w.wrong.after != nil {
		acts = w.wrong.after(node, &c.page, d, came, acts)
	}
	if d != nil {
		w.checkQueue(&before, d, came)
	}
	if int(q.nacts)+len(acts) > maxPending {
		w.breaks("the model has no room for a step of %d actions", len(acts))
		return
	}
	for i := range acts {
		a := &acts[i]
		to := &q.acts[q.nacts]
		*to = act{op: a.Op, writable: a.Writable}
		if a.Op == dsm.OpSend {
			// That it was delayed tells the receiver about times only.
			to.to, to.msg = a.To, msg{kind: a.Msg.Kind, flags: a.Msg.Flags &^ dsm.FlagDelayed, peer: a.Msg.Peer, page: q.page}
		}
		q.nacts++
	}
}

// perform carries out one action.
func (w *world) perform(n dsm.NodeID, a act) {
	q := &w.s.pend[n]
	page := q.page
	c := &w.s.copies[n][page]
	if w.wrong != nil && w.wrong.perform != nil {
		w.wrong.perform(w, n, &a)
	}
	switch a.op {
	case dsm.OpSend:
		if a.to == n {
			if q.nself == maxPending {
				w.breaks("the model has no room for %d messages of a node to itself", q.nself)
				return
			}
			q.self[q.nself] = a.msg
			q.nself++
			return
		}
		if a.msg.kind == dsm.Data {
			a.msg.fresh = c.fresh
			if w.p.Contents {
				w.wrap(n, a.to, page)
			}
		}
		w.send(n, a.to, a.msg)
	case dsm.OpInstall:
		if c.pte != none {
			w.breaks("node %d fills page %d while the guest has it mapped", n, page)
		}
		if w.does(dutyFill) {
			c.fresh = q.fresh
			if w.p.Contents {
				w.unwrap(q.from, n, page, a.writable)
			}
		}
		if w.words != nil {
			w.say("node %d installs %s", n, pageAs(page, a.writable))
		}
		if c.mark {
			c.mark = false
			return
		}
		w.mapPage(n, page, a.writable)
	case dsm.OpUpgrade:
		if w.words != nil {
			w.say("node %d lifts the write protection of %s", n, pageName(page))
		}
		w.mayWrite(c, page)
		w.unprotect(n, page)
	case dsm.OpResolve:
		if w.words != nil {
			w.say("node %d has %s already and maps it", n, pageAs(page, a.writable))
		}
		if a.writable {
			w.mapAround(n, page)
		} else {
			w.mapPage(n, page, false)
		}
	case dsm.OpProtect:
		w.checkTaken(n, page, true)
		if w.words != nil {
			w.say("node %d write-protects %s", n, pageName(page))
		}
		if c.pte == writable {
			c.pte = readOnly
		}
	case dsm.OpZap:
		w.checkTaken(n, page, false)
		if w.words != nil {
			w.say("node %d unmaps %s", n, pageName(page))
		}
		c.pte = none
	case dsm.OpDefer:
		if w.words != nil {
			w.say("node %d defers %v", n, c.page.Deferred)
		}
		if w.does(dutyPush) {
			c.timer = true
		}
	case dsm.OpPinned:
		d := &w.s.devices[n]
		if d.phase == idle {
			w.breaks("node %d pins %s for nobody", n, pageName(page))
		}
		d.phase = pinned
		if w.words != nil {
			w.say("node %d pins %s", n, pageName(page))
		}
	}
}

// send puts a message on its link.
func (w *world) send(from, to dsm.NodeID, m msg) {
	w.sent = true
	l := &w.s.links[from][to]
	if l.n == maxLink {
		w.breaks("more than %d messages from node %d to node %d", maxLink, from, to)
		return
	}
	l.m[l.n] = m
	l.n++
	if w.words != nil {
		w.say("node %d sends %v to node %d", from, m, to)
	}
}

// mapPage is the engine's: UFFDIO_CONTINUE, and where the page is mapped already,
// rouse.
func (w *world) mapPage(n dsm.NodeID, page uint8, writes bool) {
	c := &w.s.copies[n][page]
	switch {
	case c.pte == none:
		c.pte = readOnly
		if writes {
			c.pte = writable
		}
		w.wake(n, page)
	case writes:
		w.unprotect(n, page)
	default:
		w.wake(n, page)
	}
}

// mapAround is the engine's: the page and its neighbours that are this node's
// alone.
func (w *world) mapAround(n dsm.NodeID, page uint8) {
	for i := range w.p.Homes {
		if uint8(i) == page {
			w.mapPage(n, page, true)
			continue
		}
		c := &w.s.copies[n][i]
		if w.p.Homes[i] == w.p.Homes[page] && c.page.Access == dsm.Modified && c.pte == none {
			c.pte = writable
			w.wake(n, uint8(i))
		}
	}
}

// unprotect is UFFDIO_WRITEPROTECT without its bit: a page that is not mapped
// stays so, and its waiters are woken.
func (w *world) unprotect(n dsm.NodeID, page uint8) {
	if c := &w.s.copies[n][page]; c.pte == readOnly {
		c.pte = writable
	}
	w.wake(n, page)
}

// wake ends the wait of all threads of a node for a page. What the engine has
// not read of their faults, it never will.
func (w *world) wake(n dsm.NodeID, page uint8) {
	if !w.does(dutyWake) {
		return
	}
	for k := range w.p.Threads {
		t := &w.s.threads[k]
		if w.p.Threads[k].Node == n && t.phase == asleep && t.page == page {
			w.rise(t)
		}
	}
}

func (w *world) rise(t *thread) {
	t.phase = awake
	t.page, t.write, t.queued = 0, false, false
}

// heldFor is held for a message of kind k, if that is a command.
func (w *world) heldFor(k dsm.Kind, n dsm.NodeID, page uint8) bool {
	return (k == dsm.FwdRead || k == dsm.FwdWrite || k == dsm.Inv) && w.held(n, page)
}

// held is the engine's.
func (w *world) held(n dsm.NodeID, page uint8) bool {
	switch w.p.Hold {
	case HoldFree:
		if w.tape.choose(2) == 1 {
			return true
		}
	case HoldUsed:
		if w.unused(n, page) {
			return true
		}
	}
	return w.inHoldersStreak(n, page)
}

// unused reports whether a thread was woken for the page and has not run yet.
func (w *world) unused(n dsm.NodeID, page uint8) bool {
	for k := range w.p.Threads {
		t := &w.s.threads[k]
		if w.p.Threads[k].Node != n || t.phase != awake {
			continue
		}
		for _, a := range w.p.Threads[k].Program[t.instr] {
			if a.Page == page {
				return true
			}
		}
	}
	return false
}

// release is the engine's: carry out what was deferred, unless the page is held
// still. A hold queue's entry is tried again as long as the hold lasts, which
// changes nothing, so HoldFree is over when it fires.
func (w *world) release(n dsm.NodeID, page uint8, fired bool) {
	c := &w.s.copies[n][page]
	if c.page.Deferred == dsm.Nothing || c.page.Pins > 0 || w.inHoldersStreak(n, page) {
		return
	}
	held := false
	if !fired || w.p.Hold != HoldFree {
		held = w.held(n, page)
	}
	w.event(n, page, dsm.Event{Kind: dsm.EvRelease, Held: held}, false)
}

// fault is the engine's: it answers the userfault of a thread, or of none if k
// is below 0.
func (w *world) fault(n dsm.NodeID, k int, page uint8, write bool) {
	c := &w.s.copies[n][page]
	if w.does(dutyMark) {
		c.mark = false
	}
	token := false
	if !allows(c.page.Access, write) && k >= 0 && w.p.Token {
		token = w.faulted(k, page)
	}
	if w.p.Habit && !write && c.page.Access == dsm.Invalid && w.tape.choose(2) == 1 {
		write = true
	}
	w.event(n, page, dsm.Event{Kind: dsm.EvFault, Write: write, Token: token}, false)
}

// message is the engine's: it handles the message at a link's head.
func (w *world) message(from, to dsm.NodeID) {
	l := &w.s.links[from][to]
	m := l.m[0]
	copy(l.m[:], l.m[1:l.n])
	l.n--
	l.m[l.n] = msg{}
	if w.words != nil {
		w.say("node %d receives %v from node %d", to, m, from)
	}
	if m.kind >= dsm.TokenReq {
		w.tokenMessage(to, m)
		return
	}
	w.event(to, m.page, dsm.Event{Kind: dsm.EvMessage, From: from, Msg: m.dsm(), Held: w.heldFor(m.kind, to, m.page)}, m.fresh)
}

// pin is the engine's pinLocked for the node's device.
func (w *world) pin(n dsm.NodeID) {
	d := &w.s.devices[n]
	w.event(n, d.page, dsm.Event{Kind: dsm.EvPin, Write: d.write}, false)
}

// retryPins is the engine's retryPinsLocked, and what pinLocked does behind its
// first event: another, if the page came meanwhile.
func (w *world) retryPins(n dsm.NodeID, page uint8) {
	d := &w.s.devices[n]
	if d.phase != parked || d.page != page || w.broken != "" {
		return
	}
	c := &w.s.copies[n][page]
	if allows(c.page.Access, d.write) || c.page.Want == dsm.WantNothing {
		w.pin(n)
	}
}

// copyPinned is what a device does with its page, and the end of its pin.
func (w *world) copyPinned(n dsm.NodeID) {
	d := w.s.devices[n]
	w.s.devices[n] = device{}
	if d.write {
		w.written(n, d.page)
	}
	held := w.held(n, d.page)
	w.event(n, d.page, dsm.Event{Kind: dsm.EvUnpin, Write: d.write, Held: held}, false)
}

// execute has an awake thread try its instruction: it completes, or faults on
// the first page that it lacks.
func (w *world) execute(k int) {
	t := &w.s.threads[k]
	def := &w.p.Threads[k]
	for _, a := range def.Program[t.instr] {
		if w.s.copies[def.Node][a.Page].pte.admits(a.Write) {
			continue
		}
		t.phase, t.page, t.write, t.queued = asleep, a.Page, a.Write, true
		if w.words != nil {
			w.say("vCPU %d on node %d faults on a %s of %s", k, def.Node, verb(a.Write), pageName(a.Page))
		}
		return
	}
	for _, a := range def.Program[t.instr] {
		if a.Write {
			w.written(def.Node, a.Page)
		}
	}
	if w.words != nil {
		w.say("vCPU %d on node %d completes: %s", k, def.Node, def.Program[t.instr])
	}
	t.phase, t.instr = idle, 0
	if def.Once {
		t.pc++
	}
	t.ran = w.p.Token
}

// written makes the page's content at a node the last write.
func (w *world) written(n dsm.NodeID, page uint8) {
	if w.p.Contents {
		w.rewrite(n, page)
	}
	for i := range w.p.Nodes {
		w.s.copies[i][page].fresh = dsm.NodeID(i) == n
		for j := range w.p.Nodes {
			l := &w.s.links[i][j]
			for x := range l.m[:l.n] {
				if m := &l.m[x]; m.kind == dsm.Data && m.page == page {
					m.fresh = false
				}
			}
		}
	}
}
