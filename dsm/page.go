package dsm

import (
	"math/bits"

	"coalesce/link"
)

// NodeID names a host inside one guest's membership; 0 is the client.
type NodeID = link.NodeID

// MaxNodes bounds the membership: a [NodeSet] is 16 bits wide and a
// directory queue holds one 4-bit node id per member.
const MaxNodes = 16

// NodeSet is a set of node ids below [MaxNodes].
type NodeSet uint16

// Has reports whether n is in the set.
func (s NodeSet) Has(n NodeID) bool { return s&(1<<n) != 0 }

// With returns the set with n added.
func (s NodeSet) With(n NodeID) NodeSet { return s | 1<<n }

// Without returns the set with n removed.
func (s NodeSet) Without(n NodeID) NodeSet { return s &^ (1 << n) }

// first returns the smallest member; the set must not be empty.
func (s NodeSet) first() NodeID { return NodeID(bits.TrailingZeros16(uint16(s))) }

// Access is what a node may do with its copy of a page.
type Access uint8

// The four states of a copy, drawn in the package comment.
const (
	Invalid Access = iota
	Shared
	Owned
	Modified
)

func (a Access) String() string { return [...]string{"I", "S", "O", "M"}[a&3] }

// allows reports whether the copy satisfies a read or a write.
func (a Access) allows(write bool) bool {
	if write {
		return a == Modified
	}
	return a != Invalid
}

// Want is a node's outstanding request to a page's home; a node has at most
// one per page.
type Want uint8

// The kinds of outstanding request.
const (
	WantNothing Want = iota
	WantRead
	WantWrite
)

// Page is one node's side of one page: its copy, its request, and the command
// of the home it has put off. The zero value is an invalid copy.
type Page struct {
	Access Access
	Want   Want
	// Deferred is the home's command that a hold or a pin delays; Nothing
	// when there is none. The home runs one transaction per page, so there is
	// never a second.
	Deferred   Kind
	DeferredTo NodeID
	// Pins counts the device copies in progress; WritePins those that write.
	Pins, WritePins uint16
	// LastWritten is the checkpoint interval in which the content was last
	// granted for writing; it travels with the data.
	LastWritten uint32
}

// Dir is a page's directory entry at its home.
//
//	         Req, no copies to invalidate         Req(write), copies elsewhere
//	idle ───────────────────────────► moving ◄─── acks == 0 ─── invalidating ◄── idle
//	  ▲   (the home supplies: done at once) │
//	  └──────────────── Done ───────────────┘
type Dir struct {
	Owner  NodeID
	Copies NodeSet // every node with a valid copy, the owner among them
	Phase  Phase
	// The transaction in progress, when Phase is not Idle.
	Requester NodeID
	Write     bool
	Acks      NodeSet // copies whose acknowledgement is outstanding
	queue     waitQueue
}

// NewDir returns the entry of a page whose only copy is its owner's.
func NewDir(owner NodeID) Dir { return Dir{Owner: owner, Copies: NodeSet(0).With(owner)} }

// Waiting returns the number of queued requests.
func (d *Dir) Waiting() int { return int(d.queue.n) }

// Phase is the progress of a directory entry's transaction.
type Phase uint8

// The phases, drawn above [Dir].
const (
	Idle Phase = iota
	Invalidating
	Moving
)

// waitQueue is the FIFO of a page's waiting requesters. A node waits at most
// once, so ids of 4 bits and two sets hold it all by value.
type waitQueue struct {
	ids   uint64 // 4 bits each, the head in the lowest
	n     uint8
	write NodeSet // of those waiting, the ones that want to write
}

func (q *waitQueue) has(n NodeID) bool { return q.position(n) >= 0 }

// position returns the place of n, 0 at the head, or -1.
func (q *waitQueue) position(n NodeID) int {
	for i := 0; i < int(q.n); i++ {
		if NodeID(q.ids>>(4*i)&15) == n {
			return i
		}
	}
	return -1
}

func (q *waitQueue) push(n NodeID, write bool) {
	q.ids |= uint64(n) << (4 * q.n)
	q.n++
	q.mark(n, write)
}

func (q *waitQueue) pushFront(n NodeID, write bool) {
	q.ids = q.ids<<4 | uint64(n)
	q.n++
	q.mark(n, write)
}

func (q *waitQueue) mark(n NodeID, write bool) {
	if write {
		q.write = q.write.With(n)
	}
}

// toFront moves a waiting node to the head.
func (q *waitQueue) toFront(n NodeID) {
	i := q.position(n)
	if i <= 0 {
		return
	}
	below := q.ids & (1<<(4*i) - 1)
	above := q.ids >> (4 * (i + 1)) << (4 * (i + 1))
	q.ids = above | below<<4 | uint64(n)
}

// pop removes the head; the queue must not be empty.
func (q *waitQueue) pop() (n NodeID, write bool) {
	n = NodeID(q.ids & 15)
	q.ids >>= 4
	q.n--
	write = q.write.Has(n)
	q.write = q.write.Without(n)
	return n, write
}
