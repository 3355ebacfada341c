package vmm

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vmm/tsc"
)

// firstView is the number of the membership a guest boots with.
const firstView = 1

// LenderSpec names a lender and what to ask of it.
type LenderSpec struct {
	Address  string // "host:port"
	CPUs     int
	Memory   uint64 // bytes
	Distance uint8  // SLIT distance, 11..254
}

// DefaultPort is where lenders listen.
const DefaultPort = "7411"

// DefaultDistance is the SLIT distance of a lender reached by wire.
const DefaultDistance = 20

// ParseLender parses "ADDR,cpus=N[,memory=S][,distance=D]".
func ParseLender(s string) (LenderSpec, error) {
	parts := strings.Split(s, ",")
	spec := LenderSpec{Address: parts[0], Distance: DefaultDistance}
	if spec.Address == "" {
		return spec, fmt.Errorf("lender %q: the address is missing", s)
	}
	address, err := hostPort(spec.Address)
	if err != nil {
		return spec, fmt.Errorf("lender %q: %w", s, err)
	}
	spec.Address = address
	for _, p := range parts[1:] {
		key, value, _ := strings.Cut(p, "=")
		switch key {
		case "cpus":
			spec.CPUs, err = strconv.Atoi(value)
		case "memory":
			spec.Memory, err = ParseSize(value)
		case "distance":
			var d uint64
			d, err = strconv.ParseUint(value, 10, 8)
			if err == nil && (d <= 10 || d == 255) {
				err = errors.New("a distance is 11 to 254")
			}
			spec.Distance = uint8(d)
		default:
			err = errors.New("known are cpus=N, memory=SIZE and distance=D")
		}
		if err != nil {
			return spec, fmt.Errorf("lender %q: %s: %w", s, p, err)
		}
	}
	if spec.CPUs < 1 {
		return spec, fmt.Errorf("lender %q: say how many CPUs to borrow with cpus=N", s)
	}
	return spec, nil
}

// hostPort completes "HOST", "HOST:PORT", "[IPv6]" or "[IPv6]:PORT".
func hostPort(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if bare := strings.TrimSuffix(strings.TrimPrefix(address, "["), "]"); err != nil && (bare != address || net.ParseIP(bare) != nil || !strings.Contains(address, ":")) {
		host, port, err = bare, DefaultPort, nil
	}
	if err != nil {
		return "", fmt.Errorf("its address is HOST, HOST:PORT or [IPv6]:PORT: %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q: give a number from 1 to 65535", port)
	}
	return net.JoinHostPort(host, port), nil
}

// ParseSize parses a size of memory: a number with an optional K, M, G or T,
// powers of 1024; without one it counts MiB. It is rounded up to 2 MiB.
func ParseSize(s string) (uint64, error) {
	digits := strings.TrimRight(strings.ToUpper(s), "KMGTIB")
	unit := strings.ToUpper(s)[len(digits):]
	shift, ok := map[string]uint{"": 20, "K": 10, "M": 20, "G": 30, "T": 40, "KIB": 10, "MIB": 20, "GIB": 30, "TIB": 40}[unit]
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || !ok || n > 1<<50>>shift {
		return 0, fmt.Errorf("%q is not a size such as 512M or 2G", s)
	}
	return (n<<shift + granule - 1) &^ (granule - 1), nil
}

// lender is the client's side of one session.
type lender struct {
	spec    LenderSpec
	node    link.NodeID
	session link.SessionID
	control *link.Conn
	frames  chan frame
	reports chan NodeReport
	answers chan frame    // to questions; see ask
	asking  chan struct{} // holds one while somebody asks
	asked   uint64        // questions so far; guarded by asking
	watched chan struct{} // closed when watch or drain has ended; nil before either
	stopped atomic.Bool   // stop was called
	heard   chan struct{} // closed by watch or drain when the lender knows of the stop
	cpuid   *vcpu.CPUIDSet
	tscSync link.Sample // what the lender's TSC offset was taken from
	offset  int64       // guest TSC minus the lender's
	silent  atomic.Bool // it has not answered for some time
}

