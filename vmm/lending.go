package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vmm/tsc"
)

const pageSize = dsm.PageSize

// lending is one client's session on a lender.
//
//	welcomed ── setup ──► building ──► ready ── all links ──► linked ── start ──► running
//	    ├────────────────────┴───────────┴─── stop ──────────────┴──────────────────┤
//	    │                                      ▼                                    │
//	    │                                  stopping: the others may go from now on  │
//	    │                                      │ the client closes                  │
//	    │                                      ▼                                    │
//	    └── failure, link lost ──────────►   over: nothing of it is left ◄──────────┘
//
// In every state but running, a client that does not go on ends it, too.
type lending struct {
	lender   *Lender
	ask      ask
	id       link.SessionID
	self     link.NodeID
	peer     string
	incoming chan *link.Incoming // connections of this session
	since    time.Time

	looking sync.RWMutex // held for reading as long as somebody looks
	shown   *node        // what can be looked at, or nil

	// The session's goroutine alone uses these.
	control  *link.Conn
	node     *node
	stopDump func()
	missing  map[linkName]bool // connections that do not stand yet
	running  bool
	stopping bool // the client knows of the end; nobody's going is a failure from now on
}

// linkName names a connection of a session.
type linkName struct {
	peer  link.NodeID
	class link.Class
}

// frame is a control message on its way from the reader to the session.
type frame struct {
	kind    uint8
	payload []byte
	err     error
}

// run is the session from the welcome to its end.
func (s *lending) run(ctx context.Context, in *link.Incoming) error {
	var err error
	if s.control, err = s.lender.welcome(in); err != nil {
		s.lender.end(s)
		return err
	}
	// What is under way for the client ends when it has gone.
	work, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	frames := readControl(s.control, gone)
	err = s.serve(ctx, work, frames)
	if err != nil && !errors.Is(err, errStopped) && !clientGone(err) {
		// Best effort: the control link itself may be what failed.
		_ = sendControl(s.control, ctlFailed, failed{Error: err.Error(), Lost: lostFellow(err)})
	}
	if s.node != nil {
		s.show(nil)
		s.stopDump()
		err = errors.Join(err, s.node.close())
	}
	s.lender.end(s)
	s.control.CloseWrite() // now the client may believe that all is given back
	err = errors.Join(err, s.control.Close())
	for range frames { // until the reader is gone
	}
	if errors.Is(err, errStopped) {
		return nil
	}
	if clientGone(err) {
		return fmt.Errorf("the client is gone: %w", err)
	}
	return err
}

// clientGone tells that one of the client's connections has ended.
func clientGone(err error) bool {
	var peer *link.PeerError
	return errors.Is(err, io.EOF) && (!errors.As(err, &peer) || peer.Node == 0)
}

// lostFellow returns the fellow lender whose connection has ended, 0 if that is
// not what happened.
func lostFellow(err error) link.NodeID {
	var peer *link.PeerError
	if errors.As(err, &peer) && link.Lost(peer.Err) {
		return peer.Node
	}
	return 0
}

// readControl reads control messages on a goroutine of its own until the
// connection ends; the last frame carries the error, of which ended is told at
// once.
func readControl(c *link.Conn, ended func(error)) chan frame {
	frames := make(chan frame, 16)
	go func() {
		// The thread that blocks in read(2) ends with the session.
		runtime.LockOSThread()
		defer close(frames)
		buf := make([]byte, link.Control.MaxPayload())
		var h link.Header
		for {
			b, err := c.Recv(&h, buf)
			if err != nil {
				ended(err)
				frames <- frame{err: err}
				return
			}
			frames <- frame{kind: h.Kind, payload: append([]byte(nil), b...)}
		}
	}()
	return frames
}

// clientPatience is how long a client may leave its session as it is, unless the
// guest runs. It prepares its lenders one after the other.
const clientPatience = time.Minute

