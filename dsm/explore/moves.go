package explore

import (
	"coalesce/dsm"
)

// op is a kind of move: something indivisible that an actor does.
type op uint8

const (
	opDeliver  op = iota // a → b: the message at the link's head
	opFault              // the engine reads thread a's userfault
	opExtra              // the engine reads the userfault in extra slot a
	opTimer              // the hold of node a's page b ends
	opContinue           // the rest of a step
	opRun                // awake thread a tries its instruction
	opBegin              // thread a, whose program runs once, begins its next
	opCopy               // node a's device copies
	opExit               // thread a leaves KVM_RUN: Proof counts
	opProve              // and looks whether it holds the token
	opWatch              // the engine notices that the holder, a, has run
	opHold               // the engine notes the holder, a
	opPromote            // and moves its request to the head
	opGiveBack           // thread a's token is given back, one part
	opBag                // the client's message of kind b to itself about thread a

	// What follows may happen, but does not have to.
	opStart     // thread a begins instruction b
	opPin       // node a's device pins page b, c: to write
	opStale     // a userfault of thread a for page b that it does not wait for
	opDuplicate // thread a's userfault once more
	opInterrupt // a signal ends thread a's wait
	opReclaim   // the kernel unmaps page b on node a
	opFetch     // node a asks for page b, c: to write
	opStray     // node a promotes its request for page b
)

// optional reports whether the move need not happen.
func (o op) optional() bool { return o >= opStart }

type move struct {
	op      op
	a, b, c uint8
}

const (
	classes = 128         // bounds the numbers that class returns
	unfair  = classes - 1 // the class of optional moves
)

// class numbers the actors whose moves a fair schedule must not put off for
// ever.
func (m move) class() uint8 {
	switch m.op {
	case opDeliver:
		return m.a*maxNodes + m.b
	case opTimer:
		return 9 + m.a*maxPages + m.b
	case opContinue:
		return 15 + m.a
	case opCopy:
		return 18 + m.a
	case opExtra:
		return 21 + m.a
	case opBag:
		return 24 + m.b*maxThreads + m.a
	}
	if m.op.optional() {
		return unfair
	}
	return 36 + uint8(m.op)*maxThreads + m.a // at most 36 + 13*4 + 3
}

