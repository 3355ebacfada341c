package vmm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"coalesce/vcpu"
)

// Hosts' TSCs run at rates that differ by some parts per million, and KVM applies
// none of so small a difference. So the client looks at its lenders' clocks as
// long as the guest runs, and whoever has fallen behind is set forward: a guest
// never sees its time go back. The same exchanges tell that a lender is there.

const (
	// clockRound is how often the client looks.
	clockRound = time.Second
	// clockPings is how many round trips it makes then; the quickest tells most.
	clockPings = 8
	// clockSlack is how much further behind than could be measured wrongly a clock
	// has to be before its vCPUs are stopped for it.
	clockSlack = 20 * time.Microsecond
	// clockPause bounds how long the vCPUs are stopped. One that waits for a page
	// does not stop; the next round tries again.
	clockPause = 100 * time.Millisecond
	// silence is after how long without an answer the user is told.
	silence = 3 * time.Second
)

// clockAnswer is a lender's answer to ctlClock: the offset there is.
type clockAnswer struct {
	Seq       uint64 `json:"seq"`
	TSCOffset int64  `json:"tsc_offset"`
	Set       bool   `json:"set,omitempty"` // as was asked
}

// setClock sets this node's guest clock forward, for all vCPUs between two of
// their instructions. It reports whether it was possible now.
func (n *node) setClock(ctx context.Context, offset int64) (bool, error) {
	if step := offset - n.clock.offset.Load(); step < 0 || step > patience {
		return false, fmt.Errorf("the guest's clock cannot be set by %d cycles", step)
	}
	if n.fixedTSC {
		return false, nil
	}
	paused, cancel := context.WithTimeout(ctx, clockPause)
	err := n.vm.Pause(paused)
	cancel()
	if err == nil {
		if err = n.vm.SetTSCOffset(ctx, uint64(offset)); err != nil {
			return false, err
		}
		n.clock.offset.Store(offset)
	}
	// Also those that did pause. One that cannot answer resumes when it can.
	resumed := n.vm.Resume(ctx)
	var stuck *vcpu.StuckError
	if errors.As(resumed, &stuck) {
		resumed = nil
	}
	return err == nil, resumed
}

// reading is what a round found of a node's guest clock.
type reading struct {
	ahead int64  // of the client's, in cycles
	bound uint64 // how wrong that may be
	known bool
}

// steps returns by how many cycles each node's clock is to be set forward. The
// first reading is the client's own. Nobody is stopped for what may be an error.
func steps(readings []reading, slack int64) []int64 {
	lead := int64(0)
	for _, r := range readings {
		if r.known && r.ahead > int64(r.bound)+slack {
			lead = max(lead, r.ahead)
		}
	}
	out := make([]int64, len(readings))
	for i, r := range readings {
		if lag := lead - r.ahead; r.known && lag > int64(r.bound)+slack {
			out[i] = lag
		}
	}
	return out
}

// follower follows the lenders' clocks while the guest runs.
type follower struct {
	c     *client
	quiet []time.Time // since when each lender has been silent; zero: it is not
	bound []uint64    // how wrong the last setting of its clock may be, in cycles
	// stepped is what was done, for the report. Guarded by mu.
	mu      sync.Mutex
	stepped []ClockSteps // by node
}

// ClockSteps says how often a node's guest clock was set forward while the guest
// ran, and by how much in all.
type ClockSteps struct {
	Steps  uint64 `json:"steps"`
	Cycles int64  `json:"cycles"`
}

func newFollower(c *client) *follower {
	f := &follower{c: c, quiet: make([]time.Time, len(c.lenders)), stepped: make([]ClockSteps, len(c.lenders)+1)}
	for _, l := range c.lenders {
		f.bound = append(f.bound, l.tscSync.ErrBound())
	}
	return f
}

// start runs it until stop is called, which waits for its end.
func (f *follower) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.run(ctx); err != nil {
			f.c.node.report(event{kind: evFailed, err: err})
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// run goes on until ctx ends. An error is one of this node's; a lender that is
// lost is others' news.
func (f *follower) run(ctx context.Context) error {
	tick := time.NewTicker(clockRound)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f.round(ctx); err != nil && ctx.Err() == nil {
			return fmt.Errorf("keep the nodes' clocks together: %w", err)
		}
	}
}