// serve goes on until the session is to end. work ends when the client has gone.
func (s *lending) serve(ctx, work context.Context, frames <-chan frame) error {
	idle := time.NewTimer(s.lender.cfg.patience())
	defer idle.Stop()
	for {
		var events chan event
		if s.node != nil && !s.stopping {
			events = s.node.events
		}
		if s.running && !s.stopping {
			idle.Stop()
		} else {
			idle.Reset(s.lender.cfg.patience())
		}
		select {
		case f := <-frames:
			if s.stopping && errors.Is(f.err, io.EOF) {
				return errStopped
			}
			if f.err != nil {
				return fmt.Errorf("control link: %w", f.err)
			}
			if err := s.message(work, f); err != nil {
				return err
			}
		case in := <-s.incoming:
			if err := s.join(in); err != nil {
				return err
			}
		case e := <-events:
			if e.kind != evReset {
				return e.err
			}
			// The client decides, and asks for a report before it stops.
			if err := sendControl(s.control, ctlFailed, failed{Error: e.err.Error(), Reset: true}); err != nil {
				return err
			}
		case <-idle.C:
			return fmt.Errorf("the client has not gone on for %v", s.lender.cfg.patience())
		case <-ctx.Done():
			return errors.New("the lender shuts down")
		}
	}
}

// message handles one control message.
func (s *lending) message(ctx context.Context, f frame) error {
	switch {
	case f.kind == ctlSetup && s.node == nil:
		var set setup
		if err := decodeControl(f.payload, &set); err != nil {
			return err
		}
		if err := s.build(ctx, &set); err != nil {
			return fmt.Errorf("prepare the guest: %w", err)
		}
		if err := sendControl(s.control, ctlReady, struct{}{}); err != nil {
			return err
		}
		return s.dial(ctx, set.Dial)
	case f.kind == ctlStart && s.node != nil && len(s.missing) == 0 && !s.running:
		s.running = true
		return s.node.vm.Resume(ctx)
	case f.kind == ctlReport && s.node != nil:
		return sendControl(s.control, ctlReport, s.node.makeReport(s.lender.cfg.Host.Name))
	case f.kind == ctlClock && s.running && !s.stopping:
		return s.followClock(ctx, f.payload)
	case f.kind == ctlStatistics && s.node != nil:
		var q question
		if err := decodeControl(f.payload, &q); err != nil {
			return err
		}
		n := s.node.makeStatistics(s.lender.cfg.Host.Name, q.Hot)
		return sendControl(s.control, ctlStatistics, statisticsAnswer{Seq: q.Seq, Node: n, Pages: n.hot})
	case f.kind == ctlTrace && s.node != nil && s.node.trace != nil:
		var q question
		if err := decodeControl(f.payload, &q); err != nil {
			return err
		}
		a, err := answerTrace(s.node.trace, &q)
		if err != nil {
			return err
		}
		return sendControl(s.control, ctlTrace, a)
	case f.kind == ctlStop && !s.stopping:
		s.stopping = true
		return sendControl(s.control, ctlStop, struct{}{})
	case f.kind == ctlFailed:
		var why failed
		if err := decodeControl(f.payload, &why); err != nil {
			return err
		}
		return fmt.Errorf("the client failed: %w", why.reason())
	}
	return fmt.Errorf("control message %d is not expected now", f.kind)
}

// check lays out the guest that a client sets up, after comparing it with what
// was granted.
func (s *lending) check(set *setup) (*Layout, error) {
	layout, err := NewLayout(set.Shares)
	if err != nil {
		return nil, err
	}
	if set.Node != s.self || int(set.Node) >= len(set.Shares) {
		return nil, fmt.Errorf("set up as node %d of %d, greeted as node %d", set.Node, len(set.Shares), s.self)
	}
	if mine := set.Shares[set.Node]; mine.CPUs != s.ask.CPUs || mine.Memory != s.ask.Memory {
		return nil, fmt.Errorf("set up with %d CPUs and %d MiB, granted were %d and %d", mine.CPUs, mine.Memory>>20, s.ask.CPUs, s.ask.Memory>>20)
	}
	var total uint64
	for _, share := range set.Shares {
		total += share.Memory
	}
	if limit := s.lender.cfg.GuestMemory; total > limit {
		return nil, fmt.Errorf("a guest of %d MiB in all: this lender takes part in those of up to %d MiB (lend --guest-memory)", total>>20, limit>>20)
	}
	if err := s.lender.cfg.Host.checkTSC(set.TSCKHz); err != nil {
		return nil, fmt.Errorf("the guest: %w", err)
	}
	if set.Hold < 0 || set.Hold > maxHold || set.Transfer < 0 || set.Transfer > time.Second {
		return nil, fmt.Errorf("minimum hold of %v or transfer time of %v is out of range", set.Hold, set.Transfer)
	}
	// The lenders before this one, each once: the others dial.
	next := link.NodeID(1)
	for _, p := range set.Dial {
		if p.Node != next || p.Node >= s.self {
			return nil, fmt.Errorf("told to dial node %d, as node %d of %d", p.Node, s.self, len(set.Shares))
		}
		next++
	}
	return layout, nil
}

