package dsm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PageSize is the unit of coherence, in bytes.
const PageSize = 4096

// Kind is the kind of a message between two nodes about one page, or, for the
// Token kinds, about the progress token.
type Kind uint8

// The protocol's messages. The package comment shows them at work.
const (
	Nothing  Kind = iota
	Req           // requester → home: a copy to read, or with FlagWrite to write
	FwdRead       // home → supplier: send a shared copy to Peer
	FwdWrite      // home → owner: hand the page over to Peer
	Inv           // home → copy: drop it
	InvAck        // copy → home: dropped
	Data          // supplier → requester: the content; with FlagWrite the only copy
	Grant         // home → requester: the copy you hold may be written
	Done          // → home: the transfer to Peer is complete; from Peer, or from the home as supplier

	TokenReq     // node → client: vCPU Page asks for the progress token
	TokenGrant   // client → node
	TokenRelease // node → client

	kinds
)

func (k Kind) String() string {
	names := [...]string{"nothing", "req", "fwd-read", "fwd-write", "inv", "inv-ack", "data",
		"grant", "done", "token-req", "token-grant", "token-release"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind-%d", uint8(k))
}

// Flags modify a [Kind].
type Flags uint8

// The flags of a message.
const (
	FlagWrite   Flags = 1 << iota // Req, Data: for writing
	FlagToken                     // Req: for the holder of the progress token; to the queue's head
	FlagPromote                   // Req: not a new request: the one already sent now has the token
	FlagDelayed                   // FwdRead, FwdWrite, Data: it has waited for others' turns, a hold or a pin
	flagsMask   = FlagWrite | FlagToken | FlagPromote | FlagDelayed
)

// Msg is one message of the protocol without the page content that follows a
// Data message.
type Msg struct {
	Kind        Kind
	Flags       Flags
	Peer        NodeID // FwdRead, FwdWrite, Done: the requester
	Page        uint32 // page index; Token kinds: the vCPU's index on its node
	LastWritten uint32 // Data: interval of the last write grant
}

// MsgSize is the encoded size of a [Msg] in bytes, without the content that
// follows a Data message (see content). A frame holds one or more messages, one
// after the other.
const MsgSize = 12

// ErrMalformed is wrapped by every decoding error.
var ErrMalformed = errors.New("malformed page message")

// Append writes m behind b.
//
//	0 kind  1 flags  2 peer  3 zero  4 page (u32)  8 last written (u32)
func (m *Msg) Append(b []byte) []byte {
	b = append(b, byte(m.Kind), byte(m.Flags), byte(m.Peer), 0)
	b = binary.LittleEndian.AppendUint32(b, m.Page)
	return binary.LittleEndian.AppendUint32(b, m.LastWritten)
}

// Decode parses the message at b's front, whose page index must be below pages,
// and returns what follows it.
func (m *Msg) Decode(b []byte, pages uint32) (rest []byte, err error) {
	if len(b) < MsgSize {
		return nil, fmt.Errorf("%w: %d bytes, want at least %d", ErrMalformed, len(b), MsgSize)
	}
	*m = Msg{Kind: Kind(b[0]), Flags: Flags(b[1]), Peer: NodeID(b[2]),
		Page: binary.LittleEndian.Uint32(b[4:]), LastWritten: binary.LittleEndian.Uint32(b[8:])}
	switch {
	case m.Kind == Nothing || m.Kind >= kinds:
		return nil, fmt.Errorf("%w: unknown kind %d", ErrMalformed, b[0])
	case m.Flags&^flagsMask != 0 || b[3] != 0:
		return nil, fmt.Errorf("%w: reserved bits set in %v", ErrMalformed, m.Kind)
	case m.Peer >= MaxNodes:
		return nil, fmt.Errorf("%w: node %d in %v", ErrMalformed, m.Peer, m.Kind)
	case m.Kind < TokenReq && m.Page >= pages:
		return nil, fmt.Errorf("%w: page %#x of %#x in %v", ErrMalformed, m.Page, pages, m.Kind)
	}
	return b[MsgSize:], nil
}
