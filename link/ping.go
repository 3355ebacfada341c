package link

import (
	"context"
	"encoding/binary"
	"io"
	"time"
)

const (
	maxPings   = 64 // pings outstanding at once
	pingWindow = 64 // samples the windowed minimum looks back
	smoothing  = 8  // the smoothed RTT moves by 1/8 of the difference, as in RFC 6298
)

// Sample is one exchange. T1 and T4 are this side's clock at sending the ping
// and receiving the pong, T2 and T3 the peer's at receiving and answering, all
// in units of Options.Clock.
type Sample struct{ T1, T2, T3, T4 uint64 }

// RTT is the round trip without the time the peer held it.
func (s Sample) RTT() uint64 { return (s.T4 - s.T1) - (s.T3 - s.T2) }

// Offset is the peer's clock minus this side's, if both ways took equally long.
// It is the usual ((t2-t1)+(t3-t4))/2, written so that it does not overflow
// however far the clocks' zeros are apart.
func (s Sample) Offset() int64 { return int64(s.T2-s.T1) - int64(s.RTT()/2) }

// ErrBound is how wrong Offset can be, however unequal the ways were.
func (s Sample) ErrBound() uint64 { return (s.RTT() + 1) / 2 }

// sane rejects what no two monotonic clocks of the same rate produce.
func (s Sample) sane() bool {
	return s.T4 >= s.T1 && s.T3-s.T2 <= s.T4-s.T1
}

// RTTStats is what a connection knows of its round trip, in units of Options.Clock.
type RTTStats struct {
	Last      uint64 // of the newest exchange
	Min       uint64 // least since the connection began
	WindowMin uint64 // least of the newest 64
	Smoothed  uint64 // exponentially weighted mean, weight 1/8
	N         uint64 // exchanges measured; the others are 0 while it is
}

// pings is a connection's measurement; guarded by Conn.mu.
type pings struct {
	sent, answered uint64           // since the connection began
	t1             [maxPings]uint64 // of ping n at n % maxPings, for answered <= n < sent
	n              uint64           // samples taken
	window         [pingWindow]Sample
	last, min      uint64
	smoothed       uint64 // times smoothing
}

// Ping sends a ping; the peer's Recv answers it and this side's Recv takes the
// answer into RTT and Offset. Any thread; may not allocate, may not block.
// ErrPings if 64 are outstanding; else as Send.
func (c *Conn) Ping() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pingLocked()
}

func (c *Conn) pingLocked() error {
	p := &c.ping
	if p.sent-p.answered == maxPings {
		return ErrPings
	}
	var b [pingSize]byte
	h := Header{Kind: kindPing}
	t1 := c.opts.Clock()
	binary.LittleEndian.PutUint64(b[:], t1)
	if err := c.sendLocked(&h, b[:]); err != nil {
		return err
	}
	p.t1[p.sent%maxPings] = t1
	p.sent++
	return nil
}

// answerPing sends the pong to a ping with payload p. Failing to is the sending
// half's affair: a Recv concerned by it notices by itself.
func (c *Conn) answerPing(p []byte) {
	var b [pongSize]byte
	h := Header{Kind: kindPong}
	copy(b[:], p)
	binary.LittleEndian.PutUint64(b[8:], c.opts.Clock())
	c.mu.Lock()
	defer c.mu.Unlock()
	binary.LittleEndian.PutUint64(b[16:], c.opts.Clock())
	// Counted first, so that whoever has the pong finds it counted.
	c.stats.pingsAnswered.Add(1)
	if c.sendLocked(&h, b[:]) != nil {
		c.stats.pingsAnswered.Add(^uint64(0))
	}
}

// recvPong takes the answer to the oldest ping outstanding.
func (c *Conn) recvPong(h *Header, b []byte) error {
	t4 := c.opts.Clock()
	s := Sample{
		T1: binary.LittleEndian.Uint64(b),
		T2: binary.LittleEndian.Uint64(b[8:]),
		T3: binary.LittleEndian.Uint64(b[16:]),
		T4: t4,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.ping
	if p.answered == p.sent || s.T1 != p.t1[p.answered%maxPings] {
		return c.badFrame(h, "a pong to no ping")
	}
	p.answered++
	if s.sane() {
		p.add(s)
	} else {
		c.stats.pingsDropped.Add(1)
	}
	c.cond.Broadcast()
	return nil
}

func (p *pings) add(s Sample) {
	rtt := s.RTT()
	if p.n == 0 {
		p.min, p.smoothed = rtt, rtt*smoothing
	} else {
		p.min = min(p.min, rtt)
		p.smoothed += rtt - p.smoothed/smoothing
	}
	p.last = rtt
	p.window[p.n%pingWindow] = s
	p.n++
}

// best returns the sample of least RTT among the newest n, pingWindow at most.
func (p *pings) best(n uint64) (best Sample, ok bool) {
	for i := range min(n, p.n, pingWindow) {
		if s := p.window[(p.n-1-i)%pingWindow]; !ok || s.RTT() < best.RTT() {
			best, ok = s, true
		}
	}
	return best, ok
}

// RTT returns the round trip measured so far. Any thread.
func (c *Conn) RTT() RTTStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	best, ok := c.ping.best(pingWindow)
	if !ok {
		return RTTStats{}
	}
	return RTTStats{
		Last:      c.ping.last,
		Min:       c.ping.min,
		WindowMin: best.RTT(),
		Smoothed:  c.ping.smoothed / smoothing,
		N:         c.ping.n,
	}
}

// BestSample returns the exchange with the least round trip among the newest 64;
// false before the first. Any thread.
func (c *Conn) BestSample() (Sample, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ping.best(pingWindow)
}

// QuickestOf returns the exchange with the least round trip among the newest n,
// which may be up to 64; the zero one before the first. Any thread.
func (c *Conn) QuickestOf(n int) Sample {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, _ := c.ping.best(uint64(n))
	return s
}

// Offset returns the peer's clock minus this side's and how wrong that can be,
// in units of Options.Clock, from BestSample: the newest 64 and not all, since
// clocks drift apart. ok is false before the first exchange. Any thread.
func (c *Conn) Offset() (offset int64, errBound uint64, ok bool) {
	s, ok := c.BestSample()
	return s.Offset(), s.ErrBound(), ok
}

// AwaitPings makes n exchanges, one after another, and returns when the last
// answer is in. Another goroutine must be in Recv, on both sides. Errors: the
// context's, io.EOF if the peer ended, or as Send.
func (c *Conn) AwaitPings(ctx context.Context, n int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		if err := c.pingLocked(); err != nil {
			return err
		}
		want := c.ping.sent
		err := c.awaitLocked(ctx, func() (bool, error) {
			if c.ping.answered < want && c.eof {
				return false, io.EOF
			}
			return c.ping.answered >= want, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

var processStart = time.Now()

// monotonic is the clock where Options names none: ns since the process started.
func monotonic() uint64 { return uint64(time.Since(processStart)) }
