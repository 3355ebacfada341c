package sim

import (
	"math"
	"testing"
	"time"
)

// TestHottest: how pages came is counted by kind, the ones that come now are before
// those that came once, and a rate is the true one.
func TestHottest(t *testing.T) {
	s := newSides(t)
	pass := func(d time.Duration) {
		for i := range s {
			s[i].host.now += int64(d)
		}
	}
	pass(time.Second)
	for range 50 { // long ago
		fault(s, 1, 7, true)
		fault(s, 0, 7, true)
	}
	if h := s[1].Engine.Hottest(1); len(h) != 1 || h[0].Rate < 50/2 {
		t.Errorf("50 moves in the second since the beginning: %+v", h)
	}
	pass(30 * time.Second)
	const page, every = 5, 100 * time.Millisecond
	for range 100 {
		fault(s, 1, page, false)
		fault(s, 1, page, true)
		fault(s, 0, page, true)
		pass(every)
	}
	hot := s[1].Engine.Hottest(10)
	if len(hot) != 2 || hot[0].GPA != page<<12 || hot[1].GPA != 7<<12 || hot[0].Home != 0 {
		t.Fatalf("hottest: %+v", hot)
	}
	h := hot[0]
	if h.Moves() < 100 || h.Left != 100 || h.Reads+h.Writes != 100 || h.Upgrades != h.Reads || !h.Migratory {
		t.Errorf("read and written 100 times, taken 100 times: %+v", h)
	}
	// A page that is known to be migratory comes once in each round, but for one
	// round of 16, in which it is looked whether it still is.
	want := float64(time.Second/every) * (1 + 1.0/16)
	if math.Abs(h.Rate-want) > want/10 {
		t.Errorf("%v moves per second, want about %v", h.Rate, want)
	}
	if hot[1].Rate > 0.01*h.Rate {
		t.Errorf("%v moves per second of a page that does not move any more", hot[1].Rate)
	}
	if one := s[1].Engine.Hottest(1); len(one) != 1 || one[0].GPA != page<<12 {
		t.Errorf("the hottest: %+v", one)
	}
	pass(2 * time.Minute)
	if late := s[1].Engine.Hottest(10); len(late) != 0 {
		t.Errorf("two minutes later: %+v", late)
	}
}

// TestLatencies: the bins hold every transfer, in order, and the median is theirs.
func TestLatencies(t *testing.T) {
	s := newSides(t)
	for page := range uint32(20) {
		fault(s, 1, page, true)
	}
	bins, stats := s[1].Engine.Latencies(), s[1].Engine.Stats()
	sum, last := int64(0), int64(-1)
	for _, b := range bins {
		if b.Micros <= last || b.Count <= 0 {
			t.Fatalf("bins: %v", bins)
		}
		last, sum = b.Micros, sum+b.Count
	}
	if sum != 20 || stats.LatencySample != 20 || stats.LatencyP50 > last {
		t.Errorf("%d transfers in %v, statistics %+v", sum, bins, stats)
	}
}
