package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"coalesce/boot"
	"coalesce/dsm/uffd"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vmm/console"
	"coalesce/vmm/platform"
)

// RunConfig is a guest to run.
type RunConfig struct {
	Kernel, Initrd string // files; Initrd may be empty
	Append         string // added to the kernel's command line
	Mode           boot.Mode
	CPUs           int
	Memory         uint64 // bytes
	Lenders        []LenderSpec
	// HostCPU gives the guest every feature of this host's CPU and refuses a
	// lender that lacks one; otherwise it gets what all of them have.
	HostCPU bool
	// Hold is the minimum hold of a page; 0 lets it follow the links' speed.
	Hold time.Duration
	// Console takes what the guest writes to its serial port. Input, a terminal
	// or anything else, is connected to that port for the time of the run, with
	// messages to its user going to Messages; nil for no input.
	Console  io.Writer
	Input    *os.File
	Messages io.Writer
	// Mark, when it appears on the console, sets Result.Marked.
	Mark string
	// Trace names a file for what happened between the nodes; "" for none.
	Trace string
	// Guest, if not nil, shows the guest to others while it runs.
	Guest *Guest
	// Running, if not nil, is called once the guest runs. It may not block.
	Running func(*RunningGuest)
	Host    *Host
	Log     zerolog.Logger
}

// maxHold is the longest minimum hold that nodes accept.
const maxHold = time.Second

// Layout is the hardware of the guest that is asked for. What cannot be is an
// error, before anybody is asked.
func (c *RunConfig) Layout() (*Layout, error) {
	if c.Hold < 0 || c.Hold > maxHold {
		return nil, fmt.Errorf("a minimum hold of %v: it can be up to %v", c.Hold, maxHold)
	}
	shares := []Share{{CPUs: c.CPUs, Memory: c.Memory}}
	named := map[string]bool{}
	for _, l := range c.Lenders {
		if named[l.Address] {
			return nil, fmt.Errorf("lender %s is named twice: ask it for all at once", l.Address)
		}
		named[l.Address] = true
		shares = append(shares, Share{CPUs: l.CPUs, Memory: l.Memory, Distance: l.Distance})
	}
	return NewLayout(shares)
}

// Outcome is how a guest ended.
type Outcome string

// The outcomes of a run without an error.
const (
	PoweredOff Outcome = "powered off"
	WasReset   Outcome = "reset"
	Panicked   Outcome = "panicked"
	Quit       Outcome = "quit at the console"
)

// Result is the outcome of one boot of a guest.
type Result struct {
	Outcome Outcome       `json:"outcome"`
	Ran     time.Duration `json:"ran_ns"`              // from the first instruction to the end
	Marked  time.Duration `json:"marked_ns,omitempty"` // until Mark appeared; 0 if it never did
	Nodes   []NodeReport  `json:"nodes"`
}

// client is one boot of a guest.
type client struct {
	cfg     RunConfig
	layout  *Layout
	lenders []*lender
	node    *node
	devices *devices
	entry   *boot.Entry
	cpuid   *vcpu.CPUIDSet
	offset  int64      // guest TSC minus this host's
	huge    *hugePages // nil while the guest spans hosts
}

// Run boots the guest and runs it to its end: power-off, reset, panic, the
// user's wish, or ctx. Whatever happens, nothing is left of it afterwards: no
// thread, no memory, no session with a lender. An error means the guest could
// not start or could not go on.
func Run(ctx context.Context, cfg RunConfig) (res *Result, err error) {
	c := &client{cfg: cfg}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	return c.run(ctx)
}

// prepare does everything up to the first instruction.
func (c *client) prepare(ctx context.Context) error {
	if c.cfg.Trace != "" {
		if err := c.checkTrace(); err != nil {
			return err
		}
	}
	kernel, kernelSize, err := openFile("kernel", c.cfg.Kernel)
	if err != nil {
		return err
	}
	defer kernel.Close()
	params := boot.Params{Kernel: kernel, KernelSize: kernelSize, Mode: c.cfg.Mode}
	if c.cfg.Initrd != "" {
		initrd, size, err := openFile("initrd", c.cfg.Initrd)
		if err != nil {
			return err
		}
		defer initrd.Close()
		params.Initrd, params.InitrdSize = initrd, size
	}
	if c.layout, err = c.cfg.Layout(); err != nil {
		return err
	}
	if len(c.cfg.Lenders) > 0 {
		if err := c.cfg.Host.checkSpan(c.cfg.Log); err != nil {
			return err
		}
	}
	mem, err := uffd.NewMemory("coalesce-guest", c.layout.Windows, uffd.MemoryOptions{})
	if err != nil {
		return err
	}
	if c.entry, err = c.load(mem, params); err != nil {
		return errors.Join(err, mem.Close())
	}
	if err := c.greetLenders(ctx); err != nil {
		return errors.Join(err, mem.Close())
	}
	c.offset = c.cfg.Host.firstTSCOffset()
	if why := c.cfg.Host.FixedTSC; why != nil {
		c.cfg.Log.Debug().AnErr("reason", why).Msg("the guest counts this host's own TSC")
	}
	c.node, err = newNode(ctx, nodeConfig{id: 0, layout: c.layout, host: c.cfg.Host, cpuid: c.cpuid,
		tscKHz: c.cfg.Host.TSCKHz, tscOffset: c.offset, view: firstView, hold: c.cfg.Hold, transfer: c.slowestLink(),
		spans: len(c.lenders) > 0, trace: c.cfg.Trace != "", mem: mem, log: c.cfg.Log})
	if err != nil {
		return err
	}
	if len(c.lenders) == 0 {
		if c.huge, err = startHugePages(mem); err != nil {
			return err
		}
	}
	if c.devices, err = newDevices(c.node, c.cfg.Console, c.cfg.Mark); err != nil {
		return err
	}
	if err := c.setUpLenders(ctx); err != nil {
		return err
	}
	return c.enter(ctx, c.entry)
}

