package dsm

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"coalesce/dsm/uffd"
)

// RegionPages is the number of pages that share a home and a lock: 2 MiB.
const RegionPages = 512

// ErrClosed is returned once the engine stopped in order.
var ErrClosed = errors.New("memory engine closed")

// Config describes a node's part in a guest's memory.
type Config struct {
	Self   NodeID
	Memory *uffd.Memory
	// Homes names the home of every region, in the order of Memory's page
	// indexes. At the start a region's only copies are its home's.
	Homes []NodeID
	View  uint32 // number of the membership, in every frame
	// Hold is the minimum time a page stays after its installation; 0 lets it
	// follow the time that transfers take, of which Transfer is a first guess.
	Hold, Transfer time.Duration
	// Clock stamps what this node sends; no content is shown to the guest
	// before its sender's stamp has passed here.
	Clock Clock
	// Tracer may be nil.
	Tracer Tracer
	// OnFail is called once, on a goroutine of its own, when the session
	// cannot go on: a link broke, a peer broke the protocol, the kernel
	// refused an operation.
	OnFail func(error)
}

// Clock is the guest's time stamp counter on a node.
type Clock interface {
	// Now returns it, or 0 where frames need no stamp.
	Now() uint64
	// Await returns once it has passed stamp, or an error for a stamp so far
	// ahead that no clock skew explains it. 0 has always passed.
	Await(stamp uint64) error
}

// Engine runs the protocol for one node: it answers userfaults and peers.
//
// Locks, in the order they are taken: a region's mu; a Thread's mu; an outbox's
// mu; and the leaves twins.mu, streaks.mu, errands.mu, holds.mu and failing.
type Engine struct {
	cfg     Config
	host    Host
	kernel  *kernel // is host, but for a Driver's engine: nil
	regions []region
	stats   counters
	made    int64 // in monotonic ns

	scratches sync.Pool // of *scratch

	peers   [MaxNodes]atomic.Pointer[outbox]
	errands errands
	twins   twins

	hold    minimumHold
	holds   holdQueue
	streaks streaks

	prefetch prefetch

	interval atomic.Uint32 // checkpoint interval

	failing mutex         // a leaf; guards the setting of failErr
	failed  chan struct{} // closed after failErr is set
	failErr error

	running sync.WaitGroup // readers of faults and holds
	linked  sync.WaitGroup // readers of peers
}

// New prepares the engine: regions homed elsewhere are registered with
// userfaultfd, so that the first access asks their home. Regions homed here
// stay ordinary memory until another node first asks for one of their pages.
func New(cfg Config) (*Engine, error) {
	if err := cfg.check(cfg.Memory.Pages()); err != nil {
		return nil, err
	}
	k, err := newKernel(cfg.Memory)
	if err != nil {
		return nil, err
	}
	e, err := newEngine(cfg, k)
	if err != nil {
		return nil, errors.Join(err, k.Close())
	}
	e.kernel = k
	return e, nil
}

// check returns what is wrong with the homes of a memory of so many pages.
func (c *Config) check(pages int) error {
	if pages%RegionPages != 0 || len(c.Homes) != pages/RegionPages {
		return fmt.Errorf("memory of %d pages needs %d home entries and whole regions of %d pages; there are %d entries",
			pages, pages/RegionPages, RegionPages, len(c.Homes))
	}
	for i, home := range c.Homes {
		if home >= MaxNodes {
			return fmt.Errorf("home of region %d is node %d, limit %d", i, home, MaxNodes-1)
		}
	}
	return nil
}

// newEngine makes an engine of a configuration that was checked. The host
// stays the caller's if there is an error.
func newEngine(cfg Config, h Host) (*Engine, error) {
	e := &Engine{cfg: cfg, host: h, made: h.Now(), regions: make([]region, len(cfg.Homes)), failed: make(chan struct{})}
	e.stats.init()
	e.twins.init()
	e.scratches.New = func() any { return new(scratch) }
	e.hold.fixed = int64(cfg.Hold)
	e.hold.transfer.Store(int64(max(cfg.Transfer, minTransfer)))
	e.holds.host = h
	e.prefetch.limit.Store(firstAhead)
	for i, home := range cfg.Homes {
		e.regions[i].first = uint32(i) * RegionPages
		e.regions[i].home = home
	}
	if err := e.registerForeign(); err != nil {
		return nil, err
	}
	return e, nil
}

// registerForeign registers every run of regions that are homed elsewhere.
func (e *Engine) registerForeign() error {
	for i := 0; i < len(e.regions); {
		if e.regions[i].home == e.cfg.Self {
			i++
			continue
		}
		start := i
		for i < len(e.regions) && e.regions[i].home != e.cfg.Self {
			e.regions[i].armed = true
			i++
		}
		if err := e.host.Register(uint32(start)*RegionPages, (i-start)*RegionPages); err != nil {
			return fmt.Errorf("register %d MiB of guest memory with userfaultfd: %w", (i-start)*2, err)
		}
	}
	return nil
}

// Start begins to answer userfaults. Peers are added before or after.
func (e *Engine) Start() {
	e.running.Add(2)
	go e.serveFaults()
	go e.serveHolds()
}

// region returns the region of a page index that has been checked.
func (e *Engine) region(page uint32) *region { return &e.regions[page/RegionPages] }

// fail ends the session; the first reason wins.
func (e *Engine) fail(err error) {
	e.failing.Lock()
	first := e.failErr == nil
	if first {
		e.failErr = err
		close(e.failed)
	}
	e.failing.Unlock()
	if !first {
		return
	}
	e.arrived(noPage) // for good: nobody will bring them
	if e.cfg.OnFail != nil && !errors.Is(err, ErrClosed) {
		go e.cfg.OnFail(err)
	}
}

// Err returns why the session ended, nil while it runs.
func (e *Engine) Err() error {
	select {
	case <-e.failed:
		return e.failErr
	default:
		return nil
	}
}

// Close ends the session. Its order: no more work is taken (fail), the links
// are closed and their readers joined, then the fault reader stops, and last
// the ranges are unregistered, which wakes every thread that still sleeps in a
// fault; it then sees whatever the page holds, so vCPUs must have been told to
// stop before. The memory itself stays for its owner to close.
func (e *Engine) Close() error {
	e.fail(ErrClosed)
	for i := range e.peers {
		if o := e.peers[i].Load(); o != nil {
			if why := e.Err(); !errors.Is(why, ErrClosed) {
				o.link.Abort(why) // or the peer would blame this node
			}
			_ = o.link.Close()
		}
	}
	e.linked.Wait()
	var err error
	if e.kernel != nil {
		err = e.kernel.Interrupt()
	}
	e.holds.stop()
	e.running.Wait()
	return errors.Join(err, e.host.Close())
}
