package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// aborting runs f, which reads from or writes to nc, and makes it fail when ctx
// ends. The error is then the context's cause.
func aborting(ctx context.Context, nc net.Conn, f func() error) error {
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	err := f()
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	return err
}

// readPreface reads and checks what opens a handshake message. It gives up on a
// foreign protocol as soon as its first bytes show it.
func readPreface(r io.Reader) (preface, error) {
	var b [prefaceSize]byte
	n, err := io.ReadAtLeast(r, b[:], len(magic))
	if n > 0 && string(b[:min(n, len(magic))]) != magic[:min(n, len(magic))] {
		return preface{}, ErrNotCoalesce
	}
	if err == nil && n < prefaceSize {
		_, err = io.ReadFull(r, b[n:])
	}
	if err != nil {
		return preface{}, fmt.Errorf("reading the handshake: %w", brief(err))
	}
	return parsePreface(&b)
}

// readBody reads the p.body bytes after a preface, which parsePreface has bounded.
func readBody(r io.Reader, p preface) ([]byte, error) {
	b := make([]byte, p.body)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("reading the handshake: %w", brief(err))
	}
	return b, nil
}

// writeMessage writes a handshake message.
func writeMessage(w io.Writer, typ messageType, protocol uint32, body []byte) error {
	b := appendPreface(nil, preface{typ: typ, protocol: protocol, body: uint32(len(body))})
	if _, err := w.Write(append(b, body...)); err != nil {
		return fmt.Errorf("writing the handshake: %w", brief(err))
	}
	return nil
}

// writeHello writes h as a Hello or a Welcome.
func writeHello(w io.Writer, typ messageType, h *Hello) error {
	body, err := AppendHello(nil, h)
	if err != nil {
		return err
	}
	return writeMessage(w, typ, h.Protocol, body)
}

// brief takes from a network error what the caller says again: the operation and
// the addresses.
func brief(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ErrHandshakeTimeout
	}
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