// moves appends what can happen in s to list.
func (w *world) moves(s *state, list []move) []move {
	p := w.p
	add := func(o op, a, b, c int) { list = append(list, move{o, uint8(a), uint8(b), uint8(c)}) }
	for to := range p.Nodes {
		if s.pend[to].on {
			add(opContinue, to, 0, 0) // its engine is within a step
			continue
		}
		for from := range p.Nodes {
			if s.links[from][to].n > 0 {
				add(opDeliver, from, to, 0)
			}
		}
		for i := range p.Homes {
			c := &s.copies[to][i]
			if c.timer {
				add(opTimer, to, i, 0)
			}
		}
	}
	for k := range p.Threads {
		def, t := &p.Threads[k], &s.threads[k]
		n, busy := int(def.Node), s.pend[def.Node].on
		switch t.phase {
		case idle:
			if t.proving {
				break
			}
			if !def.Once {
				for i := range def.Program {
					add(opStart, k, i, 0)
				}
			} else if int(t.pc) < len(def.Program) {
				add(opBegin, k, int(t.pc), 0)
			}
		case awake:
			if !t.proving {
				add(opRun, k, 0, 0)
			}
		case asleep:
			if !busy && t.queued && !t.granting {
				add(opFault, k, 0, 0)
			}
			if !t.queued && s.budget[Interrupt] > 0 {
				add(opInterrupt, k, 0, 0)
			}
			if s.budget[Duplicate] > 0 {
				add(opDuplicate, k, 0, 0)
			}
		}
		if s.budget[Stale] > 0 {
			for i := range p.Homes {
				for write := range 2 {
					if t.phase != asleep || t.page != uint8(i) || t.write != (write == 1) {
						add(opStale, k, i, write)
					}
				}
			}
		}
		if !p.Token {
			continue
		}
		if t.ran && t.phase != asleep && !t.proving {
			add(opExit, k, 0, 0)
		}
		if t.proving {
			add(opProve, k, 0, 0)
		}
		if s.holding[n] == uint8(k)+1 && (t.phase == idle && w.does(dutyHalt) || t.phase != asleep && t.ran) {
			add(opWatch, k, 0, 0) // halted, or running what is of no interest here, or has run
		}
		if t.granting {
			add(opHold, k, 0, 0)
		}
		if t.promote > 0 && !busy {
			add(opPromote, k, 0, 0)
		}
		if t.giving != givesNothing && !busy {
			add(opGiveBack, k, 0, 0)
		}
		for kind := range s.bag {
			if s.bag[kind]>>k&1 != 0 {
				add(opBag, k, kind, 0)
			}
		}
	}
	for i := range s.extra {
		f := &s.extra[i]
		if f.on && !s.pend[p.Threads[f.thread].Node].on && !s.threads[f.thread].granting {
			add(opExtra, i, 0, 0)
		}
	}
	for _, n := range p.Devices {
		if s.pend[n].on {
			continue
		}
		switch s.devices[n].phase {
		case idle:
			for i := range p.Homes {
				add(opPin, int(n), i, 0)
				add(opPin, int(n), i, 1)
			}
		case pinned:
			add(opCopy, int(n), 0, 0)
		}
	}
	for n := range p.Nodes {
		for i := range p.Homes {
			c := &s.copies[n][i]
			if c.pte != none && s.budget[Reclaim] > 0 {
				add(opReclaim, n, i, 0)
			}
			if s.pend[n].on {
				continue
			}
			if s.budget[Fetch] > 0 && c.page.Want == dsm.WantNothing {
				for write := range 2 {
					if !allows(c.page.Access, write == 1) {
						add(opFetch, n, i, write)
					}
				}
			}
			if s.budget[Promote] > 0 && c.page.Want != dsm.WantNothing {
				add(opStray, n, i, 0)
			}
		}
	}
	return list
}

// make makes a move in w.s, with the choices on the tape.
func (w *world) make(m move) {
	s := w.s
	n, a := dsm.NodeID(m.a), int(m.a)
	w.sent = false
	switch m.op {
	case opDeliver:
		w.message(n, dsm.NodeID(m.b))
	case opFault:
		t := &s.threads[a]
		t.queued = false
		w.userfault(a, t.page, t.write)
	case opExtra:
		f := s.extra[m.a]
		s.extra[m.a] = userfault{}
		w.userfault(int(f.thread), f.page, f.write)
	case opTimer:
		s.copies[n][m.b].timer = false
		if w.words != nil {
			w.say("node %d: the hold of %s ends", n, pageName(m.b))
		}
		w.release(n, m.b, true)
	case opContinue:
		w.carryOn(n)
	case opRun:
		w.execute(a)
	case opStart, opBegin:
		t := &s.threads[a]
		t.phase, t.instr = awake, m.b
		w.execute(a)
	case opCopy:
		if w.words != nil {
			w.say("node %d's device copies and unpins %s", n, pageName(s.devices[n].page))
		}
		w.copyPinned(n)
	case opExit:
		t := &s.threads[a]
		t.ran, t.unseen, t.proving = false, true, true
		if w.words != nil {
			w.say("vCPU %d leaves KVM_RUN", a)
		}
	case opProve:
		s.threads[a].proving = false
		if w.words != nil {
			w.say("vCPU %d looks whether it holds the token", a)
		}
		if s.holding[w.p.Threads[a].Node] == m.a+1 {
			w.prove(a)
		}
	case opWatch:
		s.threads[a].ran = false
		if w.words != nil {
			w.say("node %d notices that vCPU %d has run, or halts", w.p.Threads[a].Node, a)
		}
		w.prove(a)
	case opHold:
		w.hold(a)
	case opPromote:
		w.promote(a)
	case opGiveBack:
		w.giveBack(a)
	case opBag:
		s.bag[m.b] &^= 1 << m.a
		if w.words != nil {
			w.say("the client handles its own %v of vCPU %d", dsm.TokenReq+dsm.Kind(m.b), a)
		}
		w.tokenMessage(0, msg{kind: dsm.TokenReq + dsm.Kind(m.b), page: m.a})
	case opPin:
		s.devices[n] = device{phase: parked, page: m.b, write: m.c == 1}
		if w.words != nil {
			w.say("node %d's device wants to %s %s", n, verb(m.c == 1), pageName(m.b))
		}
		w.pin(n)
	default:
		w.disturb(m)
	}
}

