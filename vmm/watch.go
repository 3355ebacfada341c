package vmm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"coalesce/link"
	"coalesce/vmm/control"
)

// Watched is a process that can be looked at while it runs: a *Guest or a *Lender.
// Any goroutine may.
type Watched interface {
	Status() *Status
	// Statistics returns the counters, and the so many hottest pages of each
	// guest.
	Statistics(ctx context.Context, pages int) (*Statistics, error)
}

// Status is what a process is and does.
type Status struct {
	Name    string        `json:"name"` // of the instance
	Role    string        `json:"role"` // "client" or "lender"
	Host    string        `json:"host"`
	Build   string        `json:"build"`
	PID     int           `json:"pid"`
	Started time.Time     `json:"started"`
	Guest   *GuestStatus  `json:"guest,omitempty"`   // of a client, while one runs
	Lending *LenderStatus `json:"lending,omitempty"` // of a lender
}

// GuestStatus is a client's guest.
type GuestStatus struct {
	Kernel  string    `json:"kernel"` // the file
	Version string    `json:"version,omitempty"`
	Boots   int       `json:"boots"` // how often it was booted, this time included
	Since   time.Time `json:"since"` // the last boot
	// KernelBase is the guest-physical address where the kernel was put; one that
	// does not place itself at random stays there.
	KernelBase uint64       `json:"kernel_base"`
	Nodes      []NodeStatus `json:"nodes"`
}

// NodeStatus is one host's part in a guest.
type NodeStatus struct {
	Node     link.NodeID   `json:"node"`
	Address  string        `json:"address,omitempty"` // of a lender
	CPUs     []int         `json:"cpus"`              // vCPU ids
	Memory   uint64        `json:"memory"`            // bytes
	Distance uint8         `json:"distance,omitempty"`
	RTT      time.Duration `json:"rtt_ns,omitempty"` // smallest seen
	TSCError uint64        `json:"tsc_error,omitempty"`
}

// LenderStatus is what a lender has and lends.
type LenderStatus struct {
	Address    string          `json:"address"`
	CPUs       int             `json:"cpus"`
	CPUsLent   int             `json:"cpus_lent"`
	Memory     uint64          `json:"memory"` // bytes
	MemoryLent uint64          `json:"memory_lent"`
	Sessions   []SessionStatus `json:"sessions"`
}

// SessionStatus is one client's session on a lender.
type SessionStatus struct {
	Client string      `json:"client"` // its address
	Node   link.NodeID `json:"node"`   // what the lender is in its guest
	CPUs   int         `json:"cpus"`
	Memory uint64      `json:"memory"` // bytes
	Since  time.Time   `json:"since"`
}

// Guest is the window through which the guest of a Run can be looked at: it is in
// that Run's configuration, and in those of the boots that follow.
type Guest struct {
	host    *Host
	started time.Time

	mu      sync.RWMutex // held for reading as long as somebody looks
	running *client      // nil between two boots
	since   time.Time
	boots   int
	ctx     context.Context // ends when running is about to
	leave   context.CancelFunc
}

// NewGuest returns one through which nothing is seen before a Run has it.
func NewGuest(h *Host) *Guest { return &Guest{host: h, started: time.Now()} }