// build makes this host's half of the guest.
func (s *lending) build(ctx context.Context, set *setup) error {
	layout, err := s.check(set)
	if err != nil {
		return err
	}
	features, err := vcpu.DecodeCPUID(set.CPUID)
	if err != nil {
		return fmt.Errorf("the guest's CPU features: %w", err)
	}
	host := s.lender.cfg.Host
	if missing := features.Missing(host.CPUID); len(missing) > 0 {
		return fmt.Errorf("this host's CPU lacks %s", missing[0])
	}
	if err := host.checkTSCOffset(set.TSCOffset); err != nil {
		return err
	}
	if host.FixedTSC != nil {
		s.lender.cfg.Log.Warn().Str("client", s.peer).AnErr("reason", host.FixedTSC).Int64("difference", set.TSCOffset).
			Msg("the guest counts this host's own TSC here")
	}
	mem, err := uffd.NewMemory("coalesce-guest", layout.Windows, uffd.MemoryOptions{})
	if err != nil {
		return err
	}
	s.node, err = newNode(ctx, nodeConfig{id: s.self, layout: layout, host: host, cpuid: features,
		tscKHz: set.TSCKHz, tscOffset: set.TSCOffset, view: set.View, hold: set.Hold, transfer: set.Transfer,
		spans: true, trace: set.Trace, mem: mem, log: s.lender.cfg.Log})
	if err != nil {
		s.node = nil
		return err
	}
	s.stopDump = s.node.dumpOnSignal()
	s.show(s.node)
	s.missing = map[linkName]bool{{0, link.IO}: true}
	for n := range layout.Shares {
		if peer := link.NodeID(n); peer != s.self {
			s.missing[linkName{peer, link.Page}] = true
			s.missing[linkName{peer, link.Interrupt}] = true
		}
	}
	s.node.engine.Start()
	return nil
}

// dial makes the connections to the lenders that are named, which await them.
func (s *lending) dial(ctx context.Context, peers []peerAddress) error {
	for _, p := range peers {
		for _, class := range []link.Class{link.Page, link.Interrupt} {
			hello := s.lender.cfg.Host.hello()
			hello.Session, hello.From, hello.To, hello.Class = s.id, s.self, p.Node, class
			c, err := link.Dial(ctx, p.Address, hello, link.Options{Clock: tsc.Read})
			switch {
			case ctx.Err() != nil && err != nil:
				return fmt.Errorf("control link: %w", context.Cause(ctx))
			case err != nil:
				// The client is not told more: it chose the address, and is not to
				// find out what listens on this host's network.
				s.lender.cfg.Log.Warn().Str("client", s.peer).Str("fellow", p.Address).Err(err).Msg("fellow lender not reached")
				return fmt.Errorf("cannot reach fellow lender %d at %s", p.Node, p.Address)
			}
			if err := s.take(c, linkName{p.Node, class}); err != nil {
				return err
			}
		}
	}
	return nil
}

// join welcomes a connection of this session.
func (s *lending) join(in *link.Incoming) error {
	name := linkName{in.Hello.From, in.Hello.Class}
	if s.node == nil || s.stopping || !s.missing[name] || in.Hello.To != s.self {
		s.lender.refuse(in, CodeSession, fmt.Sprintf("a %v connection from node %d is not expected", name.class, name.peer))
		return nil
	}
	c, err := in.Welcome(s.lender.cfg.Host.hello())
	if err != nil {
		return err
	}
	return s.take(c, name)
}

// take hands a connection to the node and tells the client when it was the
// last one.
func (s *lending) take(c *link.Conn, name linkName) error {
	if err := s.node.connect(name.peer, c); err != nil {
		return errors.Join(err, c.Close())
	}
	delete(s.missing, name)
	if len(s.missing) > 0 {
		return nil
	}
	return sendControl(s.control, ctlLinked, struct{}{})
}
