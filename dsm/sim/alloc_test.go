package sim

import (
	"testing"
	"time"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/link"
)

// Two engines without a world: what they are told they answer at once, and nothing
// here allocates. These tests are not in package dsm since the race detector, under
// which that runs, makes pools forget.

// still is a host whose clock is set by hand.
type still struct {
	dsm.Host
	memory []byte
	now    int64
	alarm  int64
}

func (h *still) Pages() int             { return dsm.RegionPages }
func (h *still) GPA(page uint32) uint64 { return uint64(page) * dsm.PageSize }
func (h *still) Alias(page uint32, n int) []byte {
	return h.memory[page*dsm.PageSize:][:n*dsm.PageSize]
}
func (h *still) PopulateAlias(uint32, int) error               { return nil }
func (h *still) Register(uint32, int) error                    { return nil }
func (h *still) Continue(_ uint32, n int, _ bool) (int, error) { return n, nil }
func (h *still) WriteProtect(uint32, int) error                { return nil }
func (h *still) Unprotect(uint32, int) error                   { return nil }
func (h *still) Zap(uint32, int) error                         { return nil }
func (h *still) Vanished() uint64                              { return 0 }
func (h *still) Now() int64                                    { return h.now }
func (h *still) CPUTime(uint32) uint64                         { return 0 }
func (h *still) SetAlarm(in int64)                             { h.alarm = h.now + in }

// slots is a link that holds the frames on their way: few.
type slots struct {
	frames [16]struct {
		h    link.Header
		room [32 << 10]byte
		n    int
	}
	sent, received int
}

func (s *slots) Send(h link.Header, payload ...[]byte) error {
	if s.sent-s.received == len(s.frames) {
		panic("more frames on their way than there is room for")
	}
	f := &s.frames[s.sent%len(s.frames)]
	f.h, f.n = h, copy(f.room[:], payload[0])
	s.sent++
	return nil
}
func (s *slots) Abort(error)       {}
func (s *slots) Stats() link.Stats { return link.Stats{} }
func (s *slots) Close() error      { return nil }

// unstamped keeps content from waiting for a stamp.
type unstamped struct{}

func (unstamped) Now() uint64        { return 0 }
func (unstamped) Await(uint64) error { return nil }

// side is one of the two.
type side struct {
	*dsm.Driver
	host still
	vcpu *dsm.Thread
	to   slots // frames to the other
}

// tally is a tracer that counts.
type tally struct{ now, faults, local, sent, received, bytes uint64 }

func (t *tally) Now() uint64 { t.now++; return t.now }
func (t *tally) Fault(_ uint32, _ uint64, _, local bool, from uint64) {
	t.check(from)
	t.faults++
	if local {
		t.local++
	}
}
func (t *tally) PageSent(_ dsm.NodeID, n, _ uint64, bytes int, _ bool, from uint64) {
	t.check(from)
	t.sent++
	t.bytes += uint64(bytes)
	if n != t.sent {
		panic("contents are not counted in order")
	}
}
func (t *tally) PageReceived(_ dsm.NodeID, n, _ uint64, _ int, _ bool, at uint64) {
	t.check(at)
	t.received++
	if n != t.received {
		panic("contents are not counted in order")
	}
}
func (t *tally) check(at uint64) {
	if at == 0 || at > t.now {
		panic("a time that the clock has not told")
	}
}

func newSides(t testing.TB) (s [2]*side) {
	return newTracedSides(t, [2]dsm.Tracer{})
}

