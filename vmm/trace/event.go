package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kind is what happened.
type Kind uint8

// The kinds of events. Those in pairs are the two ends of one thing, which their
// ID names together with the two nodes.
const (
	_ Kind = iota
	// Fault: a vCPU waited for a page; Arg is the page's gpa.
	Fault
	// PageSent and PageReceived: a page's content left for Peer, or came from it
	// and was mapped; Arg is its gpa, Size what of it travelled in bytes. ID counts
	// the contents from one node to another.
	PageSent
	PageReceived
	// IPISent and IPIReceived: an interrupt message to Peer's vCPUs, or from Peer;
	// Arg is its destination, Size its vector and delivery mode (bits 8 up). ID is
	// the frame's time stamp.
	IPISent
	IPIReceived
	// IOForwarded and IOServed: a device access that a vCPU waited for, and its
	// execution on the client; Arg is the port or gpa, Size its bytes. ID is the
	// frame's time stamp.
	IOForwarded
	IOServed

	kinds
)

// Flags say more about an event.
type Flags uint8

// The flags.
const (
	// Writing: the fault, or the access, was one for writing, or the page came to be
	// written.
	Writing Flags = 1 << iota
	// Local: a fault that was answered on its node.
	Local
	// MMIO: a device access to memory, not to a port.
	MMIO

	flagsMask = Writing | Local | MMIO
)

// NoCPU stands for no vCPU.
const NoCPU = 0xffff

// Event is something that took from Start to End, both in cycles of the clock that
// the recorder was given.
type Event struct {
	Start, End uint64
	ID         uint64
	Arg        uint64
	Kind       Kind
	Flags      Flags
	Peer       uint8  // the other node, where there is one
	CPU        uint16 // the vCPU's id in the guest, or NoCPU
	Size       uint16
}

// EventSize is the encoded size of an event, in bytes.
const EventSize = 40

// Append writes e behind b.
//
//	0 start (u64)  8 end (u64)  16 id (u64)  24 arg (u64)
//	32 kind  33 flags  34 peer  35 zero  36 vCPU (u16)  38 size (u16)
func (e *Event) Append(b []byte) []byte {
	for _, v := range []uint64{e.Start, e.End, e.ID, e.Arg} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = append(b, byte(e.Kind), byte(e.Flags), e.Peer, 0)
	b = binary.LittleEndian.AppendUint16(b, e.CPU)
	return binary.LittleEndian.AppendUint16(b, e.Size)
}

var errMalformed = errors.New("malformed trace event")

// Decode parses whole events.
func Decode(b []byte) ([]Event, error) {
	if len(b)%EventSize != 0 {
		return nil, fmt.Errorf("%w: %d bytes", errMalformed, len(b))
	}
	events := make([]Event, 0, len(b)/EventSize)
	for ; len(b) > 0; b = b[EventSize:] {
		e := Event{Start: binary.LittleEndian.Uint64(b), End: binary.LittleEndian.Uint64(b[8:]),
			ID: binary.LittleEndian.Uint64(b[16:]), Arg: binary.LittleEndian.Uint64(b[24:]),
			Kind: Kind(b[32]), Flags: Flags(b[33]), Peer: b[34],
			CPU: binary.LittleEndian.Uint16(b[36:]), Size: binary.LittleEndian.Uint16(b[38:])}
		if e.Kind == 0 || e.Kind >= kinds || e.Flags&^flagsMask != 0 || b[35] != 0 || int64(e.End-e.Start) < 0 {
			return nil, fmt.Errorf("%w: %+v", errMalformed, e)
		}
		events = append(events, e)
	}
	return events, nil
}
