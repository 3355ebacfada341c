package link

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Listener takes connections of peers that Dial. Each peer's Hello is read by a
// goroutine of its own, so a slow or silent one delays nobody; it is dropped
// after Options.HandshakeTimeout, or as the oldest of more than Options.MaxPending.
//
//	accept(2) ─► pending: Hello awaited ─► checked ─► Accept ─► Incoming ─► Welcome ─► Conn
//	                │ timeout, garbage,        │ wrong version,    └─► Refuse
//	                ▼ crowded out              ▼ malformed
//	             dropped, OnError           refused, OnError
type Listener struct {
	ln       net.Listener
	opts     Options
	incoming chan *Incoming
	ctx      context.Context // ends with Close
	cancel   context.CancelCauseFunc
	running  sync.WaitGroup // the accept loop and the handshakes

	mu      sync.Mutex
	pending *list.List // of context.CancelCauseFunc, the oldest handshake's first
}

// Listen listens on addr ("host:port"; port 0 picks one) and starts shaking
// hands. The Listener must be closed.
func Listen(addr string, opts Options) (*Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // Go's default; such a socket takes few of TCP's options
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, brief(err))
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	l := &Listener{
		ln:       ln,
		opts:     opts.withDefaults(),
		incoming: make(chan *Incoming),
		ctx:      ctx,
		cancel:   cancel,
		pending:  list.New(),
	}
	l.running.Go(l.acceptLoop)
	return l, nil
}

// Addr returns the address listened on.
func (l *Listener) Addr() string { return l.ln.Addr().String() }

// Accept returns the next peer whose Hello is in; the caller must Welcome or
// Refuse it. After Close it fails with ErrClosed. Any goroutine.
func (l *Listener) Accept() (*Incoming, error) {
	select {
	case in := <-l.incoming:
		l.leave(in.place)
		return in, nil
	case <-l.ctx.Done():
		return nil, ErrClosed
	}
}

// Close stops listening, drops the peers Accept has not returned yet, and returns
// once no goroutine of the Listener is left. Connections and Incomings handed
// out stay as they are.
func (l *Listener) Close() error {
	l.cancel(ErrClosed)
	err := l.ln.Close()
	l.running.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (l *Listener) acceptLoop() {
	for {
		nc, err := l.ln.Accept()
		if err == nil {
			l.admit(nc)
			continue
		}
		if l.ctx.Err() != nil {
			return
		}
		// Out of descriptors, say. They come back when peers go, of which
		// nothing tells us.
		l.opts.OnError("", fmt.Errorf("accepting a connection on %s: %w", l.Addr(), brief(err)))
		select {
		case <-time.After(100 * time.Millisecond):
		case <-l.ctx.Done():
			return
		}
	}
}

// admit makes nc a pending peer, for which the oldest may have to go.
func (l *Listener) admit(nc net.Conn) {
	ctx, cancel := context.WithTimeoutCause(l.ctx, l.opts.HandshakeTimeout, ErrHandshakeTimeout)
	ctx, drop := context.WithCancelCause(ctx)
	in := &Incoming{Remote: nc.RemoteAddr().String(), nc: nc, opts: l.opts}

	l.mu.Lock()
	if l.pending.Len() >= l.opts.MaxPending {
		l.pending.Remove(l.pending.Front()).(context.CancelCauseFunc)(ErrCrowded)
	}
	in.place = l.pending.PushBack(drop)
	l.mu.Unlock()

	l.running.Go(func() {
		defer cancel()
		defer drop(nil)
		defer l.leave(in.place)
		l.receive(ctx, in)
	})
}

// receive takes one pending peer to Accept, or drops it when ctx ends.
func (l *Listener) receive(ctx context.Context, in *Incoming) {
	err := aborting(ctx, in.nc, func() (err error) {
		in.Hello, err = meet(in.nc)
		return err
	})
	if err == nil {
		select {
		case l.incoming <- in:
			return
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	in.nc.Close()
	if l.ctx.Err() == nil {
		l.opts.OnError(in.Remote, fmt.Errorf("handshake with %s: %w", in.Remote, err))
	}
}

// leave ends a peer's being pending, if it still is.
func (l *Listener) leave(e *list.Element) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending.Remove(e) // of one removed before, nothing happens
}

// meet is the listening side's handshake up to the decision. It returns the
// peer's Hello; what this package can refuse by itself it has refused.
func meet(nc net.Conn) (Hello, error) {
	p, err := readPreface(nc)
	if err != nil {
		return Hello{}, err
	}
	if p.typ != msgHello {
		return Hello{}, badHello("message %d where a Hello was due", p.typ)
	}
	// Also a Hello of another version is read: unread bytes at close(2) would
	// reset the connection and could cost the peer the refusal.
	body, err := readBody(nc, p)
	if err != nil {
		return Hello{}, err
	}
	if p.protocol != ProtocolVersion {
		err := &VersionError{Ours: ProtocolVersion, Theirs: p.protocol}
		return Hello{}, refuse(nc, CodeVersion, err)
	}
	h, err := ParseHello(body)
	if err != nil {
		return Hello{}, refuse(nc, CodeMalformed, err)
	}
	h.Protocol = p.protocol
	return h, nil
}

// refuse tells the peer why and returns it.
func refuse(nc net.Conn, code Code, why error) error {
	if err := writeMessage(nc, msgRefuse, ProtocolVersion, appendRefusal(nil, code, why.Error())); err != nil {
		return errors.Join(why, err)
	}
	return why
}

// Incoming is a peer that said Hello and waits for the answer. Exactly one of
// Welcome and Refuse must be called, once; either may wait as long as the
// handshake timeout for the peer to take the answer.
type Incoming struct {
	Hello  Hello
	Remote string // the peer's address
	nc     net.Conn
	opts   Options
	place  *list.Element // in Listener.pending, while there
}

// Welcome accepts the peer and answers with hello, of which Protocol, Session,
// From, To and Class are filled in to match the peer's. On error the connection is closed.
func (in *Incoming) Welcome(hello Hello) (*Conn, error) {
	hello.Protocol, hello.Session, hello.Class = in.Hello.Protocol, in.Hello.Session, in.Hello.Class
	hello.From, hello.To = in.Hello.To, in.Hello.From
	in.nc.SetDeadline(time.Now().Add(in.opts.HandshakeTimeout))
	if err := writeHello(in.nc, msgWelcome, &hello); err != nil {
		in.nc.Close()
		return nil, fmt.Errorf("welcoming %s: %w", in.Remote, err)
	}
	fd, err := takeFD(in.nc)
	if err != nil {
		return nil, fmt.Errorf("welcoming %s: %w", in.Remote, err)
	}
	return NewConn(fd, in.Hello, in.opts)
}

// Refuse turns the peer away; its Dial returns a *RefusedError with code, CodeRole
// or above, and text, made printable and cut to MaxRefusal bytes.
func (in *Incoming) Refuse(code Code, text string) error {
	defer in.nc.Close()
	in.nc.SetDeadline(time.Now().Add(in.opts.HandshakeTimeout))
	if err := writeMessage(in.nc, msgRefuse, ProtocolVersion, appendRefusal(nil, code, text)); err != nil {
		return fmt.Errorf("refusing %s: %w", in.Remote, err)
	}
	return nil
}
