package explore

import (
	"coalesce/dsm"
)

// pte is a page's entry in a node's guest view.
type pte uint8

const (
	none pte = iota
	readOnly
	writable
)

// copyState is one node's side of one page.
type copyState struct {
	page  dsm.Page
	pte   pte
	fresh bool // the alias holds the last write
	timer bool // the page is in the hold queue
	// mark: the page is on its way, asked for ahead, and not to be mapped when it
	// comes.
	mark  bool
	holds content
}

// maxLink bounds the messages on the way in one direction.
const maxLink = 10

// msg is a message between nodes. It fits what the model needs of a dsm.Msg.
type msg struct {
	kind  dsm.Kind
	flags dsm.Flags
	peer  dsm.NodeID
	page  uint8 // Token kinds: the thread, guest-wide
	fresh bool  // Data: the content is the last write
}

func (m msg) dsm() dsm.Msg {
	return dsm.Msg{Kind: m.kind, Flags: m.flags, Peer: m.peer, Page: uint32(m.page)}
}

// fifo is a direction of a link.
type fifo struct {
	n uint8
	m [maxLink]msg
}

// A thread's phases.
//
//	       start          fault
//	idle ───────► awake ─────────► asleep
//	  ▲             │ ▲               │
//	  └─ complete ──┘ └──── wake ─────┘
const (
	idle uint8 = iota
	awake
	asleep
)

// thread is a vCPU.
type thread struct {
	phase uint8
	pc    uint8 // of a program that runs once
	instr uint8 // under way, unless idle
	// Asleep: what it faulted on, and whether the engine has yet to read that.
	page   uint8
	write  bool
	queued bool

	// What follows is in play with the token only.
	ran      bool  // it completed an instruction and has not proved it
	unseen   bool  // a proof that its streak does not know of
	proving  bool  // within Proof: counted, not yet looked whether it holds the token
	granting bool  // within tokenGranted: its streak holds, the engine does not know yet
	promote  uint8 // within tokenGranted: page+1 whose request is to be promoted
	giving   uint8 // progress of giveBack
	pages    uint8 // that giveBack has yet to release: a set
	streak   [3 + maxPages]byte
}

// The progress of giveBack.
const (
	givesNothing uint8 = iota
	givesBack          // it is to begin
	giving             // the engine knows of no holder any more
)

// device is the device of a node: idle, parked until its page can be pinned, or
// with the page pinned.
type device struct {
	phase uint8
	page  uint8
	write bool
}

// A device's phases, beside idle.
const (
	parked uint8 = iota + 1
	pinned
)

// userfault is a message that no sleeping thread stands for.
type userfault struct {
	on     bool
	thread uint8
	page   uint8
	write  bool
}

// maxPending bounds what is left of a step.
const maxPending = 6

// act is an Action as the model keeps it.
type act struct {
	op       dsm.Op
	writable bool
	to       dsm.NodeID
	msg      msg
}

// pending is what is left of a step that stopped in between.
type pending struct {
	on    bool
	from  dsm.NodeID // the sender of the message at hand
	page  uint8
	fresh bool // the content of the Data message at hand
	pins  bool // retryPinsLocked follows
	nacts uint8
	nself uint8
	acts  [maxPending]act
	self  [maxPending]msg
}

// tokens is the client's token queue: the holder first.
type tokens struct {
	n       uint8
	threads [maxThreads + 1]uint8
}

// state is a state of the model. It is a value: a copy is independent.
type state struct {
	copies  [maxNodes][maxPages]copyState
	dirs    [maxPages]dsm.Dir
	links   [maxNodes][maxNodes]fifo // from, to
	threads [maxThreads]thread
	devices [maxNodes]device
	extra   [2]userfault // stale, duplicate
	budget  [disturbances]uint8
	pend    [maxNodes]pending

	// What follows is in play with contents only.
	last  [maxPages]uint8            // the content that the last write left
	parts [maxPages][maxNodes]parcel // on its way to a node, which asks for a page once at a time

	// What follows is in play with the token only.
	holding [maxNodes]uint8 // thread+1 that the node's engine takes for the holder
	tokens  tokens
	bag     [3]uint8 // the client's messages to itself, by kind: a set of threads
}

