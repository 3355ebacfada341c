package link

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
)

// ProtocolVersion is the version of everything that travels over a connection:
// the handshake, the frame header and the messages of every class. Both ends
// must speak the same one. It grows by one with any change of a layout or a meaning.
const ProtocolVersion = 4

// NodeID names a host inside one guest's membership. 0 is the client.
type NodeID uint8

// SessionID names one guest's membership of one lender. All connections of a
// session carry the same one, so that the lender can put them together.
type SessionID [16]byte

// NewSessionID returns a fresh random session id.
func NewSessionID() SessionID {
	var id SessionID
	rand.Read(id[:]) // never fails: crypto/rand ends the process instead
	return id
}

// String returns the id in hexadecimal.
func (id SessionID) String() string { return hex.EncodeToString(id[:]) }

// Class separates traffic by what it may wait for: a connection carries one
// class, so a bulk transfer never stands in front of an interrupt.
type Class uint8

// The classes, in the order of their wire values.
const (
	Control   Class = iota // session set-up and tear-down, vCPU state, statistics
	Page                   // the memory protocol
	Interrupt              // IPIs and device interrupts
	IO                     // port and memory-mapped I/O of remote vCPUs
	Bulk                   // large transfers: evacuation, checkpoints
	NumClasses
)

var classes = [NumClasses]struct {
	name       string
	maxPayload int
}{
	Control:   {"control", 1 << 20},
	Page:      {"page", 64 << 10},
	Interrupt: {"interrupt", 1 << 10},
	IO:        {"io", 64 << 10},
	Bulk:      {"bulk", 4 << 20},
}

// String returns the class's name in lower case.
func (c Class) String() string {
	if c >= NumClasses {
		return fmt.Sprintf("class(%d)", uint8(c))
	}
	return classes[c].name
}

// MaxPayload returns the most payload bytes a frame of this class may carry;
// 0 for a value that is no class.
func (c Class) MaxPayload() int {
	if c >= NumClasses {
		return 0
	}
	return classes[c].maxPayload
}
