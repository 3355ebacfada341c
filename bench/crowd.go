package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"
)

// Crowds that count in one page: few nodes, and many.
const (
	fewNodes  = 2
	manyNodes = 8
	crowdTime = time.Second
	// holdTransfers is how long a page stays with whoever got it, in transfers.
	holdTransfers = 4
)

// crowd is nodes whose vCPUs all increment one word.
type crowd []*farProcess

// newCrowd starts the nodes, spread over the host's CPUs.
func newCrowd(ctx context.Context, device string, hold time.Duration, farArgs []string) (c crowd, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
			c = nil
		}
	}()
	wires, err := newMesh(manyNodes)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, wires.close()) }()
	for node := range manyNodes {
		ro := role{Self: node, Nodes: manyNodes, Pages: benchPages, CPU: node % runtime.NumCPU(), Hold: hold, Device: device}
		p, err := startFar(ctx, farArgs, ro, wires.of(node))
		if err != nil {
			return c, err
		}
		c = append(c, p)
	}
	return c, nil
}

func (c crowd) close() error {
	var errs []error
	for _, p := range c {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// counted is what some nodes of a crowd did.
type counted struct {
	perSecond float64   // increments, of all
	shares    []float64 // each node's part of them, times the number of nodes: 1 is fair
	waits     []float64 // ns
	transfer  time.Duration
}

// count has the first n nodes count together for a while.
func (c crowd) count(n int, d time.Duration) (got counted, err error) {
	begin := time.Now()
	for _, p := range c[:n] {
		if _, err := p.tell(order{Do: "count"}); err != nil {
			return got, err
		}
	}
	time.Sleep(d)
	var counts []float64
	total := 0.
	for _, p := range c[:n] {
		a, err := p.tell(order{Do: "stop"})
		if err != nil {
			return got, err
		}
		counts = append(counts, float64(a.Count))
		total += float64(a.Count)
		got.waits = append(got.waits, a.Waits...)
		got.transfer += time.Duration(a.Transfer) * time.Microsecond / time.Duration(n)
	}
	if total == 0 || len(got.waits) == 0 {
		return got, fmt.Errorf("%d nodes counted to %.0f and waited %d times", n, total, len(got.waits))
	}
	got.perSecond = total / time.Since(begin).Seconds()
	for _, v := range counts {
		got.shares = append(got.shares, v/total*float64(n))
	}
	return got, nil
}

// measureCrowd has few and many nodes count in turns.
func measureCrowd(ctx context.Context, o *Options, t *table) error {
	hold, err := crowdHold(ctx, o)
	if err != nil {
		return err
	}
	c, err := newCrowd(ctx, o.Device, hold, o.FarArgs)
	if err != nil {
		return err
	}
	var r crowdResult
	for round := range o.Rounds {
		o.Progress(round+1, o.Rounds, fmt.Sprintf("%d and %d nodes count in one page", fewNodes, manyNodes))
		few, err := c.count(fewNodes, crowdTime)
		if err == nil {
			var many counted
			if many, err = c.count(manyNodes, crowdTime); err == nil {
				r.add(few, many, hold)
			}
		}
		if err != nil {
			return errors.Join(err, c.close())
		}
	}
	t.crowd(&r)
	return c.close()
}

// crowdHold returns holdTransfers transfers, as few nodes measure them.
func crowdHold(ctx context.Context, o *Options) (time.Duration, error) {
	c, err := newCrowd(ctx, o.Device, 0, o.FarArgs)
	if err != nil {
		return 0, err
	}
	got, err := c.count(fewNodes, crowdTime)
	return holdTransfers * got.transfer, errors.Join(err, c.close())
}

// crowdResult gathers rounds.
type crowdResult struct {
	ratios  []float64 // many nodes' increments to few nodes'
	shares  [][]float64
	waits   []float64 // of many, ns
	allowed []float64 // what the longest of nearly all waits may be, ns
}

func (r *crowdResult) add(few, many counted, hold time.Duration) {
	r.ratios = append(r.ratios, many.perSecond/few.perSecond)
	r.shares = append(r.shares, many.shares)
	r.waits = append(r.waits, many.waits...)
	r.allowed = append(r.allowed, 1.5*manyNodes*float64(few.transfer+hold))
}

// unfairness is how far the node with the oddest share is from its due, over all
// rounds: 0.1 is a tenth more or less.
func (r *crowdResult) unfairness() (worst float64) {
	for node := range r.shares[0] {
		sum := 0.
		for _, s := range r.shares {
			sum += s[node]
		}
		worst = max(worst, math.Abs(sum/float64(len(r.shares))-1))
	}
	return worst
}