// errLender wraps what goes wrong with a lender in its name.
func (l *lender) wrap(doing string, err error) error {
	return fmt.Errorf("lender %s: %s: %w", l.spec.Address, doing, err)
}

// greetLenders opens the control connections, agrees on the CPU features and
// measures the links.
func (c *client) greetLenders(ctx context.Context) error {
	host := c.cfg.Host
	c.cpuid = host.CPUID
	var session link.SessionID
	if _, err := rand.Read(session[:]); err != nil {
		return fmt.Errorf("make a session id: %w", err)
	}
	for i, spec := range c.cfg.Lenders {
		l := &lender{spec: spec, node: link.NodeID(i + 1), session: session, reports: make(chan NodeReport, 1), heard: make(chan struct{}),
			answers: make(chan frame, maxAnswers), asking: make(chan struct{}, 1)}
		if err := l.greet(ctx, host); err != nil {
			return err
		}
		c.lenders = append(c.lenders, l)
		if err := host.checkTSC(l.control.Peer().TSCKHz); err != nil {
			return fmt.Errorf("lender %s cannot join: %w", spec.Address, err)
		}
		if missing := host.CPUID.Missing(l.cpuid); c.cfg.HostCPU && len(missing) > 0 {
			return fmt.Errorf("lender %s cannot join: its CPU lacks %s, which --cpu host gives to the guest (--cpu common does without)",
				spec.Address, strings.Join(missing, ", "))
		}
		var err error
		if c.cpuid, err = vcpu.Intersect(c.cpuid, l.cpuid); err != nil {
			return fmt.Errorf("lender %s cannot join: %w", spec.Address, err)
		}
		pings, cancel := context.WithTimeout(ctx, setupTimeout)
		err = l.control.AwaitPings(pings, greetPings)
		cancel()
		if err != nil {
			return l.wrap("measure the link", err)
		}
		if l.cpuid.Model() != host.CPUID.Model() {
			c.cfg.Log.Warn().Str("lender", spec.Address).Msg("the lender's processor is another model: the guest's kernel chooses its mitigations by this host's")
		}
		if theirs := l.control.Peer().Build; theirs != host.Build {
			c.cfg.Log.Warn().Str("lender", spec.Address).Str("its", theirs).Str("this", host.Build).Msg("the lender is another build")
		}
		rtt := l.control.RTT()
		_, bound, _ := l.control.Offset()
		c.cfg.Log.Info().Str("lender", spec.Address).Int("cpus", spec.CPUs).Uint64("memory_mib", spec.Memory>>20).
			Str("rtt", l.cycles(host, rtt.Min).String()).Uint64("tsc_error_cycles", bound).Msg("lender greeted")
	}
	return nil
}

// maxAnswers is how many answers may lie unread: those to questions that were
// given up.
const maxAnswers = 8

// greetPings is how many round trips the first measurement of a link takes.
const greetPings = 16

// cycles converts TSC cycles to time.
func (l *lender) cycles(h *Host, n uint64) time.Duration {
	return time.Duration(float64(n) / float64(h.TSCKHz) * 1e6)
}

// measured returns the link's smallest round trip, and how wrong the lender's TSC
// offset may be, in cycles.
func (l *lender) measured(h *Host) (rtt time.Duration, tscError uint64) {
	return l.cycles(h, l.control.RTT().Min), l.tscSync.ErrBound()
}

// greet opens the control connection.
func (l *lender) greet(ctx context.Context, host *Host) error {
	payload, err := json.Marshal(ask{CPUs: l.spec.CPUs, Memory: l.spec.Memory})
	if err != nil {
		return l.wrap("encode the ask", err)
	}
	hello := l.hello(host, link.Control)
	hello.Payload = payload
	if l.control, err = link.Dial(ctx, l.spec.Address, hello, link.Options{Clock: tsc.Read}); err != nil {
		if errors.Is(err, link.ErrUnreachable) || errors.Is(err, link.ErrHandshakeTimeout) {
			err = fmt.Errorf("%w (is 'coalesce lend' running there?)", err)
		}
		return fmt.Errorf("lender %s: %w", l.spec.Address, err)
	}
	l.frames = readControl(l.control, func(error) {})
	peer := l.control.Peer()
	if peer.PageSize != pageSize {
		return errors.Join(fmt.Errorf("lender %s: its pages have %d bytes, here %d", l.spec.Address, peer.PageSize, pageSize), l.close())
	}
	if l.cpuid, err = vcpu.DecodeCPUID(peer.CPU); err != nil {
		return errors.Join(l.wrap("its CPU features", err), l.close())
	}
	return nil
}

