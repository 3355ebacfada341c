package sim

import (
	"testing"
	"time"

	"coalesce/dsm"
)

// TestScanFillsLink has a vCPU read 16 MiB of another node's memory over links of
// 1 Gbit/s: what it asks for ahead keeps them busy. To find out how much that takes
// is some ten round trips.
func TestScanFillsLink(t *testing.T) {
	const (
		regions = 8
		pages   = regions * dsm.RegionPages
		rate    = 0.125 // bytes per ns
	)
	line := time.Duration(pages * dsm.PageSize / rate)
	for _, tc := range []struct {
		delay    time.Duration
		backward bool
		least    float64 // of the line's rate
	}{
		{20 * time.Microsecond, false, .9}, {200 * time.Microsecond, false, .9}, {200 * time.Microsecond, true, .9},
		{2 * time.Millisecond, false, .65}, {10 * time.Millisecond, false, .35},
	} {
		sc := Scenario{Seed: 1, Nodes: make([]NodeSpec, 2), Homes: make([]dsm.NodeID, regions), Links: map[[2]dsm.NodeID]LinkSpec{},
			Transfer: 2*tc.delay + 50*time.Microsecond, Hot: 1, Wide: 2, Tables: 2, Set: 2}
		for i := range sc.Nodes {
			sc.Nodes[i] = NodeSpec{VCPUs: 1, Slow: 1}
			sc.Links[[2]dsm.NodeID{dsm.NodeID(i), dsm.NodeID(1 - i)}] = LinkSpec{Delay: int64(tc.delay), Rate: rate}
		}
		w := &World{sc: sc, bound: sc.Bound(), dice: newDice(sc.Seed, streamWorld), phase: stopped}
		w.takeLocks()
		w.build()
		reader := w.nodes[1].vcpus[0]
		for i := range uint32(pages) {
			if tc.backward {
				i = pages - 1 - i
			}
			reader.script = append(reader.script, i)
		}
		w.run()
		took := time.Duration(w.now)
		s := w.nodes[1].driver.Engine.Stats()
		w.end()
		if w.err != nil {
			t.Fatal(w.err)
		}
		got := float64(line) / float64(took)
		t.Logf("delay %v, backward %v: %v, %.2f of the line; %d pages asked for ahead, %d userfaults for reading", tc.delay, tc.backward, took, got, s.Prefetched, s.FaultsRead)
		if got < tc.least || s.PagesIn != pages {
			t.Errorf("delay %v: %.2f of the line, %d pages in", tc.delay, got, s.PagesIn)
		}
	}
}
