package vmm

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSteps(t *testing.T) {
	at := func(ahead int64, bound uint64) reading { return reading{ahead, bound, true} }
	for _, tt := range []struct {
		name     string
		readings []reading
		want     []int64
	}{
		{"alone", []reading{at(0, 0)}, []int64{0}},
		{"within what may be wrong", []reading{at(0, 0), at(50, 45), at(-50, 45)}, []int64{0, 0, 0}},
		{"a lender behind", []reading{at(0, 0), at(-100, 40)}, []int64{0, 100}},
		{"the client behind", []reading{at(0, 0), at(100, 40)}, []int64{100, 0}},
		{"one ahead, one behind", []reading{at(0, 0), at(100, 40), at(-100, 40)}, []int64{100, 0, 200}},
		{"a silent lender", []reading{at(0, 0), {}, at(-100, 40)}, []int64{0, 0, 100}},
	} {
		if got := steps(tt.readings, 10); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestStepsFollowDrift: an hour of clocks that drift, measured as wrongly as their bounds allow, is an hour in which they
// stay together and never go back.
func TestStepsFollowDrift(t *testing.T) {
	const (
		second = 2_600_000_000 // cycles
		slack  = 20 * second / 1_000_000
		bound  = 50 * second / 1_000_000
	)
	r := rand.New(rand.NewPCG(1, 2))
	ppm := []int64{0, 40, -35, 10} // a node's
	clocks := make([]int64, len(ppm))
	stepped := 0
	for range 3600 {
		readings := []reading{{known: true}}
		for i := range clocks {
			clocks[i] += second + second/1_000_000*ppm[i]
			if i > 0 {
				wrong := r.Int64N(2*bound+1) - bound
				readings = append(readings, reading{clocks[i] - clocks[0] + wrong, bound, true})
			}
		}
		for i, step := range steps(readings, slack) {
			if step < 0 {
				t.Fatalf("node %d is set back by %d", i, -step)
			}
			if step > 0 {
				stepped++
			}
			clocks[i] += step
		}
		// Between two rounds the fastest and the slowest part by 75 ppm.
		if apart := slices.Max(clocks) - slices.Min(clocks); apart > 5*bound+2*slack {
			t.Fatalf("%d cycles apart", apart)
		}
	}
	if stepped == 0 || stepped > 3*3600 {
		t.Errorf("%d steps", stepped)
	}
	t.Logf("%d steps in an hour", stepped)
}

func TestDrifting(t *testing.T) {
	now := uint64(1 << 40)
	for ppm, want := range map[int64]uint64{0: 1_000_000_000, 500: 1_000_500_000, -500: 999_500_000} {
		clock := drifting(func() uint64 { return now }, ppm)
		before := clock()
		now += 1_000_000_000
		if got := clock() - before; got != want {
			t.Errorf("%d ppm: %d, want %d", ppm, got, want)
		}
	}
}