func newTracedSides(t testing.TB, tracers [2]dsm.Tracer) (s [2]*side) {
	for i := range s {
		s[i] = &side{host: still{memory: make([]byte, dsm.RegionPages*dsm.PageSize)}}
		d, err := dsm.NewDriver(dsm.Config{Self: dsm.NodeID(i), Homes: []dsm.NodeID{0}, View: 1, Clock: unstamped{}, Tracer: tracers[i]}, &s[i].host)
		if err != nil {
			t.Fatal(err)
		}
		s[i].Driver = d
		s[i].vcpu = d.Engine.AddThread(tid, nil)
		if err := d.Connect(dsm.NodeID(1-i), &s[i].to); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

const tid = 7

// fault has a side fault on a page and everybody answer until all is done.
func fault(s [2]*side, i int, page uint32, write bool) {
	s[i].vcpu.Proof() // of what it did before
	s[i].Fault(uffd.Fault{Page: page, Write: write, TID: tid})
	s[i].Flush()
	for busy := true; busy; {
		busy = false
		for i := range s {
			for out := &s[i].to; out.received < out.sent; out.received++ {
				busy = true
				f := &out.frames[out.received%len(out.frames)]
				s[1-i].Receive(dsm.NodeID(i), &f.h, f.room[:f.n])
				s[1-i].Flush()
			}
			if s[i].host.alarm != 0 {
				busy = true
				for j := range s {
					s[j].host.now = max(s[j].host.now, s[i].host.alarm)
				}
				s[i].host.alarm = 0
				s[i].Alarm()
				s[i].Flush()
			}
		}
	}
}

// TestFaultPathDoesNotAllocate moves pages to and fro, as a whole and as changes,
// with and without holds, for reading and writing: neither side allocates.
func TestFaultPathDoesNotAllocate(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change int // bytes of the page between two moves
		apart  time.Duration
		step   func(s [2]*side, page uint32)
	}{
		{"write, changes", 8, time.Second, writes},
		{"write, whole pages", dsm.PageSize, time.Second, writes},
		{"write, held", 8, 0, writes},
		{"read and upgrade", 8, time.Second, readsAndWrites},
		{"nothing changed", 0, time.Second, readsAndWrites},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// With a tracer and without: what is not traced costs nothing, and what is
			// does not allocate either.
			for _, traced := range []bool{false, true} {
				checkAllocations(t, tc.step, tc.change, tc.apart, traced)
			}
		})
	}
}

func checkAllocations(t *testing.T, move func(s [2]*side, page uint32), change int, apart time.Duration, traced bool) {
	var tallies [2]tally
	var tracers [2]dsm.Tracer
	if traced {
		tracers = [2]dsm.Tracer{&tallies[0], &tallies[1]}
	}
	s := newTracedSides(t, tracers)
	round := 0
	step := func() {
		for page := range uint32(20) {
			for i := range s {
				s[i].host.now += int64(apart)
			}
			for b := range s[0].host.Alias(page, 1)[:change] {
				s[0].host.Alias(page, 1)[b] = byte(round)
			}
			move(s, page)
		}
		round++
	}
	for range 3 {
		step() // pages, queues and groups are made when they are first needed
	}
	before := s[0].Engine.Stats()
	if n := testing.AllocsPerRun(50, step); n != 0 {
		t.Errorf("%v allocations for 20 pages there and back", n)
	}
	after := s[0].Engine.Stats()
	if after.PagesIn == before.PagesIn || after.PagesOut == before.PagesOut {
		t.Errorf("pages did not move: %+v", after)
	}
	if held := after.Deferred - before.Deferred; (held > 0) != (apart == 0) {
		t.Errorf("%d commands were deferred", held)
	}
	for i := range s {
		if err := s[i].Rest(); err != nil {
			t.Error(err)
		}
		st, n := s[i].Engine.Stats(), &tallies[i]
		if traced && (n.received != st.PagesIn || n.sent != st.PagesOut || n.local != st.FaultsLocal || n.faults < st.PagesIn || n.faults > st.FaultsRead+st.FaultsWrite) {
			t.Errorf("node %d traced %+v, statistics %+v", i, *n, st)
		}
	}
}

func writes(s [2]*side, page uint32) {
	fault(s, 1, page, true)
	fault(s, 0, page, true)
}

func readsAndWrites(s [2]*side, page uint32) {
	for i := range s {
		fault(s, 1-i, page, false)
		fault(s, 1-i, page, true)
	}
}

// TestScanDoesNotAllocate has a node write pages and the other read them in their
// order, which asks for most of them ahead: neither allocates.
func TestScanDoesNotAllocate(t *testing.T) {
	s := newSides(t)
	const pages = 200
	scan := func() {
		for i, write := range []bool{true, false} {
			for i := range s {
				s[i].host.now += int64(time.Second) // no hold
			}
			for page := range uint32(pages) {
				fault(s, i, page, write)
			}
		}
	}
	for range 3 {
		scan()
	}
	before := s[1].Engine.Stats()
	const runs = 20
	if n := testing.AllocsPerRun(runs, scan); n != 0 {
		t.Errorf("%v allocations for %d pages", n, pages)
	}
	after := s[1].Engine.Stats()
	if ahead := after.Prefetched - before.Prefetched; ahead < runs*pages*8/10 {
		t.Errorf("%d pages of %d were asked for ahead", ahead, (runs+1)*pages)
	}
	for i := range s {
		if err := s[i].Rest(); err != nil {
			t.Error(err)
		}
	}
}