// initial returns the first state: every page is its home's.
func initial(p *Profile) (s state) {
	for i, home := range p.Homes {
		s.dirs[i] = dsm.NewDir(home)
		s.copies[home][i] = copyState{page: dsm.Page{Access: dsm.Modified}, pte: writable, fresh: true}
		s.firstContents(p, i)
	}
	s.budget = p.Budget
	return s
}

// normalise forgets what has no meaning any more. A device's or a thread's idle
// fields are zeroed where they become idle.
func (s *state) normalise(p *Profile) {
	for i := range p.Homes {
		if d := &s.dirs[i]; d.Phase == dsm.Idle {
			d.Requester, d.Write, d.Acks = 0, false, 0
		}
	}
	for n := range p.Nodes {
		for i := range p.Homes {
			c := &s.copies[n][i]
			if c.page.Deferred == dsm.Nothing {
				c.page.DeferredTo, c.timer = 0, false
			}
			if c.page.Access == dsm.Invalid && c.pte == none && !s.pend[n].on {
				c.fresh = false
			}
		}
	}
	if p.Contents {
		s.renumber(p)
	}
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// append writes the state behind b.
func (s *state) append(p *Profile, b []byte) []byte {
	for n := range p.Nodes {
		for i := range p.Homes {
			c := &s.copies[n][i]
			b = append(b, byte(c.page.Access)|byte(c.page.Want)<<2|byte(c.pte)<<4|bit(c.fresh)<<6|bit(c.timer)<<7,
				byte(c.page.Deferred)|byte(c.page.DeferredTo)<<4|bit(c.mark)<<7)
			if len(p.Devices) > 0 {
				b = append(b, byte(c.page.Pins)|byte(c.page.WritePins)<<4)
			}
			if p.Contents {
				b = c.holds.append(b)
			}
		}
	}
	for i := range p.Homes {
		b = s.dirs[i].Append(b)
		if p.Contents {
			b = append(b, s.last[i])
			for n := range p.Nodes {
				b = s.parts[i][n].append(b)
			}
		}
	}
	for from := range p.Nodes {
		for to := range p.Nodes {
			if from != to {
				l := &s.links[from][to]
				b = append(b, l.n)
				for _, m := range l.m[:l.n] {
					b = m.append(b)
				}
			}
		}
	}
	for k := range p.Threads {
		t := &s.threads[k]
		b = append(b, t.phase|bit(t.queued)<<2|bit(t.write)<<3|t.page<<4, t.pc<<4|t.instr)
		if p.Token {
			b = append(b, bit(t.ran)|bit(t.unseen)<<1|bit(t.proving)<<2|bit(t.granting)<<3|t.giving<<4,
				t.pages|t.promote<<4)
			b = append(b, t.streak[:]...)
		}
	}
	for _, n := range p.Devices {
		d := &s.devices[n]
		b = append(b, d.phase|bit(d.write)<<2|d.page<<3)
	}
	for i := range s.extra {
		f := &s.extra[i]
		b = append(b, bit(f.on)|bit(f.write)<<1|f.page<<2|f.thread<<4)
	}
	b = append(b, s.budget[:]...)
	if p.Token {
		b = append(b, s.holding[:]...)
		b = append(b, s.tokens.n)
		b = append(b, s.tokens.threads[:s.tokens.n]...)
		b = append(b, s.bag[:]...)
	}
	for n := range p.Nodes {
		b = s.pend[n].append(b)
	}
	return b
}

func (q *pending) append(b []byte) []byte {
	if !q.on {
		return append(b, 0)
	}
	b = append(b, 1, q.page|bit(q.fresh)<<4|bit(q.pins)<<5|byte(q.from)<<6, q.nacts<<4|q.nself)
	for _, a := range q.acts[:q.nacts] {
		b = a.msg.append(append(b, byte(a.op), bit(a.writable)|byte(a.to)<<4))
	}
	for _, m := range q.self[:q.nself] {
		b = m.append(b)
	}
	return b
}

func (q *pending) restore(b []byte) []byte {
	if b[0] == 0 {
		return b[1:]
	}
	*q = pending{on: true, page: b[1] & 15, fresh: b[1]>>4&1 != 0, pins: b[1]>>5&1 != 0, from: dsm.NodeID(b[1] >> 6), nacts: b[2] >> 4, nself: b[2] & 15}
	b = b[3:]
	for i := range q.nacts {
		a := &q.acts[i]
		a.op, a.writable, a.to = dsm.Op(b[0]), b[1]&1 != 0, dsm.NodeID(b[1]>>4)
		b = a.msg.restore(b[2:])
	}
	for i := range q.nself {
		b = q.self[i].restore(b)
	}
	return b
}

func (m msg) append(b []byte) []byte {
	return append(b, byte(m.kind)|byte(m.flags)<<4, byte(m.peer)|m.page<<4|bit(m.fresh)<<7)
}

func (m *msg) restore(b []byte) []byte {
	*m = msg{kind: dsm.Kind(b[0] & 15), flags: dsm.Flags(b[0] >> 4), peer: dsm.NodeID(b[1] & 15), page: b[1] >> 4 & 7, fresh: b[1]>>7 != 0}
	return b[2:]
}

// restore sets s to what append wrote.
func (s *state) restore(p *Profile, b []byte) {
	*s = state{}
	for n := range p.Nodes {
		for i := range p.Homes {
			c := &s.copies[n][i]
			c.page.Access, c.page.Want, c.pte = dsm.Access(b[0]&3), dsm.Want(b[0]>>2&3), pte(b[0]>>4&3)
			c.fresh, c.timer = b[0]>>6&1 != 0, b[0]>>7 != 0
			c.page.Deferred, c.page.DeferredTo = dsm.Kind(b[1]&15), dsm.NodeID(b[1]>>4&7)
			c.mark = b[1]>>7 != 0
			b = b[2:]
			if len(p.Devices) > 0 {
				c.page.Pins, c.page.WritePins = uint16(b[0]&15), uint16(b[0]>>4)
				b = b[1:]
			}
			if p.Contents {
				b = c.holds.restore(b)
			}
		}
	}
	for i := range p.Homes {
		b = s.dirs[i].Restore(b)
		if p.Contents {
			s.last[i], b = b[0], b[1:]
			for n := range p.Nodes {
				b = s.parts[i][n].restore(b)
			}
		}
	}
	for from := range p.Nodes {
		for to := range p.Nodes {
			if from != to {
				l := &s.links[from][to]
				l.n, b = b[0], b[1:]
				for i := range l.n {
					b = l.m[i].restore(b)
				}
			}
		}
	}
	for k := range p.Threads {
		t := &s.threads[k]
		t.phase, t.queued, t.write, t.page = b[0]&3, b[0]>>2&1 != 0, b[0]>>3&1 != 0, b[0]>>4
		t.pc, t.instr = b[1]>>4, b[1]&15
		b = b[2:]
		if p.Token {
			t.ran, t.unseen, t.proving, t.granting = b[0]&1 != 0, b[0]>>1&1 != 0, b[0]>>2&1 != 0, b[0]>>3&1 != 0
			t.giving, t.pages, t.promote = b[0]>>4, b[1]&15, b[1]>>4
			b = b[2+copy(t.streak[:], b[2:]):]
		}
	}
	for _, n := range p.Devices {
		s.devices[n] = device{phase: b[0] & 3, write: b[0]>>2&1 != 0, page: b[0] >> 3}
		b = b[1:]
	}
	for i := range s.extra {
		s.extra[i] = userfault{on: b[0]&1 != 0, write: b[0]>>1&1 != 0, page: b[0] >> 2 & 3, thread: b[0] >> 4}
		b = b[1:]
	}
	b = b[copy(s.budget[:], b):]
	if p.Token {
		b = b[copy(s.holding[:], b):]
		s.tokens.n = b[0]
		copy(s.tokens.threads[:s.tokens.n], b[1:])
		b = b[1+s.tokens.n:]
		b = b[copy(s.bag[:], b):]
	}
	for n := range p.Nodes {
		b = s.pend[n].restore(b)
	}
}
