package apic

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestNoLostWakeup lets threads deliver to one vCPU that sleeps until it is
// kicked. Each sender numbers its deliveries of a vector before it makes them. A
// round ends when the vCPU has seen the last number of each vector: what a
// coalesced delivery announced, the accepted one has seen. Rounds are short, so
// that no later delivery makes up for a kick that is missing.
func TestNoLostWakeup(t *testing.T) {
	const senders, rounds, each = 3, 20_000, 3
	seed := rand.Uint64()
	r := NewRouter(func(uint8) {})
	a := New(0, true, r, &fakeClock{})
	write(t, a, MSRSVR, 0x1ff)
	kick := make(chan struct{}, 1)
	r.SetLocal(a, func() {
		select {
		case kick <- struct{}{}:
		default:
		}
	})

	var sent [256]atomic.Uint32 // announced deliveries, by vector; 0 counts NMIs
	start := make(chan struct{})
	done := make(chan struct{})
	for i := range senders {
		go func() {
			rng := rand.New(rand.NewPCG(seed, uint64(i)))
			for range start {
				for range each {
					m := Message{Delivery: Fixed, Vector: uint8(16 + rng.IntN(240)), Level: rng.IntN(2) == 0, Assert: true, From: FromDevice}
					if rng.IntN(20) == 0 {
						m.Delivery, m.Vector = NMI, 0
					}
					sent[m.Vector].Add(1)
					r.Route(m, NoShorthand)
				}
				done <- struct{}{}
			}
		}()
	}
	defer close(start)

	var seen [256]uint32
	complete := func() bool {
		for v := range sent {
			if seen[v] != sent[v].Load() {
				return false
			}
		}
		return true
	}
	timeout := time.After(time.Minute)
	for round := range rounds {
		for range senders {
			start <- struct{}{}
		}
		for busy := senders; busy > 0 || !complete(); {
			select {
			case <-done:
				busy--
				continue // only kicks may find anything
			case <-kick:
			case <-timeout:
				t.Fatalf("seed %d, round %d: nobody kicks, but deliveries are missing", seed, round)
			}
			if a.TakeEvents().NMI {
				seen[0] = sent[0].Load()
			}
			for v := take(a); v != 0; v = take(a) {
				seen[v] = sent[v].Load()
				write(t, a, MSREOI, 0)
			}
		}
	}
	s := a.Stats()
	if got := s.Delivered + s.Coalesced + s.Dropped; got != senders*rounds*each || s.Dropped != 0 {
		t.Errorf("seed %d: %d deliveries counted of %d: %+v", seed, got, senders*rounds*each, s)
	}
	if s.Accepted != s.EOIs {
		t.Errorf("seed %d: accepted %d, ended %d", seed, s.Accepted, s.EOIs)
	}
}

// TestConcurrentIPIs lets vCPUs send each other IPIs through one Router while
// routes change and an AP is started again and again.
func TestConcurrentIPIs(t *testing.T) {
	const vcpus, each = 4, 3000
	r := NewRouter(func(uint8) {})
	var far atomic.Uint64
	r.SetNode(1, func(Message) { far.Add(1) })
	r.SetRemote(100, 1)
	apics := make([]*APIC, vcpus)
	kicks := make([]chan struct{}, vcpus)
	for i := range apics {
		apics[i] = New(uint32(i), i == 0, r, &fakeClock{})
		kicks[i] = make(chan struct{}, 1)
		r.SetLocal(apics[i], func() {
			select {
			case kicks[i] <- struct{}{}:
			default:
			}
		})
	}
	var started atomic.Uint32
	enable := func(a *APIC) {
		if err := a.WriteMSR(MSRSVR, 0x1ff); err != nil {
			t.Error(err)
		}
	}
	serve := func(a *APIC) {
		if a.TakeEvents().SIPI {
			started.Add(1)
			enable(a)
		}
		for take(a) != 0 {
			if err := a.WriteMSR(MSREOI, 0); err != nil {
				t.Error(err)
			}
		}
	}
	ipis := []uint64{
		0xc40f1,          // all but self
		0x840f2,          // all
		0x440f3,          // self
		0xf<<32 | 0x48f4, // everyone in cluster 0
		0x7<<32 | 0x49f5, // one of 0, 1, 2
		100<<32 | 0x40f6, // the remote one
		3<<32 | 0x4400,   // NMI to the AP
		3<<32 | 0x4500,   // INIT
		3<<32 | 0x469a,   // SIPI
	}
	var wg sync.WaitGroup
	for _, a := range apics[:3] {
		a.SetActivity(Running)
		enable(a)
		wg.Go(func() {
			for n := range each {
				if err := a.WriteMSR(MSRICR, ipis[n%len(ipis)]); err != nil {
					t.Error(err)
				}
				serve(a)
			}
		})
	}
	stop := make(chan struct{})
	var consumer sync.WaitGroup
	consumer.Go(func() {
		for {
			select {
			case <-kicks[3]:
				serve(apics[3])
			case <-stop:
				return
			}
		}
	})
	wg.Go(func() {
		for range 200 {
			r.SetRemote(100, 1)
			r.Stats()
			apics[3].Stats()
		}
	})
	wg.Wait()
	close(stop)
	consumer.Wait()
	serve(apics[3])
	// Of each round two shorthands and a message of its own go to the far node.
	if want := uint64(3 * 3 * each / len(ipis)); started.Load() == 0 || far.Load() < want {
		t.Errorf("AP started %d times, %d messages sent away, want %d at least", started.Load(), far.Load(), want)
	}
}

// TestDeliverAllocates nothing: it runs where a fault may be pending.
func TestDeliverAllocates(t *testing.T) {
	r := NewRouter(func(uint8) {})
	a := New(0, true, r, &fakeClock{})
	write(t, a, MSRSVR, 0x1ff)
	r.SetLocal(a, func() {})
	r.SetNode(1, func(Message) {})
	r.SetRemote(1, 1)
	for name, f := range map[string]func(){
		"local":     func() { r.Route(levelled(0x40), NoShorthand) },
		"remote":    func() { r.Route(Message{Dest: 1, Assert: true}, NoShorthand) },
		"broadcast": func() { r.Route(Message{Dest: Broadcast, Vector: 0x41, Assert: true}, NoShorthand) },
		"vCPU side": func() {
			a.TakeEvents()
			take(a)
			write(t, a, MSREOI, 0)
			write(t, a, MSRICR, 1<<32|0x40f1)
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	r := NewRouter(func(uint8) {})
	a := New(0, true, r, &fakeClock{})
	if err := a.WriteMSR(MSRSVR, 0x1ff); err != nil {
		b.Fatal(err)
	}
	r.SetLocal(a, func() {})
	for b.Loop() {
		r.Route(fixed(0x40), NoShorthand)
		a.TakeEvents()
		take(a)
		if err := a.WriteMSR(MSREOI, 0); err != nil {
			b.Fatal(err)
		}
	}
}
