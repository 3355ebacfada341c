package link

import (
	"encoding/binary"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a handshake, in bytes.
const (
	MaxBuild        = 256      // Hello.Build
	MaxCPU          = 32 << 10 // Hello.CPU
	MaxHelloPayload = 64 << 10 // Hello.Payload
	MaxRefusal      = 1 << 10  // RefusedError.Text

	helloFixed   = 36
	refusalFixed = 8
	maxBody      = helloFixed + MaxBuild + MaxCPU + MaxHelloPayload
)

// Hello is what each side says about itself before the first frame. Dial sends
// one; Incoming.Welcome answers with another. Body on the wire, little endian,
// after the preface:
//
//	offset  bytes  field
//	     0     16  Session
//	    16      1  From
//	    17      1  To
//	    18      1  Class
//	    19      1  reserved, 0
//	    20      4  PageSize
//	    24      4  TSCKHz
//	    28      2  length of Build
//	    30      2  length of CPU
//	    32      4  length of Payload
//	    36         Build, CPU, Payload; nothing after them
type Hello struct {
	Protocol uint32 // travels in the preface; 0 = ProtocolVersion
	Build    string // build of the sender's program: printable UTF-8, at most MaxBuild
	Session  SessionID
	From, To NodeID
	Class    Class
	PageSize uint32 // bytes
	TSCKHz   uint32 // rate of the sender's TSC in kHz
	CPU      []byte // the sender's CPU features, opaque here, at most MaxCPU
	Payload  []byte // the role's own, at most MaxHelloPayload
}

// check reports the first bound h breaks, as a *HelloError.
func (h *Hello) check() error {
	switch {
	case h.Class >= NumClasses:
		return badHello("there is no class %d", uint8(h.Class))
	case len(h.Build) > MaxBuild:
		return badHello("build of %d bytes, at most %d", len(h.Build), MaxBuild)
	case h.Build != printable(h.Build):
		return badHello("build is not printable text")
	case len(h.CPU) > MaxCPU:
		return badHello("CPU features of %d bytes, at most %d", len(h.CPU), MaxCPU)
	case len(h.Payload) > MaxHelloPayload:
		return badHello("payload of %d bytes, at most %d", len(h.Payload), MaxHelloPayload)
	}
	return nil
}

// AppendHello appends the body of a Hello. A field out of its bounds is a *HelloError.
func AppendHello(dst []byte, h *Hello) ([]byte, error) {
	if err := h.check(); err != nil {
		return dst, err
	}
	dst = append(dst, h.Session[:]...)
	dst = append(dst, byte(h.From), byte(h.To), byte(h.Class), 0)
	dst = binary.LittleEndian.AppendUint32(dst, h.PageSize)
	dst = binary.LittleEndian.AppendUint32(dst, h.TSCKHz)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.Build)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(h.CPU)))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(h.Payload)))
	dst = append(dst, h.Build...)
	dst = append(dst, h.CPU...)
	dst = append(dst, h.Payload...)
	return dst, nil
}

// ParseHello reads the body of a Hello, all of b. Protocol stays 0: it is not in
// the body. The result keeps no reference to b. Anything else than exactly what
// AppendHello writes is a *HelloError.
func ParseHello(b []byte) (Hello, error) {
	var h Hello
	if len(b) < helloFixed {
		return h, badHello("body of %d bytes, at least %d", len(b), helloFixed)
	}
	copy(h.Session[:], b)
	h.From, h.To, h.Class = NodeID(b[16]), NodeID(b[17]), Class(b[18])
	if b[19] != 0 {
		return h, badHello("reserved byte is not zero")
	}
	h.PageSize = binary.LittleEndian.Uint32(b[20:])
	h.TSCKHz = binary.LittleEndian.Uint32(b[24:])
	build := int(binary.LittleEndian.Uint16(b[28:]))
	cpu := int(binary.LittleEndian.Uint16(b[30:]))
	payload := int(binary.LittleEndian.Uint32(b[32:]))
	rest := b[helloFixed:]
	if build+cpu+payload != len(rest) {
		return h, badHello("lengths %d, %d and %d in a body with %d bytes for them", build, cpu, payload, len(rest))
	}
	h.Build = string(rest[:build])
	h.CPU = append([]byte(nil), rest[build:build+cpu]...)
	h.Payload = append([]byte(nil), rest[build+cpu:]...)
	return h, h.check()
}

// appendRefusal appends the body of a Refuse: the code (4 bytes), the length of
// the text (4 bytes), the text. Text that does not fit or print is made to.
func appendRefusal(dst []byte, code Code, text string) []byte {
	text = bounded(text, MaxRefusal)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(code))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(text)))
	return append(dst, text...)
}

func parseRefusal(b []byte) (*RefusedError, error) {
	if len(b) < refusalFixed || len(b) > refusalFixed+MaxRefusal {
		return nil, badHello("refusal of %d bytes, want %d to %d", len(b), refusalFixed, refusalFixed+MaxRefusal)
	}
	if n := binary.LittleEndian.Uint32(b[4:]); int64(n) != int64(len(b)-refusalFixed) {
		return nil, badHello("refusal text of %d bytes in a body with %d for it", n, len(b)-refusalFixed)
	}
	return &RefusedError{
		Code: Code(binary.LittleEndian.Uint32(b)),
		Text: bounded(string(b[refusalFixed:]), MaxRefusal),
	}, nil
}

// messageType tells the handshake's messages apart.
type messageType uint8

const (
	msgHello   messageType = 1
	msgWelcome messageType = 2
	msgRefuse  messageType = 3
)

// The preface opens every handshake message. Its layout, the bound on the body's
// length and the body of a Refuse are the same in every protocol version, so that
// a mismatch can be told:
//
//	offset  bytes  field
//	     0      4  "CLSC"
//	     4      1  message: 1 Hello, 2 Welcome, 3 Refuse
//	     5      3  reserved, 0
//	     8      4  the sender's protocol version
//	    12      4  bytes of the body that follows
const prefaceSize = 16

const magic = "CLSC"

type preface struct {
	typ      messageType
	protocol uint32
	body     uint32
}

func appendPreface(dst []byte, p preface) []byte {
	dst = append(dst, magic...)
	dst = append(dst, byte(p.typ), 0, 0, 0)
	dst = binary.LittleEndian.AppendUint32(dst, p.protocol)
	return binary.LittleEndian.AppendUint32(dst, p.body)
}

// parsePreface reads a preface and checks all but the protocol version. A wrong
// magic is ErrNotCoalesce, anything else wrong a *HelloError.
func parsePreface(b *[prefaceSize]byte) (preface, error) {
	var p preface
	if string(b[:len(magic)]) != magic {
		return p, ErrNotCoalesce
	}
	p.typ = messageType(b[4])
	p.protocol = binary.LittleEndian.Uint32(b[8:])
	p.body = binary.LittleEndian.Uint32(b[12:])
	switch {
	case p.typ < msgHello || p.typ > msgRefuse:
		return p, badHello("there is no message %d", p.typ)
	case b[5] != 0 || b[6] != 0 || b[7] != 0:
		return p, badHello("reserved bytes are not zero")
	case p.body > maxBody:
		return p, badHello("body of %d bytes, at most %d", p.body, maxBody)
	}
	return p, nil
}

// printable returns s with everything a terminal could act on replaced.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// Printable makes what a peer wrote fit to be shown: without control characters
// and cut to at most n bytes, n > 0.
func Printable(s string, n int) string { return bounded(s, n) }

// bounded returns s printable and cut to at most n bytes at a rune boundary.
func bounded(s string, n int) string {
	s = printable(s)
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
