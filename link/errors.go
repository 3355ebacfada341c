package link

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// Sentinels a caller decides by; test with errors.Is.
var (
	// ErrUnreachable: no connection to the address could be made.
	ErrUnreachable = errors.New("cannot reach")
	// ErrNotCoalesce: something answers there, and it does not speak our protocol.
	ErrNotCoalesce = errors.New("the peer does not speak the coalesce protocol")
	// ErrVersion: the peer speaks another protocol version. Every such error is a *VersionError.
	ErrVersion = errors.New("protocol version mismatch")
	// ErrHandshakeTimeout: the peer did not finish the handshake in time.
	ErrHandshakeTimeout = errors.New("the handshake timed out")
	// ErrCrowded: the peer's handshake was dropped, as the oldest, because too many were pending.
	ErrCrowded = errors.New("dropped for newer peers: too many handshakes are pending")

	// ErrClosed: this end was closed by Close, or its sending half by CloseWrite.
	ErrClosed = errors.New("connection closed")
	// ErrBacklog: the peer did not read, Options.MaxQueued bytes were waiting, and the connection was given up.
	ErrBacklog = errors.New("the peer does not read: the send queue is full")
	// ErrVanished: nothing came from the peer's host, or the peer took nothing of what waited for
	// it, for Options.KeepAlive.
	ErrVanished = errors.New("the peer stopped answering")
	// ErrTooLong: a payload is larger than its class allows (Send) or than the caller's buffer (Recv).
	ErrTooLong = errors.New("payload too long")
	// ErrReservedKind: Send was given a kind that belongs to this package.
	ErrReservedKind = errors.New("frame kind is reserved")
	// ErrParts: Send was given more than MaxParts payload parts.
	ErrParts = errors.New("too many payload parts")
	// ErrPings: as many pings as may be outstanding are.
	ErrPings = errors.New("too many pings outstanding")
)

// Code says why a peer refused a handshake. Values below CodeRole belong to this
// package, the others to the roles that use it.
type Code uint32

// Codes of this package.
const (
	CodeVersion   Code = 1  // protocol version mismatch
	CodeMalformed Code = 2  // the Hello breaks a bound
	CodeRole      Code = 16 // the first code a role may define
)

// RefusedError is a handshake the peer refused.
type RefusedError struct {
	Code Code
	Text string // for people: printable, at most MaxRefusal bytes
}

func (e *RefusedError) Error() string { return "refused: " + e.Text }

// VersionError is a protocol version mismatch, as seen from this side. It Is ErrVersion.
type VersionError struct {
	Ours, Theirs uint32
}

func (e *VersionError) Error() string {
	older := "this side"
	if e.Ours > e.Theirs {
		older = "the peer"
	}
	return fmt.Sprintf("%v: this side speaks version %d, the peer version %d: upgrade %s", ErrVersion, e.Ours, e.Theirs, older)
}

// Is makes errors.Is(err, ErrVersion) hold.
func (e *VersionError) Is(target error) bool { return target == ErrVersion }

// HelloError is a Hello, Welcome or Refuse message that breaks a rule of its layout.
type HelloError struct {
	Reason string
}

func (e *HelloError) Error() string { return "malformed handshake: " + e.Reason }

func badHello(format string, a ...any) error {
	return &HelloError{Reason: fmt.Sprintf(format, a...)}
}

// FrameError is a received frame that breaks a rule. The connection it came over is finished.
type FrameError struct {
	Class  Class
	Kind   uint8
	Len    uint32 // as the header claims
	Reason string
}

func (e *FrameError) Error() string {
	return fmt.Sprintf("malformed %v frame (kind %#x, %d bytes): %s", e.Class, e.Kind, e.Len, e.Reason)
}

// AbortError says that the peer gave the connection up and why.
type AbortError struct {
	Reason string // for people: printable, bounded
}

func (e *AbortError) Error() string { return "the peer gave the connection up: " + e.Reason }

// Lost tells the errors of a connection that mean that the peer or the way to it
// is gone, or that the peer gave the connection up, from those that mean that
// what it sent is wrong.
func Lost(err error) bool {
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, ErrVanished, ErrClosed, ErrBacklog} {
		if errors.Is(err, gone) {
			return true
		}
	}
	var abort *AbortError
	var errno unix.Errno
	return errors.As(err, &abort) || errors.As(err, &errno)
}

// PeerError says with which node a connection failed.
type PeerError struct {
	Node  NodeID
	Class Class
	Err   error
}

func (e *PeerError) Error() string {
	return fmt.Sprintf("%v link to node %d: %v", e.Class, e.Node, e.Err)
}

// Unwrap returns why.
func (e *PeerError) Unwrap() error { return e.Err }
