package vmm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"coalesce/link"
	"coalesce/vcpu/apic"
	"coalesce/vmm/trace"
	"coalesce/vmm/tsc"
)

// newRecorder returns the recorder of a node. Its clock is the guest's TSC as the
// client has measured it to be here, also where the guest itself is shown another.
func newRecorder(cfg nodeConfig) *trace.Recorder {
	var cpus []uint16
	for _, c := range cfg.layout.Local(cfg.id) {
		cpus = append(cpus, uint16(c.ID))
	}
	offset := uint64(cfg.tscOffset)
	return trace.NewRecorder(func() uint64 { return tsc.Read() + offset }, cpus, len(cfg.layout.Shares))
}

// traceIPI records an end of an interrupt message, whose frame had a stamp.
func (n *node) traceIPI(k trace.Kind, peer link.NodeID, began, stamp uint64, m apic.Message) {
	e := trace.Event{Kind: k, Start: began, ID: stamp, Arg: uint64(m.Dest), Peer: uint8(peer), CPU: trace.NoCPU,
		Size: uint16(m.Delivery)<<8 | uint16(m.Vector)}
	if k == trace.IPISent {
		for _, c := range n.layout.CPUs {
			if c.APICID == m.From {
				e.CPU = uint16(c.ID)
			}
		}
	}
	n.trace.Message(e)
}

// traceChunk is how many events a lender sends at once.
const traceChunk = 4096

// traceAnswer is a lender's answer to ctlTrace: some of a ring's events.
type traceAnswer struct {
	Seq     uint64 `json:"seq"`
	Rings   int    `json:"rings"` // how many there are
	Events  []byte `json:"events,omitempty"`
	Left    uint64 `json:"left,omitempty"`    // how many come behind these
	Dropped uint64 `json:"dropped,omitempty"` // how many came before the oldest
}

// answerTrace ends the recording and reads what is asked for.
func answerTrace(r *trace.Recorder, q *question) (*traceAnswer, error) {
	r.Freeze()
	a := &traceAnswer{Seq: q.Seq, Rings: r.Rings()}
	if q.Ring < 0 || q.Ring >= a.Rings {
		return nil, fmt.Errorf("%w: asked for ring %d of %d", errMalformedControl, q.Ring, a.Rings)
	}
	a.Events, a.Left, a.Dropped = r.Read(nil, q.Ring, q.Skip, traceChunk)
	return a, nil
}

// Limits of a trace's collection.
const (
	traceAnswerTimeout = 10 * time.Second // one answer
	traceTimeout       = 60 * time.Second // all of a lender's
	tracePings         = 64               // round trips that measure a lender's clock once more
)

// checkTrace fails if the trace could not be written at the end.
func (c *client) checkTrace() error {
	f, err := os.Create(c.cfg.Trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	return f.Close()
}

// saveTrace collects what all nodes recorded and writes the file. How the guest ended
// stands, whatever happens here.
func (c *client) saveTrace() {
	c.node.trace.Freeze()
	until := c.node.trace.Now()
	own, err := c.node.trace.Collect(0, "client "+c.cfg.Host.Name)
	if err == nil {
		nodes := []*trace.Node{own}
		var collecting sync.WaitGroup
		for _, l := range c.lenders {
			n := &trace.Node{ID: l.node, Name: fmt.Sprintf("lender %d, %s", l.node, l.spec.Address)}
			nodes = append(nodes, n)
			collecting.Go(func() {
				if err := c.collectTrace(l, n); err != nil {
					n.Missing = err.Error()
					c.cfg.Log.Warn().Err(err).Msg("the trace lacks what a lender recorded")
				}
			})
		}
		collecting.Wait()
		err = c.writeTrace(nodes, until)
	}
	if err != nil {
		c.cfg.Log.Warn().Err(err).Msg("no trace")
		return
	}
	c.cfg.Log.Info().Str("file", c.cfg.Trace).Msg("trace written")
}

func (c *client) writeTrace(nodes []*trace.Node, until uint64) error {
	f, err := os.Create(c.cfg.Trace)
	if err != nil {
		return fmt.Errorf("--trace: %w", err)
	}
	return errors.Join(trace.Write(f, nodes, float64(c.cfg.Host.TSCKHz)/1000, until), f.Close())
}

// collectTrace fetches what a lender recorded and puts it on the client's clock.
func (c *client) collectTrace(l *lender, n *trace.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), traceTimeout)
	defer cancel()
	n.Error = l.tscSync.ErrBound()
	if l.silent.Load() {
		return l.wrap("fetch its trace", errSilent)
	}
	var err error
	for ring, rings := 0, 1; ring < rings && err == nil; ring++ {
		rings, err = l.traceRing(ctx, n, ring)
	}
	if err != nil {
		return err
	}
	pings, cancel := context.WithTimeout(ctx, traceAnswerTimeout)
	defer cancel()
	if err := l.control.AwaitPings(pings, tracePings); err != nil {
		return l.wrap("measure its clock once more", err)
	}
	late, _ := l.control.BestSample() // of the newest 64
	onOneClock(n, l.tscSync, late, c.offset)
	return nil
}

// maxRings bounds the rings of a lender: vCPUs and nodes.
const maxRings = MaxCPUs + math.MaxUint8

// traceRing fetches a ring and returns how many there are.
func (l *lender) traceRing(ctx context.Context, n *trace.Node, ring int) (rings int, err error) {
	var events []trace.Event
	for {
		one, cancel := context.WithTimeout(ctx, traceAnswerTimeout)
		var a traceAnswer
		var more []trace.Event
		err := l.ask(one, ctlTrace, question{Ring: ring, Skip: uint64(len(events))}, func(b []byte) (uint64, error) {
			a = traceAnswer{}
			if err := decodeControl(b, &a); err != nil {
				return 0, err
			}
			more, err = trace.Decode(a.Events)
			return a.Seq, err
		})
		cancel()
		if err == nil {
			events = append(events, more...)
		}
		switch {
		case err != nil:
		case a.Rings < 1 || a.Rings > maxRings || len(more) == 0 && a.Left > 0 || len(n.Events)+len(events) > trace.Budget/trace.EventSize:
			err = l.wrap("fetch its trace", fmt.Errorf("%w: %d rings, %d events and %d more", errMalformedControl, a.Rings, len(events), a.Left))
		}
		if err != nil || a.Left == 0 {
			n.Add(events, a.Dropped)
			return a.Rings, err
		}
	}
}

// onOneClock corrects a lender's times. They are the guest's TSC by an early
// measurement of its clock; a late one tells how far the clocks drifted apart, evenly
// as is assumed. offset is the guest's TSC minus the client's.
func onOneClock(n *trace.Node, early, late link.Sample, offset int64) {
	n.Error = max(early.ErrBound(), late.ErrBound())
	span := float64(late.T1 - early.T1)
	drift := late.Offset() - early.Offset()
	if drift == 0 || late.T1 <= early.T1 {
		return
	}
	correct := func(t *uint64) {
		since := float64(int64(*t - early.T1 - uint64(offset)))
		*t -= uint64(int64(math.Round(float64(drift) * since / span)))
	}
	for i := range n.Events {
		correct(&n.Events[i].Start)
		correct(&n.Events[i].End)
	}
	if n.CompleteFrom != 0 {
		correct(&n.CompleteFrom)
	}
}
