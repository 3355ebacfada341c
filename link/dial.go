package link

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Dial connects to addr ("host:port") and shakes hands: it sends hello and waits
// for the peer's answer. hello.Protocol 0 stands for ProtocolVersion.
//
// Errors, all naming addr: ErrUnreachable, ErrHandshakeTimeout, ErrNotCoalesce,
// ErrVersion, *RefusedError, *HelloError, the context's, or the socket's.
func Dial(ctx context.Context, addr string, hello Hello, opts Options) (*Conn, error) {
	opts = opts.withDefaults()
	if hello.Protocol == 0 {
		hello.Protocol = ProtocolVersion
	}
	if err := hello.check(); err != nil {
		return nil, fmt.Errorf("greeting %s: %w", addr, err)
	}
	caller := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, opts.HandshakeTimeout, ErrHandshakeTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	var ne net.Error
	switch {
	case err == nil:
	case caller.Err() != nil:
		return nil, fmt.Errorf("connecting to %s: %w", addr, context.Cause(caller))
	case errors.As(err, &ne) && ne.Timeout():
		return nil, fmt.Errorf("%w %s: no answer within %v", ErrUnreachable, addr, opts.HandshakeTimeout)
	default:
		return nil, fmt.Errorf("%w %s: %w", ErrUnreachable, addr, brief(err))
	}
	var peer Hello
	err = aborting(ctx, nc, func() (err error) {
		peer, err = greet(nc, &hello)
		return err
	})
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("%s connection to %s: %w", hello.Class, addr, err)
	}
	fd, err := takeFD(nc)
	if err != nil {
		return nil, fmt.Errorf("%s connection to %s: %w", hello.Class, addr, err)
	}
	return NewConn(fd, peer, opts)
}

// greet is the dialling side's handshake. It returns the peer's Hello.
func greet(nc net.Conn, hello *Hello) (Hello, error) {
	if err := writeHello(nc, msgHello, hello); err != nil {
		return Hello{}, err
	}
	p, err := readPreface(nc)
	if err != nil {
		return Hello{}, err
	}
	if p.typ == msgHello {
		return Hello{}, badHello("the peer sent a Hello where it was to answer one")
	}
	// A body of another version is not ours to read, but for a refusal's.
	if p.protocol != hello.Protocol && p.typ != msgRefuse {
		return Hello{}, &VersionError{Ours: hello.Protocol, Theirs: p.protocol}
	}
	body, err := readBody(nc, p)
	if err != nil {
		return Hello{}, err
	}
	if p.typ == msgRefuse {
		refused, err := parseRefusal(body)
		if err != nil {
			return Hello{}, err
		}
		if refused.Code == CodeVersion {
			return Hello{}, &VersionError{Ours: hello.Protocol, Theirs: p.protocol}
		}
		return Hello{}, refused
	}
	peer, err := ParseHello(body)
	if err != nil {
		return Hello{}, err
	}
	peer.Protocol = p.protocol
	if peer.Session != hello.Session || peer.Class != hello.Class || peer.From != hello.To || peer.To != hello.From {
		return Hello{}, badHello("the answer is to %s %s, node %d to %d; asked was %s %s, node %d to %d",
			peer.Class, peer.Session, peer.From, peer.To, hello.Class, hello.Session, hello.To, hello.From)
	}
	return peer, nil
}