// show lets others look at c until hide is called, which waits for them. A nil
// Guest shows nothing.
func (g *Guest) show(c *client) (hide func()) {
	if g == nil {
		return func() {}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running, g.since = c, time.Now()
	g.boots++
	ctx, leave := context.WithCancel(context.Background())
	g.ctx, g.leave = ctx, leave
	return func() {
		leave()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.running = nil
	}
}

// Status implements Watched.
func (g *Guest) Status() *Status {
	g.mu.RLock()
	defer g.mu.RUnlock()
	s := &Status{Role: "client", Host: g.host.Name, Build: g.host.Build, Started: g.started}
	if c := g.running; c != nil {
		s.Guest = &GuestStatus{Kernel: c.cfg.Kernel, Version: c.entry.KernelVersion, Boots: g.boots, Since: g.since,
			KernelBase: c.entry.KernelBase, Nodes: c.nodes()}
	}
	return s
}

// nodes describes who takes part in the guest.
func (c *client) nodes() []NodeStatus {
	var nodes []NodeStatus
	for i, share := range c.layout.Shares {
		n := NodeStatus{Node: link.NodeID(i), Memory: share.Memory, Distance: share.Distance}
		for _, cpu := range c.layout.Local(n.Node) {
			n.CPUs = append(n.CPUs, cpu.ID)
		}
		if i > 0 {
			l := c.lenders[i-1]
			n.Address = l.spec.Address
			n.RTT, n.TSCError = l.measured(c.cfg.Host)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

// statisticsTimeout bounds the wait for a lender's counters.
const statisticsTimeout = 2 * time.Second

// errNoGuest is for who asks between two boots.
var errNoGuest = control.Errorf(http.StatusServiceUnavailable, "the guest does not run yet")

// Statistics implements Watched. What a lender does not answer in 2 s is missing.
func (g *Guest) Statistics(ctx context.Context, pages int) (*Statistics, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	c := g.running
	if c == nil {
		return nil, errNoGuest
	}
	ctx, cancel := context.WithTimeout(ctx, statisticsTimeout)
	defer cancel()
	defer context.AfterFunc(g.ctx, cancel)()
	nodes := make([]NodeStatistics, 1+len(c.lenders))
	var asking sync.WaitGroup
	for i, l := range c.lenders {
		asking.Go(func() {
			n, err := l.statistics(ctx, c.cfg.Host, pages*hotPerPage)
			if err != nil {
				n = NodeStatistics{NodeReport: NodeReport{Node: l.node}, Missing: link.Printable(err.Error(), maxReason)}
			}
			nodes[i+1] = n
		})
	}
	nodes[0] = c.node.makeStatistics(c.cfg.Host.Name, pages*hotPerPage)
	asking.Wait()
	places := c.layout.places(c.entry)
	return &Statistics{Taken: time.Now(), Guests: []GuestStatistics{{Client: c.cfg.Host.Name, Nodes: nodes,
		Pages: hottest(nodes, pages, func(gpa uint64) string { return placeOf(places, gpa) })}}}, nil
}

// ask sends a question of a kind to the lender and returns the answer's payload,
// which has the question's Seq. One is asked at a time. The guest must have been
// started.
func (l *lender) ask(ctx context.Context, kind uint8, q question, answer func(b []byte) (seq uint64, err error)) error {
	select {
	case l.asking <- struct{}{}:
		defer func() { <-l.asking }()
	case <-ctx.Done():
		return l.wrap("wait for its answer to another question", ctx.Err())
	}
	l.asked++
	q.Seq = l.asked
	if err := sendControl(l.control, kind, q); err != nil {
		return l.wrap("ask it", err)
	}
	for {
		select {
		case f := <-l.answers:
			if f.kind != kind {
				continue // to a question that was given up
			}
			seq, err := answer(f.payload)
			if err != nil {
				return l.wrap("understand its answer", err)
			}
			if seq == q.Seq {
				return nil
			}
		case <-l.watched:
			return l.wrap("ask it", errors.New("the session broke"))
		case <-ctx.Done():
			return l.wrap("wait for its answer", ctx.Err())
		}
	}
}

// statistics asks the lender for its counters and adds what was measured of its
// link.
func (l *lender) statistics(ctx context.Context, host *Host, hot int) (NodeStatistics, error) {
	var a statisticsAnswer
	err := l.ask(ctx, ctlStatistics, question{Hot: hot}, func(b []byte) (uint64, error) {
		a = statisticsAnswer{}
		if err := decodeControl(b, &a); err != nil {
			return 0, err
		}
		return a.Seq, a.check(l.node)
	})
	a.Node.RTT, a.Node.TSCError = l.measured(host)
	return a.Node, err
}

// Status implements Watched.
func (l *Lender) Status() *Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &LenderStatus{Address: l.Addr(), CPUs: l.cfg.CPUs, CPUsLent: l.cpusLent, Memory: l.cfg.Memory, MemoryLent: l.memoryLent,
		Sessions: []SessionStatus{}}
	for _, session := range l.sessionsLocked() {
		s.Sessions = append(s.Sessions, SessionStatus{Client: session.peer, Node: session.self,
			CPUs: session.ask.CPUs, Memory: session.ask.Memory, Since: session.since})
	}
	return &Status{Role: "lender", Host: l.cfg.Host.Name, Build: l.cfg.Host.Build, Started: l.started, Lending: s}
}

// Statistics implements Watched: of this host's part in each guest.
func (l *Lender) Statistics(_ context.Context, pages int) (*Statistics, error) {
	l.mu.Lock()
	sessions := l.sessionsLocked()
	l.mu.Unlock()
	s := &Statistics{Guests: []GuestStatistics{}}
	for _, session := range sessions {
		session.look(func(n *node) {
			nodes := []NodeStatistics{n.makeStatistics(l.cfg.Host.Name, pages)}
			places := n.layout.places(nil)
			s.Guests = append(s.Guests, GuestStatistics{Client: session.peer, Nodes: nodes,
				Pages: hottest(nodes, pages, func(gpa uint64) string { return placeOf(places, gpa) })})
		})
	}
	s.Taken = time.Now()
	return s, nil
}

// look calls f with the session's node, unless there is none yet or any more. The
// node stays until f returns.
func (s *lending) look(f func(n *node)) {
	s.looking.RLock()
	defer s.looking.RUnlock()
	if s.shown != nil {
		f(s.shown)
	}
}

// show lets others look at a node, or at none; it waits for those who look.
func (s *lending) show(n *node) {
	s.looking.Lock()
	defer s.looking.Unlock()
	s.shown = n
}

// Intervals at which statistics can be streamed.
const (
	MinEvery = 100 * time.Millisecond
	MaxEvery = time.Hour
)

// ServeControl adds what can be asked about w to an instance's socket:
//
//	GET /v1/status                                 Status
//	GET /v1/statistics[?pages=N]                   Statistics
//	GET /v1/statistics/stream[?pages=N][&every=D]  Statistics, one now and one every D, such as 500ms (1s)
func ServeControl(s *control.Server, w Watched) {
	s.Handle("GET /v1/status", func(*http.Request) (any, error) {
		st := w.Status()
		st.Name, st.PID = s.Name(), os.Getpid()
		return st, nil
	})
	s.Handle("GET /v1/statistics", func(r *http.Request) (any, error) {
		pages, err := pagesOf(r)
		if err != nil {
			return nil, err
		}
		return w.Statistics(r.Context(), pages)
	})
	s.Stream("GET /v1/statistics/stream", func(r *http.Request, send func(v any) error) error {
		pages, err := pagesOf(r)
		if err != nil {
			return err
		}
		every := time.Second
		if q := r.FormValue("every"); q != "" {
			if every, err = time.ParseDuration(q); err != nil || every < MinEvery || every > MaxEvery {
				return control.Errorf(http.StatusBadRequest, "every=%s: a time from %v to %v", q, MinEvery, MaxEvery)
			}
		}
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			v, err := w.Statistics(r.Context(), pages)
			if err != nil {
				return err
			}
			if err := send(v); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return fmt.Errorf("stream statistics: %w", context.Cause(r.Context()))
			}
		}
	})
}

// pagesOf returns how many pages a caller wants, none if it does not say.
func pagesOf(r *http.Request) (int, error) {
	q := r.FormValue("pages")
	if q == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(q)
	if err != nil || n < 0 || n > MaxPages {
		return 0, control.Errorf(http.StatusBadRequest, "pages=%s: 0 to %d", q, MaxPages)
	}
	return n, nil
}
