package lab

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Path is what a Relay does to each direction of a connection.
type Path struct {
	Delay time.Duration
	// Loss is the probability, 0 to 1, that a segment is lost on its way. Then it and all behind it come Stall later, as
	// over TCP, which sends it again when a timer has run out.
	Loss  float64
	Stall time.Duration
	// Seed decides which segments are lost: the i-th of a direction of the j-th connection is, or is not, each time. What
	// is in it depends on how the data comes.
	Seed uint64
}

// segmentSize is what TCP sends at once over Ethernet, in bytes.
const segmentSize = 1448

// Relay passes TCP connections on, in user space: it stands for a slow cable where the kernel has no netem. What
// passes through it takes a little longer than its Path says, since it takes two more wake-ups.
type Relay struct {
	Addr string // where it listens

	host *Host
	to   string
	path Path
	ln   net.Listener

	running sync.WaitGroup

	mu     sync.Mutex // guards all below
	conns  map[net.Conn]bool
	closed bool
	lost   uint64
	passed uint64
}

// Relay listens at listen, "host:port", and passes connections on to the address to, both on the host. It must be
// closed.
func (h *Host) Relay(listen, to string, p Path) (*Relay, error) {
	r := &Relay{host: h, to: to, path: p, conns: map[net.Conn]bool{}}
	err := h.Do(func() (err error) {
		r.ln, err = net.Listen("tcp", listen)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", to, err)
	}
	r.Addr = r.ln.Addr().String()
	r.running.Go(r.serve)
	return r, nil
}

// Close ends the relay and all connections through it.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	err := r.ln.Close()
	for c := range r.conns {
		c.Close()
	}
	r.mu.Unlock()
	r.running.Wait()
	return err
}

// Segments returns how many have passed, and how many of them were lost on the way.
func (r *Relay) Segments() (passed, lost uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed, r.lost
}

func (r *Relay) serve() {
	for connection := uint64(0); ; connection++ {
		from, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.running.Go(func() { r.connect(from, connection) })
	}
}

// keep makes Close close the connection; it reports false if that has been called already.
func (r *Relay) keep(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = true
	return !r.closed
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
	c.Close()
}

// connect passes one connection on until both directions have ended.
func (r *Relay) connect(from net.Conn, connection uint64) {
	defer r.drop(from)
	if !r.keep(from) {
		return
	}
	var to net.Conn
	err := r.host.Do(func() (err error) {
		to, err = net.Dial("tcp", r.to)
		return err
	})
	if err != nil {
		return // from is closed, as if nobody listened
	}
	defer r.drop(to)
	if !r.keep(to) {
		return
	}
	var both sync.WaitGroup
	for i, d := range [][2]net.Conn{{from, to}, {to, from}} {
		random := rand.New(rand.NewPCG(r.path.Seed, 2*connection+uint64(i)))
		both.Go(func() { r.direction(d[0], d[1], random) })
	}
	both.Wait()
}

// parcel is data on its way.
type parcel struct {
	due  time.Duration // on the monotonic clock
	data []byte
}

// onTheWay is how many parcels a direction takes before it no longer reads.
const onTheWay = 4096

// direction passes one direction on until its end, which it passes on, too.
func (r *Relay) direction(from, to net.Conn, random *rand.Rand) {
	way := make(chan parcel, onTheWay)
	var writing sync.WaitGroup
	writing.Go(func() {
		for p := range way {
			sleepUntil(p.due)
			if _, err := to.Write(p.data); err != nil {
				// Nobody takes it any more; nobody shall send more.
				from.Close()
				for range way {
				}
				return
			}
		}
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // whoever it is for may have gone
		}
	})
	buf := make([]byte, 64<<10)
	var last time.Duration // no parcel overtakes another
	for {
		n, err := from.Read(buf)
		now := monotonic()
		for data := buf[:n]; len(data) > 0; {
			size := min(len(data), segmentSize)
			due := now + r.path.Delay
			lost := random.Float64() < r.path.Loss
			if lost {
				due += r.path.Stall
			}
			last = max(last, due)
			way <- parcel{last, append([]byte(nil), data[:size]...)}
			data = data[size:]
			r.count(lost)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				to.Close() // what broke here shall not look like an end there
			}
			close(way)
			writing.Wait()
			return
		}
	}
}

func (r *Relay) count(lost bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed++
	if lost {
		r.lost++
	}
}

func monotonic() time.Duration {
	var ts unix.Timespec
	// It fails for a bad clock or address only.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// sleepUntil returns at a time on the monotonic clock, more exactly than Go's timers, which round to milliseconds.
func sleepUntil(at time.Duration) {
	ts := unix.NsecToTimespec(int64(at))
	for errors.Is(unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil), unix.EINTR) {
	}
}
