package link

import "time"

// Options tune a connection or a listener. The zero value is what a session
// uses; a field left 0 takes its default.
type Options struct {
	// HandshakeTimeout bounds connecting plus handshake (Dial), and the wait for
	// a peer's Hello and for Accept to take it (Listener). Default 5 s.
	HandshakeTimeout time.Duration
	// KeepAlive is after how long a silent peer becomes an error (ErrVanished): an
	// idle connection whose probes, or data whose delivery, nobody acknowledges;
	// also a peer that is alive and takes nothing although its receive window is
	// full, so a class whose receiver may pause that long needs more. Default 2 s;
	// negative: never. An idle connection is probed by whole seconds, so 2 s is the
	// least that holds for it. TCP only.
	KeepAlive time.Duration
	// MaxQueued bounds, in bytes, what Send keeps for a peer that does not read.
	// Default 64 MiB.
	MaxQueued int
	// Clock stamps pings. Both sides' clocks must tick at nearly the same rate;
	// their zeros may differ. It runs under the connection's lock and must not
	// call it. Default: monotonic ns since the process started.
	Clock func() uint64
	// Congestion names the TCP congestion control, as in
	// /proc/sys/net/ipv4/tcp_available_congestion_control. Default: the host's.
	Congestion string

	// MaxPending bounds how many peers of a Listener may be between connecting
	// and Accept; one more drops the oldest. Default 64.
	MaxPending int
	// OnError, if set, is told of each peer a Listener gave up before Accept saw
	// it, and of each failed accept(2) (remote is empty then). It is called from
	// the Listener's goroutines, several at once.
	OnError func(remote string, err error)
}

func (o Options) withDefaults() Options {
	if o.HandshakeTimeout == 0 {
		o.HandshakeTimeout = 5 * time.Second
	}
	if o.KeepAlive == 0 {
		o.KeepAlive = 2 * time.Second
	}
	if o.MaxQueued == 0 {
		o.MaxQueued = 64 << 20
	}
	if o.Clock == nil {
		o.Clock = monotonic
	}
	if o.MaxPending == 0 {
		o.MaxPending = 64
	}
	if o.OnError == nil {
		o.OnError = func(string, error) {}
	}
	return o
}
