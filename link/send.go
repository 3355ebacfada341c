package link

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// Send sends one frame: h, whose Len and Seq it fills in, and the payload's
// parts one after another, at most MaxParts of them. Frames are whole and arrive
// in the order of the Sends, whatever threads they come from. The payload is
// the caller's again on return.
//
// May not allocate, may not block: the socket is offered the frame without
// waiting; what it does not take, a slow peer's, is copied to a queue that a
// writer of its own drains. The queue, once there, allocates.
//
// Errors: ErrTooLong, ErrReservedKind and ErrParts leave the connection as it
// was and nothing sent. Any other is the reason the connection has stopped, now
// or before: ErrBacklog, ErrVanished, ErrClosed, a *FrameError or *AbortError
// that Recv met, or the socket's errno, each possibly wrapped.
func (c *Conn) Send(h Header, payload ...[]byte) error {
	if h.Kind >= KindReserved {
		return fmt.Errorf("sending %s frames: one of kind %#x: %w", c.class, h.Kind, ErrReservedKind)
	}
	if len(payload) > MaxParts {
		return fmt.Errorf("sending %s frames: one in %d parts, at most %d: %w", c.class, len(payload), MaxParts, ErrParts)
	}
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	if n > c.class.MaxPayload() {
		return fmt.Errorf("sending %s frames: one of %d bytes, at most %d: %w", c.class, n, c.class.MaxPayload(), ErrTooLong)
	}
	c.mu.Lock()
	err := c.sendLocked(&h, payload...)
	c.mu.Unlock()
	return err
}

// Flush waits until the socket has taken all that Send had to queue. A sender of
// much, as of a bulk transfer, calls it to go as fast as the peer reads and not
// meet ErrBacklog. It blocks, so it is not for a thread that must get back to
// Recv: two ends could wait for each other. Errors: the context's, or as Send.
func (c *Conn) Flush(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.awaitLocked(ctx, func() (bool, error) {
		return c.send.queue.size == 0, c.send.gone
	})
}

// sendLocked is Send past its checks. mu must be held.
func (c *Conn) sendLocked(h *Header, payload ...[]byte) error {
	if err := c.sendableLocked(); err != nil {
		return err
	}
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	h.Len = uint32(n)
	h.Seq = c.send.seq + 1
	var hdr [HeaderSize]byte
	putHeader(&hdr, h)

	q := &c.send.queue
	sent := 0
	if q.size == 0 { // else this frame's turn has not come
		var err error
		if sent, err = sendNoWait(c.fd, &hdr, payload); err != nil {
			return c.sendFailedLocked(err)
		}
	}
	if sent == HeaderSize+n {
		c.stats.sentInline.Add(1)
	} else if err := c.enqueueLocked(&hdr, payload, sent, HeaderSize+n); err != nil {
		return err
	}
	c.send.seq++
	c.stats.framesOut.Add(1)
	c.stats.bytesOut.Add(uint64(HeaderSize + n))
	return nil
}

// sendableLocked says why nothing can be sent, nil if it can. mu must be held.
func (c *Conn) sendableLocked() error {
	switch {
	case c.cause.Load() != nil:
		return c.Err()
	case c.send.gone != nil:
		return c.send.gone
	case c.send.ended:
		return ErrClosed
	}
	return nil
}

// sendFailedLocked takes note of the socket's error. If the peer has closed its
// end, what it sent before, perhaps its reason, may still be unread: only the
// sending half ends, and Recv stops the connection once it has read it all. mu must be held.
func (c *Conn) sendFailedLocked(errno error) error {
	err := c.broken("sending", errno)
	if gone(errno) {
		c.send.gone = err
	} else {
		c.stopLocked(err)
	}
	return err
}

// enqueueLocked queues a frame but for its first sent bytes. mu must be held.
func (c *Conn) enqueueLocked(hdr *[HeaderSize]byte, payload [][]byte, sent, total int) error {
	q := &c.send.queue
	if q.size+total-sent > c.opts.MaxQueued {
		err := fmt.Errorf("sending %s frames, peer %s, %d bytes waiting: %w", c.class, c.far, q.size, ErrBacklog)
		c.stopLocked(err)
		return err
	}
	idle := q.size == 0
	skip := min(sent, HeaderSize)
	q.add(hdr[skip:])
	sent -= skip
	for _, p := range payload {
		skip = min(sent, len(p))
		q.add(p[skip:])
		sent -= skip
	}
	c.stats.sentQueued.Add(1)
	if uint64(q.size) > c.stats.queuedHigh.Load() {
		c.stats.queuedHigh.Store(uint64(q.size))
	}
	if idle {
		go c.write()
	}
	return nil
}

// write is the writer: it hands the queue to the socket, waiting as long as the
// peer takes, and ends with the queue empty. One runs exactly while the queue is
// not empty, so a connection that keeps up has none.
func (c *Conn) write() {
	q := &c.send.queue
	c.mu.Lock()
	defer c.mu.Unlock()
	for q.size > 0 && c.cause.Load() == nil && c.send.gone == nil {
		p := q.front()
		c.mu.Unlock()
		n, err := writeBlocking(c.fd, p)
		c.mu.Lock()
		q.drop(n)
		if err != nil {
			c.sendFailedLocked(err)
		}
	}
	*q = queue{}
	if c.send.ended {
		unix.Shutdown(c.fd, unix.SHUT_WR) // CloseWrite left this to us; Close waits for us
	}
	c.cond.Broadcast()
}
