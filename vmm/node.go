package vmm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
	"coalesce/vmm/bus"
	"coalesce/vmm/latency"
	"coalesce/vmm/trace"
)

// node is one host's half of a guest, the same in both roles: memory, vCPUs,
// interrupt router and, when the guest spans hosts, the memory engine and the
// links.
type node struct {
	id     link.NodeID
	layout *Layout
	made   time.Time
	clock  stamper
	// fixedTSC: the guest counts this host's own TSC, since KVM has no other.
	fixedTSC bool

	trace   *trace.Recorder // nil: nobody wants to see it
	mem     *uffd.Memory
	vm      *vcpu.VM
	router  *apic.Router
	engine  *dsm.Engine // nil while the guest has one host
	vcpus   []*vcpu.VCPU
	remote  *remoteBus // a lender's way to the devices
	ports   *bus.Bus   // the client's devices
	mmio    *bus.Bus
	ioapic  func(vector uint8) // the client's I/O APIC, for EOIs
	ipis    [dsm.MaxNodes]*link.Conn
	ipisIn  atomic.Uint64
	forward atomic.Uint64 // device accesses sent to the client

	processors int // wanted for it

	awake *os.File // holds the host's processors out of deep sleep; may be nil

	// events takes what ends the guest; see event.
	events chan event

	conns   []*link.Conn   // closed by close
	serving sync.WaitGroup // their readers
}

// event is something that ends a guest or a session.
type event struct {
	kind eventKind
	err  error
	// told: a lender said so itself, or its session's end; a link that broke
	// knows less.
	told bool
}

type eventKind uint8

const (
	evPowerOff eventKind = iota
	evReset
	evPanic  // the guest's kernel said so (pvpanic)
	evQuit   // the user asked at the console
	evFailed // err says why
)

// report passes an event on without ever blocking the reporter: the first one
// decides, and the channel has room for it.
func (n *node) report(e event) {
	select {
	case n.events <- e:
	default:
	}
}

// nodeConfig is what newNode needs beyond the layout.
type nodeConfig struct {
	id        link.NodeID
	layout    *Layout
	host      *Host
	cpuid     *vcpu.CPUIDSet
	tscKHz    uint32
	tscOffset int64 // guest TSC minus this host's, of which checkTSCOffset approves
	view      uint32
	hold      time.Duration // fixed minimum hold, or 0
	transfer  time.Duration // first guess of a page's transfer time
	spans     bool          // the guest has other hosts
	trace     bool          // record what happens
	mem       *uffd.Memory
	log       zerolog.Logger
}

// newNode makes memory, VM and vCPUs; the vCPUs are paused. The memory is the
// node's from here on, also after an error.
func newNode(ctx context.Context, cfg nodeConfig) (n *node, err error) {
	n = &node{id: cfg.id, layout: cfg.layout, made: time.Now(), mem: cfg.mem, events: make(chan event, 8)}
	n.clock.khz, n.fixedTSC = cfg.tscKHz, cfg.host.FixedTSC != nil
	if !n.fixedTSC {
		n.clock.offset.Store(cfg.tscOffset)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
			n = nil
		}
	}()
	var tracer dsm.Tracer
	if cfg.trace {
		n.trace = newRecorder(cfg)
		tracer = n.trace
	}
	if cfg.spans {
		if n.awake, err = latency.Hold(); err != nil {
			cfg.log.Debug().AnErr("reason", err).Msg("processors may sleep deeply, which makes page faults slower")
		}
		n.engine, err = dsm.New(dsm.Config{
			Self: cfg.id, Memory: cfg.mem, Homes: cfg.layout.Homes, View: cfg.view, Hold: cfg.hold, Transfer: cfg.transfer, Clock: &n.clock, Tracer: tracer,
			OnFail: func(err error) { n.report(event{kind: evFailed, err: err}) },
		})
		if err != nil {
			return n, err
		}
	}
	if n.vm, err = vcpu.NewVM(cfg.host.KVM, 0); err != nil {
		return n, fmt.Errorf("make a virtual machine: %w", err)
	}
	for i, s := range cfg.mem.Slots() {
		if err := n.vm.SetMemory(uint32(i), s.GPA, s.Size, s.HVA, 0); err != nil {
			return n, fmt.Errorf("give the guest %d MiB of memory at %#x: %w", s.Size>>20, s.GPA, err)
		}
	}
	if !n.fixedTSC {
		if err := n.vm.SetTSCOffset(ctx, uint64(cfg.tscOffset)); err != nil {
			return n, err
		}
	}
	n.router = apic.NewRouter(n.endOfInterrupt)
	for _, c := range cfg.layout.CPUs {
		if c.Node != cfg.id {
			n.router.SetRemote(c.APICID, uint32(c.Node))
			continue
		}
		if err := n.addCPU(c, cfg); err != nil {
			return n, err
		}
	}
	n.processors = len(n.vcpus) + 2*len(cfg.layout.Shares)
	wantProcessors(n.processors)
	return n, nil
}

