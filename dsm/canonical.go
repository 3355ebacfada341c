package dsm

import "encoding/binary"

// What follows lets package explore store and compare the protocol's states: an
// encoding that values which behave alike share, and its reverse. Restore trusts
// what it is given.

// Waiter returns the i-th node in the queue, 0 at the head, and whether it wants
// to write; i is below Waiting.
func (d *Dir) Waiter(i int) (n NodeID, write bool) {
	n = NodeID(d.queue.ids >> (4 * i) & 15)
	return n, d.queue.write.Has(n)
}

// Position returns how many nodes wait before n, or -1 if n does not wait.
func (d *Dir) Position(n NodeID) int { return d.queue.position(n) }

// Rename replaces every node n by to[n]; to is a permutation. What the last
// transaction left behind is forgotten.
func (d *Dir) Rename(to *[MaxNodes]NodeID) {
	r := Dir{Owner: to[d.Owner], Copies: d.Copies.rename(to), Phase: d.Phase}
	if d.Phase != Idle {
		r.Requester, r.Write, r.Acks = to[d.Requester], d.Write, d.Acks.rename(to)
	}
	for i := range d.Waiting() {
		n, write := d.Waiter(i)
		r.queue.push(to[n], write)
	}
	*d = r
}

func (s NodeSet) rename(to *[MaxNodes]NodeID) (r NodeSet) {
	for ; s != 0; s = s.Without(s.first()) {
		r = r.With(to[s.first()])
	}
	return r
}

// Append writes the entry behind b. Entries that differ only in what the last
// transaction left behind differ here too: Rename first.
func (d *Dir) Append(b []byte) []byte {
	b = append(b, byte(d.Phase)|truth(d.Write)<<7, byte(d.Owner)|byte(d.Requester)<<4)
	b = binary.LittleEndian.AppendUint16(b, uint16(d.Copies))
	b = binary.LittleEndian.AppendUint16(b, uint16(d.Acks))
	b = append(b, d.queue.n)
	for i := range d.Waiting() {
		n, write := d.Waiter(i)
		b = append(b, byte(n)|truth(write)<<7)
	}
	return b
}

// Restore sets d to what Append wrote at b's front and returns what follows.
func (d *Dir) Restore(b []byte) []byte {
	*d = Dir{
		Phase: Phase(b[0] & 0x7f), Write: b[0]>>7 != 0,
		Owner: NodeID(b[1] & 15), Requester: NodeID(b[1] >> 4),
		Copies: NodeSet(binary.LittleEndian.Uint16(b[2:])), Acks: NodeSet(binary.LittleEndian.Uint16(b[4:])),
	}
	n, b := int(b[6]), b[7:]
	for _, w := range b[:n] {
		d.queue.push(NodeID(w&15), w>>7 != 0)
	}
	return b[n:]
}

func truth(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Asking reports whether the vCPU waits for the progress token.
func (s *Streak) Asking() bool { return s.phase == asking }

// Append writes the streak behind b. How often it was robbed counts only until
// the vCPU asks.
func (s *Streak) Append(b []byte) []byte {
	robbed := s.robbed
	if s.phase != counting {
		robbed = 0
	}
	b = append(b, byte(s.phase)|truth(s.proven)<<7, byte(robbed), byte(s.n))
	for _, p := range s.pages[:s.n] {
		b = binary.AppendUvarint(b, uint64(p))
	}
	return b
}

// Restore sets s to what Append wrote at b's front and returns what follows.
func (s *Streak) Restore(b []byte) []byte {
	s.phase, s.proven = streakPhase(b[0]&0x7f), b[0]>>7 != 0
	s.robbed, s.n = int(b[1]), int(b[2])
	b = b[3:]
	for i := range s.n {
		p, n := binary.Uvarint(b)
		s.pages[i] = uint32(p)
		b = b[n:]
	}
	return b
}

// Holder returns the vCPU that has the token.
func (q *TokenQueue) Holder() (w Waiter, held bool) { return q.holder, q.held }

// Waiting returns the vCPUs that wait for the token, in their order, until the
// next call of another method.
func (q *TokenQueue) Waiting() []Waiter { return q.waiting }

// Append writes the queue behind b.
func (q *TokenQueue) Append(b []byte) []byte {
	if !q.held {
		return append(b, 0)
	}
	b = append(b, 1+byte(len(q.waiting)))
	b = q.holder.append(b)
	for _, w := range q.waiting {
		b = w.append(b)
	}
	return b
}

func (w Waiter) append(b []byte) []byte {
	return binary.AppendUvarint(append(b, byte(w.Node)), uint64(w.VCPU))
}

// Restore sets q to what Append wrote at b's front and returns what follows.
func (q *TokenQueue) Restore(b []byte) []byte {
	n := int(b[0])
	b = b[1:]
	q.held, q.waiting = n > 0, q.waiting[:0]
	q.holder = Waiter{}
	for i := range n {
		v, size := binary.Uvarint(b[1:])
		w := Waiter{Node: NodeID(b[0]), VCPU: uint32(v)}
		b = b[1+size:]
		if i == 0 {
			q.holder = w
		} else {
			q.waiting = append(q.waiting, w)
		}
	}
	return b
}
