package sim

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"coalesce/link"
)

// wire is one direction of a link, as package link shows it to its user: frames
// arrive whole, once and in order; what is lost below delays what follows; the
// end is an error.
type wire struct {
	from, to *node
	spec     LinkSpec
	free     int64 // when the sender's interface is free
	last     int64 // when the last frame arrives
	inbox    []frame
	stats    link.Stats
	refused  bool  // the peer's kernel says that nobody reads this any more
	stopped  bool  // this side has ended it
	ended    bool  // the end has arrived; nothing comes after it
	cutAt    int64 // when the sender's host vanished; 0: it did not
}

// frame is one frame, or the connection's end.
type frame struct {
	h       link.Header
	payload []byte
	sent    int64 // when it has left the host
	end     error
}

// keepAlive is how long a silent peer is waited for.
const keepAlive = 2_000_000_000

// segment is what one packet carries, in bytes; a lost one costs a round trip
// more, and now and then a timeout.
const (
	segment = 1448
	timeout = 200_000_000
)

// Send is dsm.Link's.
func (l *wire) Send(h link.Header, payload ...[]byte) error {
	w := l.from.w
	w.Switch()
	switch {
	case l.stopped:
		return link.ErrClosed
	case l.refused:
		return fmt.Errorf("sending page frames: %w", unix.EPIPE)
	}
	f := frame{h: h, payload: w.newPayload()}
	for _, p := range payload {
		f.payload = append(f.payload, p...)
	}
	if n := len(f.payload); n > link.Page.MaxPayload() {
		return fmt.Errorf("sending page frames: one of %d bytes: %w", n, link.ErrTooLong)
	}
	size := link.HeaderSize + len(f.payload)
	l.stats.FramesOut++
	l.stats.BytesOut += uint64(size)
	l.free = max(l.free, w.now) + int64(float64(size)/l.spec.Rate)
	at := l.free + l.spec.Delay + int64(w.dice.Float64()*float64(l.spec.Jitter))
	for range (size + segment - 1) / segment {
		if w.dice.chance(l.spec.Loss) {
			at += 2 * l.spec.Delay
			if w.dice.chance(0.2) {
				at += timeout
			}
		}
	}
	if w.dice.chance(l.spec.Outage) {
		at += w.dice.Int64N(keepAlive / 2)
	}
	w.trace(l.from, "sends to node %d: %s", l.to.id, payloadText(f.payload))
	f.sent = l.free
	l.carry(at, f)
	return nil
}

// carry has a frame arrive at a time, or when those before it have.
func (l *wire) carry(at int64, f frame) {
	w := l.from.w
	l.last = max(at, l.last)
	w.at(l.last, func() {
		if l.ended || l.to.dead || l.cutAt != 0 && f.sent > l.cutAt {
			return
		}
		l.ended = f.end != nil
		l.inbox = append(l.inbox, f)
		l.to.peers[l.from.id].wake()
	})
}

// deliver returns what the receiver's thread does with the next frame.
func (l *wire) deliver() func() {
	n := l.to
	if len(l.inbox) == 0 {
		return nil
	}
	f := l.inbox[0]
	l.inbox = l.inbox[:copy(l.inbox, l.inbox[1:])]
	if f.end != nil {
		n.w.trace(n, "reads the end of the link to node %d: %v", l.from.id, f.end)
		return func() { n.driver.Lost(l.from.id, f.end) }
	}
	n.w.trace(n, "receives from node %d: %s", l.from.id, payloadText(f.payload))
	n.w.result.Frames++
	return func() {
		n.driver.Receive(l.from.id, &f.h, f.payload)
		n.w.putPayload(f.payload)
	}
}

// cut ends the link with one of its sides: what is on the way from it still
// arrives. A process that was killed leaves a kernel that says so; of a host that
// vanished nothing is heard any more.
func (l *wire) cut(vanish bool) {
	w := l.from.w
	if vanish {
		l.cutAt = w.now
		l.carry(w.now+keepAlive, frame{end: link.ErrVanished})
		return
	}
	l.end(io.EOF)
	w.after(2*l.spec.Delay, func() { l.to.wires[l.from.id].refused = true })
}

// end has the peer read an error once it has read all before it.
func (l *wire) end(err error) {
	if !l.stopped {
		l.stopped = true
		l.carry(l.from.w.now+l.spec.Delay, frame{end: err})
	}
}

// Abort is dsm.Link's.
func (l *wire) Abort(err error) { l.end(&link.AbortError{Reason: err.Error()}) }

// Close is dsm.Link's.
func (l *wire) Close() error {
	l.end(io.EOF)
	return nil
}

// Stats is dsm.Link's.
func (l *wire) Stats() link.Stats { return l.stats }
