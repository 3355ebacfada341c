package link

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Conn is one connection after its handshake: frames of one class, both ways.
// Each half has an end of its own; what breaks the connection ends both:
//
//	   sending half                               receiving half
//	┌──────────────┐                             ┌──────────────┐
//	│     open     │                             │     open     │
//	└──┬────────┬──┘                             └──┬────────┬──┘
//	   │        │ CloseWrite, or the peer is        │        │ the peer's
//	   │        ▼ gone (EPIPE, ECONNRESET)          │        ▼ CloseWrite or end
//	   │    ┌───────┐                               │    ┌───────┐
//	   │    │ ended │ Send fails; Recv still        │    │  EOF  │ Recv: io.EOF; Send
//	   │    └───┬───┘ delivers what came before     │    └───┬───┘ works if the peer reads
//	   ▼        ▼                                   ▼        ▼
//	┌────────────────────────────────────────────────────────────┐
//	│ stopped: Abort, the peer's abort, a malformed frame, a     │
//	│ full queue, a socket error. cause says why; socket shut    │
//	│ down; the descriptor is still ours                         │
//	└──────────────────────────────┬─────────────────────────────┘
//	                               ▼ Close (from any state)
//	                           ┌────────┐
//	                           │ closed │ nothing is left
//	                           └────────┘
//
// Whoever has a Conn must Close it, also after an error.
type Conn struct {
	fd    int // valid until Close has waited for the writer and the reader
	class Class
	peer  Hello
	local string
	far   string
	opts  Options

	stats counters

	// cause is why the connection stopped; nil while it has not. Set once, under mu.
	cause atomic.Pointer[error]

	closeOnce sync.Once

	// mu guards the sending half and the pings. It is never held across a call
	// that can block.
	mu   sync.Mutex
	cond sync.Cond // on mu; broadcast when writing ends, a pong comes, or the connection stops
	send struct {
		seq    uint64 // of the last frame taken
		queue  queue  // what the socket did not take; empty exactly when no writer runs
		ended  bool   // CloseWrite was called
		gone   error  // set by the first Send that found the peer gone
		fdOpen bool   // fd may be shut down
	}
	ping pings
	eof  bool // the peer will send no more

	// recvMu guards the receiving half. It is held by the reader in read(2).
	recvMu sync.Mutex
	recv   struct {
		seq  uint64 // of the last frame handed out or handled
		buf  []byte // read ahead of what was asked for
		r, w int    // buf[r:w] is unread
	}
}

// NewConn makes a Conn of fd, a connected stream socket whose handshake is done
// or not needed, and owns fd from then on, also on error. peer is what Peer
// returns; its Class becomes the connection's.
func NewConn(fd int, peer Hello, opts Options) (*Conn, error) {
	c := &Conn{fd: fd, class: peer.Class, peer: peer, opts: opts.withDefaults()}
	if peer.Class >= NumClasses {
		unix.Close(fd)
		return nil, fmt.Errorf("making a connection: there is no class %d", uint8(peer.Class))
	}
	if err := prepareSocket(fd, &c.opts); err != nil {
		unix.Close(fd)
		return nil, err
	}
	c.local = addrText(unix.Getsockname(fd))
	c.far = addrText(unix.Getpeername(fd))
	c.cond.L = &c.mu
	c.send.fdOpen = true
	c.recv.buf = make([]byte, min(c.class.MaxPayload(), maxReadAhead)+HeaderSize+maxAbort)
	return c, nil
}

// Class returns the connection's class.
func (c *Conn) Class() Class { return c.class }

// Peer returns what the peer said about itself. The caller must not change it.
func (c *Conn) Peer() *Hello { return &c.peer }

// LocalAddr returns this end's address for people.
func (c *Conn) LocalAddr() string { return c.local }

// RemoteAddr returns the peer's address for people.
func (c *Conn) RemoteAddr() string { return c.far }

// Err returns why the connection stopped, nil while it has not.
func (c *Conn) Err() error {
	if p := c.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// CloseWrite ends this side's sending: frames already sent are delivered, then
// the peer's Recv returns io.EOF; Recv goes on. Later Sends fail with ErrClosed.
// Any thread; does not block. An orderly end is CloseWrite, Recv until io.EOF,
// Close; Close alone may cost the peer frames it has not received yet.
func (c *Conn) CloseWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.send.ended {
		return
	}
	c.send.ended = true
	if c.send.queue.size == 0 && c.send.fdOpen {
		unix.Shutdown(c.fd, unix.SHUT_WR) // fails only if the connection is gone, which Recv reports
	}
}

// Abort gives the connection up because of err: the peer is told the reason, as
// far as the socket takes it at once, and its Recv returns an *AbortError; here
// Send and Recv fail with err. For what the class's user finds wrong in a frame.
// Any thread; does not block; Close is still due.
func (c *Conn) Abort(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cause.Load() == nil && c.sendableLocked() == nil && c.send.queue.size == 0 {
		reason := bounded(err.Error(), maxAbort)
		var hdr [HeaderSize]byte
		putHeader(&hdr, &Header{Kind: kindAbort, Len: uint32(len(reason)), Seq: c.send.seq + 1})
		sendNoWait(c.fd, &hdr, [][]byte{[]byte(reason)}) // a courtesy: its failure changes nothing
	}
	c.stopLocked(err)
}

// Close ends the connection and returns once nothing of it is left. Any
// goroutine, any number of times, but not from Options.Clock. Things stop in
// this order:
//
//  1. cause is set: every later Send and Recv fails with ErrClosed.
//  2. The socket is shut down: a reader blocked in read(2) and a writer blocked
//     in send(2) return; nothing can enter the socket any more. What Send queued
//     in memory is dropped; what the socket had taken is still on its way.
//  3. The writer is waited for, then the reader: each looks at cause before it
//     next uses fd, so from here on none can.
//  4. fd is closed. Its number is free for others only now.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		c.mu.Lock()
		c.stopLocked(ErrClosed)
		for c.send.queue.size > 0 {
			c.cond.Wait()
		}
		c.mu.Unlock()

		c.recvMu.Lock()
		c.mu.Lock()
		c.send.fdOpen = false
		unix.Close(c.fd)
		c.mu.Unlock()
		c.recv.buf = nil
		c.recvMu.Unlock()
	})
	return nil
}

// stopLocked sets the cause, if none is set yet, and shuts the socket down. mu must be held.
func (c *Conn) stopLocked(err error) {
	if c.cause.Load() == nil {
		c.cause.Store(&err)
		if c.send.fdOpen {
			unix.Shutdown(c.fd, unix.SHUT_RDWR) // ENOTCONN: the peer was faster
		}
	}
	c.cond.Broadcast()
}

// broken puts an error of the socket into the words of this package.
func (c *Conn) broken(doing string, err error) error {
	if vanished(err) {
		return fmt.Errorf("%s %s frames, peer %s: %w for %v: %w", doing, c.class, c.far, ErrVanished, c.opts.KeepAlive, err)
	}
	return fmt.Errorf("%s %s frames, peer %s: %w", doing, c.class, c.far, err)
}

// awaitLocked waits on cond until done, which is called with mu held, says so or
// fails, the connection stops, or ctx ends. mu must be held; it is released meanwhile.
func (c *Conn) awaitLocked(ctx context.Context, done func() (bool, error)) error {
	stop := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cond.Broadcast()
	})
	defer stop()
	for {
		if err := c.Err(); err != nil {
			return err
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		c.cond.Wait()
	}
}
