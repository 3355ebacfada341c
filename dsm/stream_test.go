package dsm

import (
	"math/rand/v2"
	"testing"
)

// reader is a vCPU that touches pages, one after the other, with streams that
// bring what they ask for at once.
type reader struct {
	streams
	here    map[uint32]bool
	marks   map[uint32]bool
	misses  int
	fetched int
	wasted  map[uint32]bool // fetched and not touched
}

func newReader() *reader {
	return &reader{here: map[uint32]bool{}, marks: map[uint32]bool{}, wasted: map[uint32]bool{}}
}

func (r *reader) touch(page uint32) {
	delete(r.wasted, page)
	var s *stream
	switch {
	case !r.here[page]:
		r.misses++
		r.here[page] = true
		s = r.miss(page)
	case r.marks[page]:
		delete(r.marks, page)
		s = r.touched(page)
	}
	if s == nil {
		return
	}
	for n := r.deepen(s, 64); n > 0; n-- {
		if !r.here[s.edge] {
			r.here[s.edge], r.wasted[s.edge] = true, true
			r.fetched++
			if s.mark == noPage {
				s.mark, r.marks[s.edge] = s.edge, true
			}
		}
		s.edge = uint32(int64(s.edge) + int64(s.stride))
	}
}

func TestStreams(t *testing.T) {
	const base = 100_000
	for _, tc := range []struct {
		name   string
		touch  func(i uint32) uint32
		n      uint32
		misses int // at most
		wasted int // at most
	}{
		{"one page after the other", func(i uint32) uint32 { return base + i }, 2000, 3, 64},
		{"backwards", func(i uint32) uint32 { return base - i }, 2000, 3, 64},
		{"every seventh", func(i uint32) uint32 { return base + 7*i }, 2000, 3, 64},
		{"every 512th, backwards", func(i uint32) uint32 { return base*100 - 512*i }, 2000, 3, 64},
		{"four streams at once", func(i uint32) uint32 { return base + i%4*10_000 + i/4*(i%4+1) }, 4000, 4 * 6, 4 * 64},
		{"two that meet", func(i uint32) uint32 {
			if i%2 == 0 {
				return base + i/2
			}
			return base + 1000 - i/2
		}, 1000, 2 * 4, 2 * 64},
		{"a stream among single pages", func(i uint32) uint32 {
			if i%5 == 4 {
				return base * (2 + i%977)
			}
			return base + i/5*4 + i%5
		}, 2000, 400 + 10, 64 + 100},
		{"a stream among single pages ahead of it", func(i uint32) uint32 {
			at := base + i/16*15 + i%16
			if i%16 == 15 {
				return at + 100
			}
			return at
		}, 4000, 20, 2 * 64}, // which are another stream
		{"too far apart", func(i uint32) uint32 { return base + (maxStride+1)*i }, 2000, 2000, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReader()
			for i := range tc.n {
				r.touch(tc.touch(i))
			}
			t.Logf("%d pages, %d misses, %d asked for ahead, %d of them for nothing", tc.n, r.misses, r.fetched, len(r.wasted))
			if r.misses > tc.misses || len(r.wasted) > tc.wasted {
				t.Errorf("at most %d misses and %d in vain are due", tc.misses, tc.wasted)
			}
		})
	}
}

// TestUselessStreams shows that a vCPU which begins streams and does not follow
// them has few pages asked for in vain.
func TestUselessStreams(t *testing.T) {
	r := newReader()
	random := rand.New(rand.NewPCG(1, 2))
	const runs = 3000
	for range runs {
		first := random.Uint32N(1 << 28)
		for i := range uint32(3) {
			r.touch(first + 5*i)
		}
	}
	if len(r.wasted) == 0 || len(r.wasted) > 40 {
		t.Errorf("%d pages asked for in vain for %d runs of 3; wanted are some at first, and then none", len(r.wasted), runs)
	}
	// It follows one again.
	before := r.misses
	for i := range uint32(4000) {
		r.touch(1<<29 + i)
	}
	if n := r.misses - before; n > streamSure+maxDoubt+1 {
		t.Errorf("%d misses of 4000 pages in a row", n)
	}
	if r.doubt != 0 {
		t.Errorf("doubt is %d after a long stream", r.doubt)
	}
}

// TestRandomMisses shows that pages in no order are no streams.
func TestRandomMisses(t *testing.T) {
	r := newReader()
	for _, p := range rand.New(rand.NewPCG(3, 4)).Perm(8192) {
		r.touch(uint32(p))
	}
	if r.fetched > 80 {
		t.Errorf("%d pages asked for ahead of 8192 in no order", r.fetched)
	}
}

// TestAheadBound shows that the bound on what is on its way follows how long it
// takes to come.
func TestAheadBound(t *testing.T) {
	const transfer = 200_000
	var p prefetch
	p.limit.Store(firstAhead)
	at := int64(1e12)
	come := func(took int64) {
		a := ahead{state: aheadAsked}
		at += 33_000
		if asked, waited := p.arrived(&a, at, took, transfer); !asked || waited || a.state != aheadCame {
			t.Fatalf("%v %v %+v", asked, waited, a)
		}
		p.inFlight.Add(1)
	}
	p.inFlight.Store(maxAhead)
	for range 1000 {
		come(transfer)
	}
	if n := p.limit.Load(); n != maxAhead {
		t.Errorf("limit %d after pages that came in time, want %d", n, maxAhead)
	}
	for range 100_000 {
		come(100 * transfer)
	}
	if n := p.limit.Load(); n != minAhead {
		t.Errorf("limit %d after pages that came late, want %d", n, minAhead)
	}
	p.inFlight.Store(2)
	for range 1000 {
		come(transfer)
	}
	if n := p.limit.Load(); n != minAhead {
		t.Errorf("limit %d, and nothing needs more than %d", n, minAhead)
	}
}