func (l *lender) hello(host *Host, class link.Class) link.Hello {
	h := host.hello()
	h.Session, h.From, h.To, h.Class = l.session, 0, l.node, class
	return h
}

// slowestLink returns the longest of the links' shortest round trips.
func (c *client) slowestLink() time.Duration {
	var rtt time.Duration
	for _, l := range c.lenders {
		rtt = max(rtt, l.cycles(c.cfg.Host, l.control.RTT().Min))
	}
	return rtt
}

// setUpLenders has every lender prepare its half, then makes the links.
func (c *client) setUpLenders(ctx context.Context) error {
	for _, l := range c.lenders {
		var ok bool
		if l.tscSync, ok = l.control.BestSample(); !ok {
			return l.wrap("measure its clock", errors.New("no round trip was answered"))
		}
		set := setup{Node: l.node, Shares: c.layout.Shares, View: firstView, CPUID: c.cpuid.Append(nil),
			TSCKHz: c.cfg.Host.TSCKHz, TSCOffset: c.offset - l.tscSync.Offset(),
			Hold: c.cfg.Hold, Transfer: c.slowestLink(), Trace: c.cfg.Trace != ""}
		for _, other := range c.lenders[:l.node-1] {
			set.Dial = append(set.Dial, peerAddress{Node: other.node, Address: other.spec.Address})
		}
		l.offset = set.TSCOffset
		if err := sendControl(l.control, ctlSetup, set); err != nil {
			return l.wrap("set up", err)
		}
		if err := l.expect(ctx, ctlReady); err != nil {
			return l.wrap("set up", err)
		}
		for _, class := range []link.Class{link.Page, link.Interrupt, link.IO} {
			conn, err := link.Dial(ctx, l.spec.Address, l.hello(c.cfg.Host, class), link.Options{Clock: tsc.Read})
			if err != nil {
				return l.wrap("connect", err)
			}
			if err := c.node.connect(l.node, conn); err != nil {
				return errors.Join(l.wrap("connect", err), conn.Close())
			}
		}
	}
	for _, l := range c.lenders {
		if err := l.expect(ctx, ctlLinked); err != nil {
			return l.wrap("connect", err)
		}
	}
	return nil
}

// setupTimeout bounds each step of a lender's preparation.
const setupTimeout = 15 * time.Second

