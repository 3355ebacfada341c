package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// batch is one measurement: the time of each access in ns, and the CPU time of all
// processes per access.
type batch struct {
	ns  []float64
	cpu float64
}

// quantile is the value below which the share q of all lies, the nearest that was
// measured.
func quantile(values []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(q*float64(len(s))))-1)]
}

// Ratio is a ratio to the floor: the median of the rounds and their spread.
type Ratio struct {
	Median, Min, Max float64
	Target           float64 `json:",omitempty"` // at most; 0: none
	Least            bool    `json:",omitempty"` // Target is the least value, not the greatest
}

func ratioOf(rounds []float64, target float64) Ratio {
	return Ratio{Median: quantile(rounds, .5), Min: quantile(rounds, 0), Max: quantile(rounds, 1), Target: target}
}

func (r Ratio) String() string {
	s := fmt.Sprintf("%.2f (%.2f–%.2f)", r.Median, r.Min, r.Max)
	switch {
	case r.Target == 0:
	case r.Least && r.Median >= r.Target:
		s += fmt.Sprintf(" ≥ %.4g met", r.Target)
	case r.Least:
		s += fmt.Sprintf(" < %.4g missed", r.Target)
	case r.Median <= r.Target:
		s += fmt.Sprintf(" ≤ %.4g met", r.Target)
	default:
		s += fmt.Sprintf(" > %.4g missed", r.Target)
	}
	return s
}

// result is a line of the table; times are in µs, of all rounds together.
type result struct {
	Name, Floor        string
	N                  int
	FloorP50, FloorP99 float64
	P50, P99           float64
	RatioP50, RatioP99 Ratio // the medians of the rounds' ratios
	RatioCPU           Ratio // of CPU time, all processes together

	floor, product            []float64
	ratio50, ratio99, ratioCP []float64
}

// add takes a round in.
func (r *result) add(floor, product batch) {
	r.floor, r.product = append(r.floor, floor.ns...), append(r.product, product.ns...)
	r.ratio50 = append(r.ratio50, quantile(product.ns, .5)/quantile(floor.ns, .5))
	r.ratio99 = append(r.ratio99, quantile(product.ns, .99)/quantile(floor.ns, .99))
	r.ratioCP = append(r.ratioCP, product.cpu/floor.cpu)
}

// cpuTarget bounds the CPU time of a fault, times the floor's.
const cpuTarget = 2

func (r *result) judge(l *line) {
	r.Name, r.Floor, r.N = l.name, l.floorPhrase, len(r.product)
	r.FloorP50, r.FloorP99 = quantile(r.floor, .5)/1e3, quantile(r.floor, .99)/1e3
	r.P50, r.P99 = quantile(r.product, .5)/1e3, quantile(r.product, .99)/1e3
	r.RatioP50, r.RatioP99 = ratioOf(r.ratio50, l.p50), ratioOf(r.ratio99, l.p99)
	r.RatioCPU = ratioOf(r.ratioCP, cpuTarget)
}

// count is a line of the table that has no floor.
type count struct {
	Name   string
	Value  float64
	Unit   string
	Target float64
	Least  bool `json:",omitempty"` // Target is the least value, not the greatest
}

func (c count) String() string {
	bound, met := "at most", c.Value <= c.Target
	if c.Least {
		bound, met = "at least", c.Value >= c.Target
	}
	verdict := map[bool]string{true: "met", false: "missed"}[met]
	return fmt.Sprintf("%s: %.4g %s, %s %.4g: %s", c.Name, c.Value, c.Unit, bound, c.Target, verdict)
}

// pair is a line of the table that compares two ways to do a thing, by the medians
// of the rounds.
type pair struct {
	Name, Unit string
	Value      float64
	Other      float64
	OtherName  string
	Ratio      Ratio // of Value to Other
}

func (p pair) String() string {
	return fmt.Sprintf("%s: %.4g %s; %s %.4g: %v", p.Name, p.Value, p.Unit, p.OtherName, p.Other, p.Ratio)
}

func pairOf(name, unit, other string, values, others, ratios []float64, target float64, least bool) pair {
	p := pair{Name: name, Unit: unit, OtherName: other, Value: quantile(values, .5), Other: quantile(others, .5), Ratio: ratioOf(ratios, target)}
	p.Ratio.Least = least
	return p
}

type table struct {
	Lines  []result
	Counts []count
	Pairs  []pair
	Left   []string `json:",omitempty"` // what could not be measured here, and why
}

