package vmm

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"coalesce/dsm"
	"coalesce/link"
	"coalesce/vmm/tsc"
)

// Codes with which a lender refuses a connection.
const (
	CodeBusy    = link.CodeRole + iota // not so much left to lend
	CodeBadAsk                         // the ask makes no sense
	CodeSession                        // a connection for a session that is not here
)

// LendConfig says what a lender gives.
type LendConfig struct {
	Listen string // "host:port"
	CPUs   int    // to all clients together
	Memory uint64 // bytes, to all clients together
	// GuestMemory bounds the memory of a guest, all its nodes' together, in bytes:
	// this host has tables for all of it, and room for what its vCPUs touch.
	GuestMemory uint64
	// Drift makes this host's clock look so many parts per million faster than it
	// is; for tests.
	Drift int64
	// Patience is how long a client may leave its session as it is before the
	// guest runs, and after its end; 0: a minute.
	Patience time.Duration
	Host     *Host
	Log      zerolog.Logger
}

func (c *LendConfig) patience() time.Duration {
	if c.Patience != 0 {
		return c.Patience
	}
	return clientPatience
}

// Lender lends vCPUs and memory to clients until it is closed. Several
// sessions may run at once, as far as what it lends suffices.
type Lender struct {
	cfg      LendConfig
	listener *link.Listener
	sessions sync.WaitGroup
	started  time.Time

	mu         sync.Mutex // guards all below
	byID       map[link.SessionID]*lending
	cpusLent   int
	memoryLent uint64
}

// NewLender starts to listen. A host that cannot be one of several under a
// guest is an error, a *doctor.ShadowPagingError if that is the reason.
func NewLender(cfg LendConfig) (*Lender, error) {
	if cfg.CPUs < 1 || cfg.CPUs > MaxCPUs {
		return nil, fmt.Errorf("a lender lends 1 to %d CPUs, not %d", MaxCPUs, cfg.CPUs)
	}
	if err := cfg.Host.checkSpan(cfg.Log); err != nil {
		return nil, err
	}
	l := &Lender{cfg: cfg, started: time.Now(), byID: map[link.SessionID]*lending{}}
	var err error
	l.listener, err = link.Listen(cfg.Listen, link.Options{
		Clock: drifting(tsc.Read, cfg.Drift),
		OnError: func(remote string, err error) {
			cfg.Log.Warn().Str("peer", remote).Err(err).Msg("connection dropped")
		},
	})
	return l, err
}

// Close ends a lender that has not served.
func (l *Lender) Close() error { return l.listener.Close() }

// Addr is the address listened on.
func (l *Lender) Addr() string { return l.listener.Addr() }

// Serve lends until ctx ends; it then ends every session, gives everything
// back and returns nil.
func (l *Lender) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = l.listener.Close() })
	defer stop()
	for {
		in, err := l.listener.Accept()
		if err != nil {
			break // closed
		}
		l.admit(ctx, in)
	}
	l.sessions.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return l.listener.Close()
}

// admit sorts a new connection: a control connection begins a session, any
// other belongs to one.
func (l *Lender) admit(ctx context.Context, in *link.Incoming) {
	if in.Hello.Class == link.Control {
		l.begin(ctx, in)
		return
	}
	if why := l.pass(in); why != "" {
		l.refuse(in, CodeSession, why)
	}
}

// pass hands a connection to its session, or says why it has none.
func (l *Lender) pass(in *link.Incoming) (refusal string) {
	l.mu.Lock() // end looks for connections after the session has left byID
	defer l.mu.Unlock()
	s := l.byID[in.Hello.Session]
	if s == nil {
		return "there is no such session here"
	}
	select {
	case s.incoming <- in:
		return ""
	default:
		return "the session has all its connections"
	}
}

func (l *Lender) refuse(in *link.Incoming, code link.Code, text string) {
	l.cfg.Log.Info().Str("peer", in.Remote).Str("reason", text).Msg("connection refused")
	if err := in.Refuse(code, text); err != nil {
		l.cfg.Log.Warn().Str("peer", in.Remote).Err(err).Msg("refusal not delivered")
	}
}

// begin reserves what a client asks for and starts its session.
func (l *Lender) begin(ctx context.Context, in *link.Incoming) {
	var a ask
	if err := decodeControl(in.Hello.Payload, &a); err != nil {
		l.refuse(in, CodeBadAsk, err.Error())
		return
	}
	if a.CPUs < 1 || a.Memory%granule != 0 || in.Hello.PageSize != pageSize || in.Hello.From != 0 || in.Hello.To == 0 {
		l.refuse(in, CodeBadAsk, fmt.Sprintf("asked for %d CPUs and %d bytes of memory in pages of %d bytes for node %d as node %d",
			a.CPUs, a.Memory, in.Hello.PageSize, in.Hello.To, in.Hello.From))
		return
	}
	s := &lending{lender: l, ask: a, id: in.Hello.Session, self: in.Hello.To, peer: in.Remote,
		incoming: make(chan *link.Incoming, 3*dsm.MaxNodes), since: time.Now()}
	l.mu.Lock()
	cpus, memory := l.cfg.CPUs-l.cpusLent, l.cfg.Memory-l.memoryLent
	_, taken := l.byID[s.id]
	fits := a.CPUs <= cpus && a.Memory <= memory && !taken
	if fits {
		l.cpusLent += a.CPUs
		l.memoryLent += a.Memory
		l.byID[s.id] = s
	}
	l.mu.Unlock()
	if taken {
		l.refuse(in, CodeBusy, "this guest has a session here already: name each lender once")
		return
	}
	if !fits {
		l.refuse(in, CodeBusy, fmt.Sprintf("asked for %d CPUs and %d MiB, %d CPUs and %d MiB are left to lend",
			a.CPUs, a.Memory>>20, cpus, memory>>20))
		return
	}
	l.sessions.Go(func() {
		log := l.cfg.Log.With().Str("client", in.Remote).Logger()
		log.Info().Int("cpus", a.CPUs).Uint64("memory_mib", a.Memory>>20).Msg("session begins")
		err := s.run(ctx, in)
		switch {
		case err == nil:
			log.Info().Msg("session over, ready for the next client")
		default:
			log.Error().Err(err).Msg("session failed, ready for the next client")
		}
	})
}

// sessionsLocked returns the sessions in the order in which they began. mu must be
// held.
func (l *Lender) sessionsLocked() []*lending {
	return slices.SortedFunc(maps.Values(l.byID), func(a, b *lending) int {
		return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.peer, b.peer))
	})
}

// end gives back what a session had, and turns away what still came for it.
func (l *Lender) end(s *lending) {
	l.mu.Lock()
	delete(l.byID, s.id)
	l.cpusLent -= s.ask.CPUs
	l.memoryLent -= s.ask.Memory
	l.mu.Unlock()
	for {
		select {
		case in := <-s.incoming:
			l.refuse(in, CodeSession, "the session is over")
		default:
			return
		}
	}
}

// welcome answers a control Hello with what this host is.
func (l *Lender) welcome(in *link.Incoming) (*link.Conn, error) {
	payload, err := json.Marshal(offer{CPUs: l.cfg.CPUs, Memory: l.cfg.Memory})
	if err != nil {
		return nil, fmt.Errorf("encode the offer: %w", err)
	}
	hello := l.cfg.Host.hello()
	hello.Payload = payload
	return in.Welcome(hello)
}

// errStopped says that the client ended the session in order.
var errStopped = errors.New("stopped by the client")