// load puts kernel, initrd, command line and ACPI tables into guest memory.
func (c *client) load(mem *uffd.Memory, p boot.Params) (*boot.Entry, error) {
	tables, err := c.layout.ACPI().Build(acpiBase, acpiSize)
	if err != nil {
		return nil, err
	}
	if _, err := mem.WriteAt(tables.Bytes, int64(tables.Base)); err != nil {
		return nil, fmt.Errorf("write the ACPI tables: %w", err)
	}
	if _, err := mem.WriteAt(platform.ResetVector(), platform.ResetVectorGPA); err != nil {
		return nil, fmt.Errorf("write the reset vector: %w", err)
	}
	p.RSDP = tables.RSDP
	p.E820 = c.layout.E820()
	p.Cmdline = c.commandLine()
	entry, err := boot.Load(mem, p)
	if err != nil {
		return nil, c.nameFile(err)
	}
	c.cfg.Log.Debug().Str("cmdline", p.Cmdline).Str("kernel", entry.KernelVersion).Stringer("mode", entry.Mode).Msg("kernel loaded")
	return entry, nil
}

// nameFile adds the file that a loading error is about, and what to do.
func (c *client) nameFile(err error) error {
	switch {
	case errors.Is(err, boot.ErrInitrdTooLarge):
		return fmt.Errorf("%s: %w (give the guest more with --memory)", c.cfg.Initrd, err)
	case errors.Is(err, boot.ErrNoRoom):
		return fmt.Errorf("%s: %w (give the guest more with --memory)", c.cfg.Kernel, err)
	case strings.HasPrefix(err.Error(), "initrd"):
		return fmt.Errorf("%s: %w", c.cfg.Initrd, err)
	}
	return fmt.Errorf("%s: %w", c.cfg.Kernel, err)
}

// commandLine puts what the machine needs before what the user wants, who thus
// has the last word.
func (c *client) commandLine() string {
	args := []string{
		"console=ttyS0",
		"tsc=reliable", fmt.Sprintf("tsc_early_khz=%d", c.cfg.Host.TSCKHz), // there is no PIT to calibrate by
		"nopvspin", "swiotlb=noforce",
		"movable_node", "memhp_default_state=online_movable", // lenders' memory stays free of the kernel's own data
	}
	if first := c.cfg.CPUs; len(c.layout.CPUs) > first {
		// An undisturbed remote vCPU runs user code at native speed.
		remote := fmt.Sprintf("%d-%d", first, len(c.layout.CPUs)-1)
		args = append(args, "nohz_full="+remote, "rcu_nocbs="+remote)
	}
	if c.cfg.Append != "" {
		args = append(args, c.cfg.Append)
	}
	return strings.Join(args, " ")
}

// enter gives vCPU 0 the registers the kernel expects.
func (c *client) enter(ctx context.Context, e *boot.Entry) error {
	data := segmentOf(e.Data)
	regs := kvm.Regs{RIP: e.RIP, RSI: e.RSI, RBX: e.RBX, RFLAGS: e.RFLAGS}
	sregs := kvm.Sregs{
		CR0: e.CR0, CR3: e.CR3, CR4: e.CR4, EFER: e.EFER,
		CS: segmentOf(e.CS), DS: data, ES: data, FS: data, GS: data, SS: data,
		TR: segmentOf(e.TR), LDT: kvm.Segment{Unusable: 1},
		GDT: kvm.DTable{Base: e.GDTBase, Limit: e.GDTLimit},
	}
	return c.node.vcpus[0].Setup(ctx, regs, sregs, 0)
}