// Targets of a scan: of raw TCP's rate, and how much slower what is no scan may be
// than without prefetching, and how many pages asked for in vain for each page read.
const (
	scanTarget   = .8
	strayTarget  = 1.05
	wastedTarget = .05
	// singleTarget bounds how long a page waits behind what was asked for ahead, in
	// µs: what dsm lets that be, and a transfer.
	singleTarget = 1500
)

func (t *table) scan(s *scanResult) {
	t.Pairs = append(t.Pairs,
		pairOf("sequential read, prefetch learnt, 1 Gbit/s", "MB/s", "raw TCP", s.rates, s.raw, s.ratios, scanTarget, true),
		pairOf("sequential read without prefetch", "MB/s", "raw TCP", s.offs, s.raw, s.offRatios, 0, true),
		pairOf("read in no order", "µs a page, without the slowest 1 %", "without prefetch", micros(s.scatteredOn), micros(s.scatteredOff), s.scatteredRatio, strayTarget, false),
		pairOf(fmt.Sprintf("read %d in a row, then elsewhere", brokenRun), "µs a page, without the slowest 1 %", "without prefetch", micros(s.brokenOn), micros(s.brokenOff), s.brokens, strayTarget, false))
	t.Counts = append(t.Counts,
		count{Name: fmt.Sprintf("read %d in a row, then elsewhere", brokenRun), Value: s.vain / s.brokenPages,
			Unit: "pages asked for ahead, in vain, a page read", Target: wastedTarget},
		count{Name: "a single page amid a scan", Value: quantile(s.singles, .5) / 1e3, Unit: fmt.Sprintf("µs wait, p50 of %d (p99 %.4g; without prefetch %.4g, %.4g)",
			len(s.singles), quantile(s.singles, .99)/1e3, quantile(s.singlesOff, .5)/1e3, quantile(s.singlesOff, .99)/1e3), Target: singleTarget},
		count{Name: "read in no order", Value: s.stray / s.strayPages, Unit: "pages asked for ahead a page read", Target: wastedTarget})
}

// micros turns ns into µs.
func micros(ns []float64) (us []float64) {
	for _, v := range ns {
		us = append(us, v/1e3)
	}
	return us
}

// Targets of a move of a group of pages whose content the receiver had but for 8
// bytes in each.
const (
	bounceTrips = 2
	bounceBytes = 1536
)

func (t *table) bounce(b bounce) {
	name := fmt.Sprintf("%d pages that move together, 8 bytes changed in each", groupPages)
	t.Counts = append(t.Counts,
		count{Name: name, Value: b.roundTrips, Unit: "round trips", Target: bounceTrips},
		count{Name: name, Value: b.bytes, Unit: "bytes", Target: bounceBytes})
}

// Targets of many nodes that count in one page.
const (
	crowdRatio      = .8
	crowdUnfairness = .1
)

func (t *table) crowd(r *crowdResult) {
	name := fmt.Sprintf("%d nodes count in one page, hold of %d transfers", manyNodes, holdTransfers)
	t.Counts = append(t.Counts,
		count{Name: name, Value: quantile(r.ratios, .5), Unit: fmt.Sprintf("times the sum of %d nodes", fewNodes), Target: crowdRatio, Least: true},
		count{Name: name, Value: r.unfairness(), Unit: "off its due share is the oddest node", Target: crowdUnfairness},
		count{Name: name, Value: quantile(r.waits, .99) / 1e3, Unit: fmt.Sprintf("µs wait, p99 of %d", len(r.waits)), Target: quantile(r.allowed, .5) / 1e3})
}

func (t *table) json(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(t)
}

func (t *table) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "\tn\tfloor p50/p99 µs\tp50/p99 µs\tratio p50\tratio p99\tratio CPU time\tfloor")
	for _, r := range t.Lines {
		fmt.Fprintf(tw, "%s\t%d\t%.1f / %.1f\t%.1f / %.1f\t%v\t%v\t%v\t%s\n", r.Name, r.N,
			r.FloorP50, r.FloorP99, r.P50, r.P99, r.RatioP50, r.RatioP99, r.RatioCPU, r.Floor)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, c := range t.Counts {
		if _, err := fmt.Fprintln(w, c); err != nil {
			return err
		}
	}
	for _, p := range t.Pairs {
		if _, err := fmt.Fprintln(w, p); err != nil {
			return err
		}
	}
	for _, l := range t.Left {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}