// expect waits for one kind of message during the preparation.
func (l *lender) expect(ctx context.Context, kind uint8) error {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	select {
	case f := <-l.frames:
		switch {
		case errors.Is(f.err, io.EOF):
			return errClosedConn
		case f.err != nil:
			return f.err
		case f.kind == ctlFailed:
			var why failed
			if err := decodeControl(f.payload, &why); err != nil {
				return err
			}
			return why.reason()
		case f.kind != kind:
			return fmt.Errorf("it sent message %d where %d is due", f.kind, kind)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

// watch passes on what the lender reports while the guest runs.
func (l *lender) watch(n *node) {
	defer close(l.watched)
	heard, explained := false, false
	for f := range l.frames {
		var err error
		switch {
		case f.err != nil && explained:
		case f.err != nil:
			err = l.lost(f.err)
		case f.kind == ctlReport:
			var r NodeReport
			if err = decodeControl(f.payload, &r); err == nil && r.Node != l.node {
				err = fmt.Errorf("%w: a report of node %d", errMalformedControl, r.Node)
			}
			if err != nil {
				err = l.lost(err)
				break
			}
			select {
			case l.reports <- r:
			default: // one nobody asked for
			}
		case f.kind == ctlClock || f.kind == ctlStatistics || f.kind == ctlTrace:
			select {
			case l.answers <- f:
			default: // more than anybody can have asked for
			}
		case f.kind == ctlFailed:
			var why failed
			if err = decodeControl(f.payload, &why); err != nil {
				err = l.lost(err)
				break
			}
			if why.Reset {
				n.report(event{kind: evReset, err: why.reason()})
				continue
			}
			explained = true // the connection's end is no news after that
			err = fmt.Errorf("lender %s ended the session: %w", l.spec.Address, why.reason())
			if why.Lost != 0 {
				// The one that is lost shows it best itself.
				n.report(event{kind: evFailed, err: err})
				continue
			}
		case f.kind == ctlStop && l.stopped.Load() && !heard:
			heard = true
			close(l.heard)
		default:
			err = l.lost(fmt.Errorf("control message %d is not expected now", f.kind))
		}
		if err != nil {
			n.report(event{kind: evFailed, err: err, told: true})
		}
	}
}

// errClosedConn stands for the end of a lender's control connection.
var errClosedConn = errors.New("it closed the connection")

// lost says that the lender is gone, or that the session with it cannot go on
// after what it sent.
func (l *lender) lost(err error) error {
	switch {
	case !link.Lost(err):
		return fmt.Errorf("lender %s sent what no lender sends; the session is over, and with it what its vCPUs and pages held: %w",
			l.spec.Address, err)
	case errors.Is(err, io.EOF):
		err = errClosedConn
	}
	return fmt.Errorf("lender %s is lost, and with it what its vCPUs and pages held: %w", l.spec.Address, err)
}

// reportTimeout bounds the wait for a lender's numbers at the end.
const reportTimeout = 10 * time.Second

// report asks the lender what it did and adds what was measured of its link.
func (l *lender) report(ctx context.Context, host *Host) (NodeReport, error) {
	if l.silent.Load() {
		return NodeReport{}, l.wrap("ask for its report", errSilent)
	}
	if err := sendControl(l.control, ctlReport, struct{}{}); err != nil {
		return NodeReport{}, l.wrap("ask for its report", err)
	}
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	select {
	case r := <-l.reports:
		r.RTT, r.TSCError = l.measured(host)
		return r, nil
	case <-l.watched:
		return NodeReport{}, l.wrap("ask for its report", errors.New("the session broke"))
	case <-ctx.Done():
		return NodeReport{}, l.wrap("ask for its report", ctx.Err())
	}
}

// stop tells the lender that the session is over. The control link may be
// broken already, in which case the lender knows.
func (l *lender) stop() {
	if l.stopped.Swap(true) {
		return
	}
	if l.watched == nil {
		l.watched = make(chan struct{})
		go l.drain()
	}
	_ = sendControl(l.control, ctlStop, struct{}{})
}

// drain takes what a lender says that never got to the guest's start.
func (l *lender) drain() {
	defer close(l.watched)
	heard := false
	for f := range l.frames {
		if f.kind == ctlStop && !heard {
			heard = true
			close(l.heard)
		}
	}
}

// errSilent: it has not answered for some time, and is not asked any more.
var errSilent = errors.New("it does not answer")

// awaitStop returns when the lender knows of the stop, or is gone, or has had its
// time.
func (l *lender) awaitStop() {
	limit := setupTimeout
	if l.silent.Load() {
		limit = time.Second
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	select {
	case <-l.heard:
	case <-l.watched:
	case <-timeout.C:
		l.control.Abort(errors.New("the lender does not answer"))
	}
}

// close waits until the lender has given everything back, which it shows by
// closing its end, and closes the control connection.
func (l *lender) close() error {
	l.stop()
	l.awaitStop()
	l.control.CloseWrite()
	timer := time.AfterFunc(setupTimeout, func() { l.control.Abort(errors.New("the lender does not close the session")) })
	defer timer.Stop()
	<-l.watched
	return l.control.Close()
}