// run lets the guest run to its end and collects what every node did.
func (c *client) run(ctx context.Context) (*Result, error) {
	tracing := false
	defer func() { // once the terminal is restored
		if tracing {
			c.saveTrace()
		}
	}()
	con, err := console.Start(c.cfg.Input, c.cfg.Messages, c.devices.uart)
	if err != nil {
		return nil, err
	}
	defer con.Close() // also restores the terminal
	defer c.node.dumpOnSignal()()
	if c.node.engine != nil {
		c.node.engine.Start()
	}
	for _, l := range c.lenders {
		if err := sendControl(l.control, ctlStart, struct{}{}); err != nil {
			return nil, err
		}
		l.watched = make(chan struct{})
		go l.watch(c.node)
	}
	tracing = c.cfg.Trace != ""
	defer c.cfg.Guest.show(c)()
	started := time.Now()
	c.devices.started(started)
	if err := c.node.vm.Resume(ctx); err != nil {
		return nil, err
	}
	if c.cfg.Running != nil {
		c.cfg.Running(&RunningGuest{c})
	}
	clocks := newFollower(c)
	if len(c.lenders) > 0 {
		defer clocks.start(ctx)()
	}
	var end event
	select {
	case end = <-c.node.events:
	case <-con.Quit():
		end = event{kind: evQuit}
	case <-ctx.Done():
		return nil, fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	res := &Result{Ran: time.Since(started)}
	switch end.kind {
	case evPowerOff:
		res.Outcome = PoweredOff
	case evReset:
		res.Outcome = WasReset
		if end.err != nil {
			c.cfg.Log.Warn().Err(end.err).Msg("the guest resets")
		}
	case evPanic:
		res.Outcome = Panicked
	case evQuit:
		res.Outcome = Quit
	case evFailed:
		return nil, c.reason(end)
	}
	if err := c.devices.flush(ctx); err != nil {
		return nil, err
	}
	res.Marked = c.devices.marked()
	res.Nodes = append(res.Nodes, c.node.makeReport(c.cfg.Host.Name))
	for _, l := range c.lenders {
		r, err := l.report(ctx, c.cfg.Host)
		if err != nil {
			// How the guest ended stands.
			c.cfg.Log.Warn().Err(err).Msg("a lender's numbers are missing")
			continue
		}
		res.Nodes = append(res.Nodes, r)
	}
	for i := range res.Nodes {
		clocks.report(&res.Nodes[i])
	}
	return res, nil
}

// hearsay is how long a broken link waits for the lender's own word.
const hearsay = 300 * time.Millisecond

// reason says best why the session failed: when a lender goes, several of its
// links notice, in any order. What is wrong with a frame is known best here.
func (c *client) reason(first event) error {
	var peer *link.PeerError
	wrong := errors.As(first.err, &peer) && !link.Lost(peer.Err)
	timeout := time.After(hearsay)
	for !first.told && !wrong && len(c.lenders) > 0 {
		select {
		case e := <-c.node.events:
			if e.kind == evFailed && e.told {
				first = e
			}
			continue
		case <-timeout:
		}
		break
	}
	if first.told || !errors.As(first.err, &peer) {
		return first.err
	}
	for _, l := range c.lenders {
		if l.node == peer.Node {
			return l.lost(first.err)
		}
	}
	return first.err
}

// close ends the sessions in order and then this node. First every lender is to
// know of the end, then each gives everything back: a link that ended before
// would look to the lender at its other end like a failure.
func (c *client) close() error {
	var errs []error
	for _, l := range c.lenders {
		l.stop()
	}
	var stopping sync.WaitGroup
	for _, l := range c.lenders {
		stopping.Go(l.awaitStop)
	}
	stopping.Wait()
	ends := make([]error, len(c.lenders))
	for i, l := range c.lenders {
		stopping.Go(func() { ends[i] = l.close() })
	}
	stopping.Wait()
	errs = append(errs, ends...)
	if c.huge != nil {
		errs = append(errs, c.huge.stop())
	}
	if c.node != nil {
		errs = append(errs, c.node.close())
	}
	if c.devices != nil {
		errs = append(errs, c.devices.close())
	}
	return errors.Join(errs...)
}

// openFile opens a file named by the user.
func openFile(what, name string) (*os.File, int64, error) {
	// Opening a FIFO would wait for its writer.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", what, err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("%s: %w", what, err), f.Close())
	}
	return f, st.Size(), nil
}

// segmentOf converts a segment as the loader describes it.
func segmentOf(s boot.Segment) kvm.Segment {
	bit := func(on bool) uint8 {
		if on {
			return 1
		}
		return 0
	}
	return kvm.Segment{Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: s.Type, Present: bit(s.Present),
		DPL: s.DPL, DB: bit(s.DB), S: bit(s.S), L: bit(s.L), G: bit(s.G)}
}