// userfault hands a userfault of thread k to its node's engine.
func (w *world) userfault(k int, page uint8, write bool) {
	n := w.p.Threads[k].Node
	if w.words != nil {
		w.say("node %d reads a userfault of vCPU %d: %s of %s", n, k, verb(write), pageName(page))
	}
	if w.wrong != nil && w.wrong.fault != nil {
		write = w.wrong.fault(w.s.copies[n][page].pte, write)
	}
	w.fault(n, k, page, write)
}

// disturb makes a move that uses up a budget.
func (w *world) disturb(m move) {
	s := w.s
	n, a := dsm.NodeID(m.a), int(m.a)
	d := [...]Disturbance{Stale, Duplicate, Interrupt, Reclaim, Fetch, Promote}[m.op-opStale]
	s.budget[d]--
	switch d {
	case Stale:
		s.extra[0] = userfault{on: true, thread: m.a, page: m.b, write: m.c == 1}
		if w.words != nil {
			w.say("a stale userfault of vCPU %d arrives: %s of %s", a, verb(m.c == 1), pageName(m.b))
		}
	case Duplicate:
		t := &s.threads[a]
		s.extra[1] = userfault{on: true, thread: m.a, page: t.page, write: t.write}
		if w.words != nil {
			w.say("vCPU %d's userfault arrives twice", a)
		}
	case Interrupt:
		if w.words != nil {
			w.say("a signal ends vCPU %d's wait", a)
		}
		w.rise(&s.threads[a])
	case Reclaim:
		if w.words != nil {
			w.say("the kernel unmaps %s on node %d", pageName(m.b), n)
		}
		s.copies[n][m.b].pte = none
	case Fetch:
		if w.words != nil {
			w.say("node %d fetches %s ahead", n, pageAs(m.b, m.c == 1))
		}
		if m.c == 0 && w.tape.choose(2) == 1 {
			s.copies[n][m.b].mark = true
		}
		w.event(n, m.b, dsm.Event{Kind: dsm.EvFetch, Write: m.c == 1}, false)
	case Promote:
		if w.words != nil {
			w.say("node %d promotes its request for %s", n, pageName(m.b))
		}
		w.event(n, m.b, dsm.Event{Kind: dsm.EvPromote}, false)
	}
}

// tape holds the choices that a move made within itself, so that it can be made
// once for each.
type tape struct {
	choices [8]uint8
	options [8]uint8
	n, at   int
}

// choose returns one of n alternatives, 0 first.
func (t *tape) choose(n int) int {
	if n < 2 {
		return 0
	}
	if t.at == t.n {
		t.choices[t.n], t.options[t.n] = 0, uint8(n)
		t.n++
	}
	c := t.choices[t.at]
	t.at++
	return int(c)
}

// next sets the tape to the next combination of choices, if there is one.
func (t *tape) next() bool {
	for t.n = t.at; t.n > 0; t.n-- {
		i := t.n - 1
		if t.choices[i]+1 < t.options[i] {
			t.choices[i]++
			t.at = 0
			return true
		}
	}
	return false
}
