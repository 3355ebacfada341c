package dsm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestRuns(t *testing.T) {
	base := bytes.Repeat([]byte{0xa5}, PageSize)
	for _, tc := range []struct {
		name    string
		changed []int // bytes
		size    int   // of the runs
	}{
		{"first word", []int{0, 7}, runHeader + word},
		{"last word", []int{PageSize - 1}, runHeader + word},
		{"two apart", []int{64, 128}, 2 * (runHeader + word)},
		{"one word between", []int{64, 80}, 2 * (runHeader + word)},
		{"across words", []int{7, 8}, runHeader + 2*word},
	} {
		page := bytes.Clone(base)
		for _, i := range tc.changed {
			page[i] ^= 1
		}
		runs, ok := appendRuns([]byte("x"), base, page)
		if !ok || len(runs) != 1+tc.size {
			t.Errorf("%s: %d bytes, %v, want %d", tc.name, len(runs)-1, ok, tc.size)
			continue
		}
		got := bytes.Clone(base)
		if err := applyRuns(got, runs[1:]); err != nil || !bytes.Equal(got, page) {
			t.Errorf("%s: applied: %v, the same: %v", tc.name, err, bytes.Equal(got, page))
		}
	}
	page := bytes.Clone(base)
	for i := range page {
		page[i] = byte(rand.Uint32())
	}
	if runs, ok := appendRuns(nil, base, page); ok || len(runs) != 0 {
		t.Errorf("a page of which everything changed gave runs of %d bytes", len(runs))
	}
}

func TestRunsAreChecked(t *testing.T) {
	for name, runs := range map[string][]byte{
		"half a header":    {1, 0, 1},
		"no words":         {1, 0, 0, 0},
		"beyond the page":  {0xff, 1, 2, 0, 16: 0, 19: 0},
		"words missing":    {0, 0, 2, 0, 1, 2, 3},
		"first far beyond": {0xff, 0xff, 1, 0, 11: 0},
		"backwards":        {1, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1},
	} {
		if err := applyRuns(make([]byte, PageSize), runs); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	page := make([]byte, PageSize)
	for name, c := range map[string]content{
		"nothing, for another version": {version: 5},
		"changes to another version":   {version: 6, body: []byte{0, 0, 1, 0, 11: 0}},
	} {
		if err := c.apply(page, 4); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLineage moves one page among nodes at random, as sendData and OpInstall
// do, and writes it where it is writable: whatever form it travels in, the
// receiver ends up with the supplier's bytes.
func TestLineage(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	const nodes = 4
	type copyOf struct {
		Lineage
		alias [PageSize]byte
		twin  []byte // nil: none
	}
	var n [nodes]copyOf
	owner, copies := 0, NodeSet(1)
	n[0].Dirty = true
	forms := map[string]int{}
	writable := func(i int) {
		n[i].Dirty = true
		n[i].twin = nil
		if r.IntN(4) > 0 {
			n[i].twin = bytes.Clone(n[i].alias[:])
		}
	}
	supply := func(from, to int) {
		s := &n[from]
		var runs []byte
		changed, short := false, false
		if s.Dirty {
			changed = s.twin == nil || !bytes.Equal(s.twin, s.alias[:])
			if s.twin != nil && changed {
				runs, short = appendRuns(nil, s.twin, s.alias[:])
			}
		}
		version, holders, knew := s.Pass(NodeID(to), changed)
		c := content{version: version, holders: holders, body: s.alias[:]}
		form := "whole"
		switch {
		case knew && !changed:
			c.body, form = nil, "known"
		case knew && short:
			c.body, form = runs, "changed"
		}
		forms[form]++
		if err := c.apply(n[to].alias[:], n[to].Version); err != nil {
			t.Fatalf("%s: %v", form, err)
		}
		if n[to].alias != s.alias {
			t.Fatalf("%s: node %d has other bytes than node %d sent", form, to, from)
		}
		n[to].Fetched(NodeID(from), NodeID(to), c.version, c.holders)
	}
	for range 20_000 {
		i := r.IntN(nodes)
		id := NodeID(i)
		switch {
		case r.IntN(2) == 0: // reads
			if !copies.Has(id) {
				supply(owner, i)
				copies = copies.With(id)
			}
		case owner == i && copies == NodeSet(0).With(id): // writes on
		case copies.Has(id): // upgrade
			writable(i)
			owner, copies = i, NodeSet(0).With(id)
		default:
			supply(owner, i)
			writable(i)
			owner, copies = i, NodeSet(0).With(id)
		}
		if owner == i && n[i].Dirty && r.IntN(2) == 0 {
			for range 1 + r.IntN(3) {
				n[i].alias[r.IntN(PageSize)] = byte(r.Uint32())
			}
		}
	}
	t.Log(forms)
	if forms["known"] == 0 || forms["changed"] == 0 || forms["whole"] == 0 {
		t.Error("a form did not occur")
	}
}
