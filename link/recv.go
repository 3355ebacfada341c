package link

import (
	"fmt"
	"io"
)

const (
	// maxReadAhead is the most payload the read-ahead buffer is made for.
	maxReadAhead = 64 << 10
	// directRead is the least missing payload that is read past the buffer,
	// straight to where the caller wants it.
	directRead = 16 << 10
)

// Recv receives one frame: its header into h, its payload into buf, of which it
// returns the part used. The payload is the caller's; Recv keeps no reference.
// Frames of this package (pings) are handled on the way.
//
// It blocks in read(2) on the caller's thread, outside the runtime's poller, so
// a thread locked to its goroutine sleeps and wakes there itself. May not
// allocate. One caller at a time; a second waits for the first.
//
// Errors: ErrTooLong if the payload is longer than buf; the frame stays, h is
// filled in, and a call with h.Len bytes gets it (class.MaxPayload() always
// suffice). io.EOF is the peer's orderly end between two frames. After any other
// the connection has stopped: io.ErrUnexpectedEOF within a frame, *FrameError,
// *AbortError, ErrVanished, ErrClosed, what Send stopped with, or the socket's
// errno, each possibly wrapped.
func (c *Conn) Recv(h *Header, buf []byte) ([]byte, error) {
	c.recvMu.Lock()
	defer c.recvMu.Unlock()
	for {
		if err := c.Err(); err != nil {
			return nil, err
		}
		if err := c.fill(HeaderSize); err != nil {
			return nil, c.recvFailed(err)
		}
		if err := c.nextHeader(h); err != nil {
			return nil, c.recvFailed(err)
		}
		if h.Kind >= KindReserved {
			if err := c.recvOwn(h); err != nil {
				return nil, c.recvFailed(err)
			}
			continue
		}
		if int64(h.Len) > int64(len(buf)) {
			return nil, fmt.Errorf("receiving %s frames: one of %d bytes into %d: %w", c.class, h.Len, len(buf), ErrTooLong)
		}
		c.recv.r += HeaderSize
		p := buf[:h.Len]
		if err := c.readPayload(p); err != nil {
			return nil, c.recvFailed(err)
		}
		c.frameDone(h)
		return p, nil
	}
}

// nextHeader parses and checks the header at the buffer's front and leaves it there.
func (c *Conn) nextHeader(h *Header) error {
	if err := parseHeader(c.recv.buf[c.recv.r:c.recv.w], h); err != nil {
		fe := err.(*FrameError)
		fe.Class = c.class
		return fe
	}
	limit := c.class.MaxPayload()
	if h.Kind >= KindReserved {
		limit = maxAbort
	}
	switch {
	case h.Seq != c.recv.seq+1:
		return c.badFrame(h, "sequence number %d after %d", h.Seq, c.recv.seq)
	case int64(h.Len) > int64(limit):
		return c.badFrame(h, "at most %d bytes allowed", limit)
	}
	return nil
}

func (c *Conn) badFrame(h *Header, format string, a ...any) error {
	return &FrameError{Class: c.class, Kind: h.Kind, Len: h.Len, Reason: fmt.Sprintf(format, a...)}
}

func (c *Conn) frameDone(h *Header) {
	c.recv.seq = h.Seq
	c.stats.framesIn.Add(1)
	c.stats.bytesIn.Add(HeaderSize + uint64(h.Len))
}

// recvOwn takes the frame of this package whose header is at the buffer's front.
func (c *Conn) recvOwn(h *Header) error {
	whole := HeaderSize + int(h.Len)
	if err := c.fill(whole); err != nil {
		return err
	}
	p := c.recv.buf[c.recv.r+HeaderSize : c.recv.r+whole]
	c.recv.r += whole
	c.frameDone(h)
	switch {
	case h.Kind == kindPing && len(p) == pingSize:
		c.answerPing(p)
		return nil
	case h.Kind == kindPong && len(p) == pongSize:
		return c.recvPong(h, p)
	case h.Kind == kindAbort:
		return &AbortError{Reason: bounded(string(p), maxAbort)}
	default:
		return c.badFrame(h, "no such frame")
	}
}

// fill reads until n bytes lie together at the buffer's front, n <= the buffer.
// io.EOF only if the stream ends before the first of them.
func (c *Conn) fill(n int) error {
	rv := &c.recv
	if rv.r == rv.w {
		rv.r, rv.w = 0, 0
	} else if len(rv.buf)-rv.r < n {
		rv.w = copy(rv.buf, rv.buf[rv.r:rv.w])
		rv.r = 0
	}
	for rv.w-rv.r < n {
		got, err := c.read(rv.buf[rv.w:])
		if err == io.EOF && rv.w > rv.r {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		rv.w += got
	}
	return nil
}

// readPayload fills p from the buffer first, then from the socket.
func (c *Conn) readPayload(p []byte) error {
	rv := &c.recv
	for len(p) > 0 {
		var n int
		var err error
		switch {
		case rv.r < rv.w:
			n = copy(p, rv.buf[rv.r:rv.w])
			rv.r += n
		case len(p) >= directRead:
			n, err = c.read(p)
		default:
			err = c.fill(1)
		}
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// read is one read(2); the end of the stream is io.EOF.
func (c *Conn) read(p []byte) (int, error) {
	n, err := readBlocking(c.fd, p)
	if err != nil {
		return 0, err
	}
	if n == 0 {
		return 0, io.EOF
	}
	c.stats.reads.Add(1)
	return n, nil
}

// recvFailed makes err final, unless it is the peer's orderly end, and returns
// what Recv is to return: an earlier reason to stop comes first.
func (c *Conn) recvFailed(err error) error {
	switch err.(type) {
	case *FrameError:
		c.Abort(err)
		return c.Err()
	case *AbortError:
	default:
		if err != io.EOF {
			err = c.broken("receiving", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == io.EOF && c.send.gone != nil {
		err = c.send.gone // no orderly end: a Send took the socket's error, and here it reads as the end
	}
	if err == io.EOF && c.cause.Load() == nil {
		c.eof = true
		c.cond.Broadcast()
		return err
	}
	c.stopLocked(err)
	return c.Err()
}
