package uffd_test

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
)

var (
	stressTime = flag.Duration("stress.time", 2*time.Second, "how long TestStress goes on")
	stressSeed = flag.Uint64("stress.seed", 0, "seed of TestStress; 0 takes a random one")
)

// stressPage is what a DSM node knows of a page: its state, and while the page is
// elsewhere, what it holds there.
type stressPage struct {
	sync.Mutex
	state     stressState
	elsewhere uint32
}

type stressState uint8

const (
	invalid stressState = iota
	shared
	modified
)

// stress is a node under siege: threads increment and read pages, a reader
// resolves their faults, and disturbers take pages and rights away.
type stress struct {
	m     *uffd.Memory
	u     *uffd.Uffd
	pages []stressPage

	downgrades, invalidations, installs, upgrades, spurious atomic.Int64
}

// word is the counter of a page as the alias shows it.
func (s *stress) word(p uint32) []byte { return s.m.Alias(p, 1)[64:68] }

// resolve answers one fault by the rules.
func (s *stress) resolve(f uffd.Fault) error {
	pg := &s.pages[f.Page]
	pg.Lock()
	defer pg.Unlock()
	want := shared
	if f.Write {
		want = modified
	}
	switch {
	case pg.state == invalid:
		binary.LittleEndian.PutUint32(s.word(f.Page), pg.elsewhere)
		s.installs.Add(1)
		pg.state = want
		_, err := s.u.Continue(f.Page, 1, want == shared)
		return err
	case pg.state == shared && want == modified:
		s.upgrades.Add(1)
		pg.state = modified
		return s.u.Unprotect(f.Page, 1)
	default: // rule 3: the page is fine by now
		s.spurious.Add(1)
		return s.u.Wake(f.Page, 1)
	}
}

// invalidate takes a page away and leaves rubbish in the alias.
func (s *stress) invalidate(p uint32) error {
	pg := &s.pages[p]
	pg.Lock()
	defer pg.Unlock()
	if pg.state == invalid {
		return nil
	}
	if err := s.u.Zap(p, 1); err != nil {
		return err
	}
	pg.elsewhere = binary.LittleEndian.Uint32(s.word(p))
	binary.LittleEndian.PutUint32(s.word(p), 0xdead_0000)
	pg.state = invalid
	s.invalidations.Add(1)
	return nil
}

// downgrade takes the right to write away and checks that it is gone.
func (s *stress) downgrade(t *testing.T, p uint32) error {
	pg := &s.pages[p]
	pg.Lock()
	defer pg.Unlock()
	if pg.state != modified {
		return nil
	}
	if err := s.u.WriteProtect(p, 1); err != nil {
		return err
	}
	pg.state = shared
	before := binary.LittleEndian.Uint32(s.word(p))
	runtime.Gosched()
	if after := binary.LittleEndian.Uint32(s.word(p)); after != before {
		t.Errorf("page %d went from %d to %d while shared", p, before, after)
	}
	s.downgrades.Add(1)
	return nil
}

func TestStress(t *testing.T) {
	const pages, threads = 6, 2
	m, u := newRegistered(t, pages)
	check(t, m.PopulateAlias(0, pages))
	s := &stress{m: m, u: u, pages: make([]stressPage, pages)}
	seed := *stressSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)

	var reader, disturber, touchers sync.WaitGroup
	reader.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var faults [8]uffd.Fault
		for {
			n, err := u.Read(faults[:])
			if err == uffd.ErrInterrupted {
				return
			}
			for i := 0; i < n && err == nil; i++ {
				err = s.resolve(faults[i])
			}
			if err != nil {
				t.Error(err)
				u.Close() // lets the waiting threads go
				return
			}
		}
	})
	var stop atomic.Bool
	disturber.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		rng := rand.New(rand.NewPCG(seed, 0))
		defer stop.Store(true)
		for start := time.Now(); time.Since(start) < *stressTime; {
			p := rng.Uint32N(pages)
			var err error
			if rng.IntN(2) == 0 {
				err = s.downgrade(t, p)
			} else {
				err = s.invalidate(p)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	counts := make([][pages]uint32, threads)
	for i := range threads {
		touchers.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			rng := rand.New(rand.NewPCG(seed, uint64(i)+1))
			for !stop.Load() {
				p := rng.Uint32N(pages)
				if err := uffdtest.Increment(m.HVA(p) + 64); err != nil {
					t.Error(err)
					return
				}
				counts[i][p]++
				if rng.IntN(16) == 0 {
					if err := uffdtest.Touch(m.HVA(rng.Uint32N(pages)), false); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	disturber.Wait()
	touchers.Wait()
	check(t, u.Interrupt())
	reader.Wait()

	var total uint32
	for p := range uint32(pages) {
		var want uint32
		for i := range counts {
			want += counts[i][p]
		}
		got := binary.LittleEndian.Uint32(s.word(p))
		if s.pages[p].state == invalid {
			got = s.pages[p].elsewhere
		}
		total += got
		if got != want {
			t.Errorf("page %d: %d increments, want %d", p, got, want)
		}
	}
	t.Logf("%d increments, %d installs, %d upgrades, %d downgrades, %d invalidations, %d faults found fine",
		total, s.installs.Load(), s.upgrades.Load(), s.downgrades.Load(), s.invalidations.Load(), s.spurious.Load())
	if s.downgrades.Load() == 0 || s.invalidations.Load() == 0 || s.upgrades.Load() == 0 {
		t.Error("not every step was taken")
	}
}
