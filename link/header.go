package link

import (
	"encoding/binary"
	"fmt"
)

// HeaderSize is the size in bytes of a frame header on the wire.
const HeaderSize = 32

// Kinds from KindReserved up belong to this package: Send refuses them and Recv
// handles them without returning.
const (
	KindReserved = 0xF0

	kindPing  = 0xF0 // payload: t1
	kindPong  = 0xF1 // payload: t1, t2, t3
	kindAbort = 0xF2 // payload: why the sender gives the connection up, UTF-8

	pingSize = 8
	pongSize = 24
	maxAbort = 1 << 10
)

// Header precedes every frame. On the wire, little endian:
//
//	offset  bytes  field
//	     0      4  Len
//	     4      1  Kind
//	     5      1  Flags
//	     6      2  reserved, 0
//	     8      4  View
//	    12      4  Interval
//	    16      8  TSC
//	    24      8  Seq
//	    32    Len  payload
type Header struct {
	Len      uint32 // payload bytes; filled by Send
	Kind     uint8  // meaning belongs to the class's user, below KindReserved
	Flags    uint8  // meaning belongs to the class's user
	View     uint32 // number of the membership the sender lives in
	Interval uint32 // number of the checkpoint interval the sender is in
	TSC      uint64 // sender's guest TSC in cycles; 0 = not stamped
	Seq      uint64 // place in this direction of the connection, from 1; filled by Send, checked by Recv
}

// AppendHeader appends h as it stands on the wire.
func AppendHeader(dst []byte, h *Header) []byte {
	var b [HeaderSize]byte
	putHeader(&b, h)
	return append(dst, b[:]...)
}

func putHeader(b *[HeaderSize]byte, h *Header) {
	binary.LittleEndian.PutUint32(b[0:], h.Len)
	b[4] = h.Kind
	b[5] = h.Flags
	b[6], b[7] = 0, 0
	binary.LittleEndian.PutUint32(b[8:], h.View)
	binary.LittleEndian.PutUint32(b[12:], h.Interval)
	binary.LittleEndian.PutUint64(b[16:], h.TSC)
	binary.LittleEndian.PutUint64(b[24:], h.Seq)
}

// ParseHeader reads a header from the start of b, which may be longer. It checks
// what holds for every class; the bound on Len and the order of Seq are the
// connection's to check. A header that cannot be one is a *FrameError.
func ParseHeader(b []byte) (Header, error) {
	var h Header
	err := parseHeader(b, &h)
	return h, err
}

func parseHeader(b []byte, h *Header) error {
	if len(b) < HeaderSize {
		return &FrameError{Reason: fmt.Sprintf("header of %d bytes, need %d", len(b), HeaderSize)}
	}
	h.Len = binary.LittleEndian.Uint32(b[0:])
	h.Kind = b[4]
	h.Flags = b[5]
	h.View = binary.LittleEndian.Uint32(b[8:])
	h.Interval = binary.LittleEndian.Uint32(b[12:])
	h.TSC = binary.LittleEndian.Uint64(b[16:])
	h.Seq = binary.LittleEndian.Uint64(b[24:])
	if b[6] != 0 || b[7] != 0 {
		return &FrameError{Kind: h.Kind, Len: h.Len, Reason: "reserved bytes are not zero"}
	}
	return nil
}