func (f *follower) round(ctx context.Context) error {
	readings := []reading{{known: true}}
	for i, l := range f.c.lenders {
		readings = append(readings, f.read(ctx, i, l))
	}
	khz := f.c.cfg.Host.TSCKHz
	for i, step := range steps(readings, int64(clockSlack.Microseconds())*int64(khz)/1000) {
		if step == 0 {
			continue
		}
		set := false
		var err error
		if i == 0 {
			set, err = f.c.node.setClock(ctx, f.c.node.clock.offset.Load()+step)
		} else {
			l := f.c.lenders[i-1]
			if set, err = l.setClock(ctx, step); set {
				f.bound[i-1] = l.control.QuickestOf(clockPings).ErrBound()
			}
		}
		if err != nil {
			return err
		}
		if set {
			f.mu.Lock()
			f.stepped[i].Steps++
			f.stepped[i].Cycles += step
			f.mu.Unlock()
			f.c.cfg.Log.Debug().Int("node", i).Int64("cycles", step).Msg("clock set forward")
		}
	}
	return nil
}

// read looks at a lender's guest clock, and tells the user of one that is silent.
func (f *follower) read(ctx context.Context, i int, l *lender) reading {
	round, cancel := context.WithTimeout(ctx, clockRound)
	err := l.control.AwaitPings(round, clockPings)
	cancel()
	log := f.c.cfg.Log.With().Str("lender", l.spec.Address).Logger()
	since := &f.quiet[i]
	switch now := time.Now(); {
	case err == nil:
		if l.silent.Swap(false) {
			log.Info().Str("after", now.Sub(*since).Round(time.Second).String()).Msg("the lender answers again")
		}
		*since = time.Time{}
	case ctx.Err() != nil:
	case since.IsZero():
		*since = now.Add(-clockRound)
	case now.Sub(*since) >= silence && !l.silent.Swap(true):
		log.Warn().Msg("the lender does not answer: the guest stands still where it needs that one's pages or CPUs (Ctrl-a x ends it)")
	}
	if err != nil {
		return reading{}
	}
	s := l.control.QuickestOf(clockPings)
	return reading{
		ahead: s.Offset() + l.offset - f.c.node.clock.offset.Load(),
		bound: s.ErrBound() + f.bound[i],
		known: true,
	}
}

// report adds what was done to a node's report.
func (f *follower) report(r *NodeReport) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r.Clock = f.stepped[r.Node]
}

// setClock asks the lender to set its guest clock forward by so many cycles. An
// answer that makes no sense is an error; who reads the link tells of its end.
func (l *lender) setClock(ctx context.Context, step int64) (set bool, err error) {
	var a clockAnswer
	err = l.ask(ctx, ctlClock, question{TSCOffset: l.offset + step}, func(b []byte) (uint64, error) {
		a = clockAnswer{}
		err := decodeControl(b, &a)
		return a.Seq, err
	})
	switch {
	case errors.Is(err, errMalformedControl):
		return false, l.lost(err)
	case err != nil:
		return false, nil
	}
	l.offset = a.TSCOffset
	return a.Set, nil
}

// followClock is the lender's side.
func (s *lending) followClock(ctx context.Context, payload []byte) error {
	var q question
	if err := decodeControl(payload, &q); err != nil {
		return err
	}
	set, err := s.node.setClock(ctx, q.TSCOffset)
	if err != nil {
		return err
	}
	return sendControl(s.control, ctlClock, clockAnswer{Seq: q.Seq, TSCOffset: s.node.clock.offset.Load(), Set: set})
}

// drifting returns a host's clock that runs faster by some parts per million than
// it does: for tests, whose hosts share one clock.
func drifting(read func() uint64, ppm int64) func() uint64 {
	if ppm == 0 {
		return read
	}
	start := read()
	return func() uint64 {
		t := read()
		return t + uint64(int64(t-start)/1_000*ppm/1_000)
	}
}