// wanted is how many of the Go runtime's processors this process's nodes want: for
// blocked vCPUs and resolvers at the same time.
var wanted struct {
	sync.Mutex
	n int
}

// wantProcessors adds to what is wanted; what was given is not taken away.
func wantProcessors(n int) {
	const others = 4 // the runtime's own work and all else
	wanted.Lock()
	defer wanted.Unlock()
	wanted.n += n
	if runtime.GOMAXPROCS(0) < wanted.n+others {
		runtime.GOMAXPROCS(wanted.n + others)
	}
}

// addCPU makes one of this node's vCPUs.
func (n *node) addCPU(c CPU, cfg nodeConfig) error {
	a := apic.New(c.APICID, c.ID == 0, n.router, vcpu.Clock{})
	var thread atomic.Pointer[dsm.Thread]
	vc := vcpu.Config{
		ID: uint32(c.ID), APIC: a, TSCKHz: cfg.tscKHz, Exits: n,
		CPUID: cfg.cpuid.ForVCPU(cfg.layout.topology(c)),
	}
	if n.engine != nil {
		vc.OnExit = func(*vcpu.VCPU) {
			if t := thread.Load(); t != nil {
				t.Proof()
			}
		}
		vc.OnWait = func(_ *vcpu.VCPU, waiting bool) {
			if t := thread.Load(); t != nil {
				t.Idle(waiting)
			}
		}
	}
	v, err := n.vm.NewVCPU(vc)
	if err != nil {
		return err
	}
	if n.engine != nil {
		thread.Store(n.engine.AddThread(v.TID(), v.Stall))
	}
	n.vcpus = append(n.vcpus, v)
	n.router.SetLocal(a, v.Kick)
	return nil
}

// connect takes one class connection of a peer into use; it is closed with the
// node, unless there is an error.
func (n *node) connect(peer link.NodeID, c *link.Conn) error {
	switch c.Class() {
	case link.Page:
		return n.engine.AddPeer(peer, c)
	case link.Interrupt:
		n.ipis[peer] = c
		n.router.SetNode(uint32(peer), func(m apic.Message) { n.sendIPI(peer, c, m) })
		n.serving.Go(func() { n.serveIPIs(peer, c) })
	case link.IO:
		if n.id == 0 {
			n.serving.Go(func() { n.serveDevices(peer, c) })
		} else {
			n.remote = newRemoteBus(c, &n.clock, n.trace, len(n.layout.CPUs))
			n.serving.Go(n.serveReplies)
		}
	default:
		return fmt.Errorf("a connection of class %v is not expected from node %d", c.Class(), peer)
	}
	n.conns = append(n.conns, c)
	return nil
}

// pauseTimeout is how long close waits for vCPUs to stop by themselves. One
// that waits for a page inside KVM's instruction emulator does not.
const pauseTimeout = 200 * time.Millisecond

// close stops the node. Its order: the vCPUs are paused as far as they can be;
// the links end, so that none waits for a device; the engine ends, which
// releases those that wait for a page; then their threads are joined, and only
// then does the memory go. Nothing touches it afterwards.
func (n *node) close() error {
	var errs []error
	wantProcessors(-n.processors)
	n.processors = 0
	if n.vm != nil {
		ctx, cancel := context.WithTimeout(context.Background(), pauseTimeout)
		_ = n.vm.Pause(ctx) // who does not pause is joined below
		cancel()
	}
	for _, c := range n.conns {
		c.Abort(link.ErrClosed)
	}
	if n.engine != nil {
		errs = append(errs, n.engine.Close())
	}
	if n.vm != nil {
		errs = append(errs, n.vm.Close())
	}
	for _, c := range n.conns {
		errs = append(errs, c.Close())
	}
	n.serving.Wait()
	if n.awake != nil {
		errs = append(errs, n.awake.Close())
	}
	return errors.Join(append(errs, n.mem.Close())...)
}
