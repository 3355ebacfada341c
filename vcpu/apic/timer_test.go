package apic

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestDivisor(t *testing.T) {
	for code, want := range map[uint64]int64{0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1} {
		a, _, clock := newTest(t)
		write(t, a, MSRDivideConfig, code)
		write(t, a, MSRLVTTimer, 0xec)
		write(t, a, MSRInitialCount, 1000)
		deadline, armed := a.NextTimer()
		if !armed || deadline-clock.ns != 1000*want {
			t.Errorf("code %#x: %d ns, armed %t; want %d", code, deadline-clock.ns, armed, 1000*want)
		}
		clock.ns += 10 * want
		if got := read(t, a, MSRCurrentCount); got != 990 {
			t.Errorf("code %#x: count %d after 10 ticks", code, got)
		}
	}
}

func TestOneShot(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRDivideConfig, 0xb)
	write(t, a, MSRLVTTimer, 0xec)
	if _, armed := a.NextTimer(); armed {
		t.Error("armed before the initial count was written")
	}
	write(t, a, MSRInitialCount, 500)
	a.Tick(clock.ns + 499)
	if got := take(a); got != 0 {
		t.Fatalf("took %#x early", got)
	}
	clock.ns += 500
	if got := read(t, a, MSRCurrentCount); got != 0 {
		t.Errorf("count %d at the deadline", got)
	}
	a.Tick(clock.ns)
	if got := take(a); got != 0xec {
		t.Fatalf("took %#x", got)
	}
	write(t, a, MSREOI, 0)
	if _, armed := a.NextTimer(); armed {
		t.Error("armed after it fired")
	}
	a.Tick(clock.ns + 1e9)
	if got := take(a); got != 0 {
		t.Errorf("fired twice: %#x", got)
	}
	if got := read(t, a, MSRInitialCount); got != 500 {
		t.Errorf("initial count %d, want what was written", got)
	}
	// Written again while counting, it starts over; 0 stops it.
	write(t, a, MSRInitialCount, 500)
	clock.ns += 400
	write(t, a, MSRInitialCount, 600)
	if deadline, _ := a.NextTimer(); deadline != clock.ns+600 {
		t.Errorf("deadline in %d ns, want 600", deadline-clock.ns)
	}
	write(t, a, MSRInitialCount, 0)
	if _, armed := a.NextTimer(); armed {
		t.Error("armed after writing 0")
	}
}

func TestPeriodic(t *testing.T) {
	const period = int64(time.Millisecond)
	a, _, clock := newTest(t)
	start := clock.ns
	write(t, a, MSRDivideConfig, 0xb)
	write(t, a, MSRLVTTimer, 0x200ec)
	write(t, a, MSRInitialCount, uint64(period))
	fire := func(at int64, nextDeadline int64) {
		t.Helper()
		clock.ns = start + at
		a.Tick(clock.ns)
		if got := take(a); got != 0xec {
			t.Fatalf("at %d: took %#x", at, got)
		}
		if got := take(a); got != 0 {
			t.Fatalf("at %d: took %#x, too", at, got)
		}
		write(t, a, MSREOI, 0)
		if deadline, armed := a.NextTimer(); !armed || deadline != start+nextDeadline {
			t.Fatalf("at %d: next at %d, armed %t; want %d", at, deadline-start, armed, nextDeadline)
		}
	}
	fire(period, 2*period)
	fire(2*period+300, 3*period) // late, but it does not drift
	fire(3*period+999_999, 4*period)
	fire(9*period+5, 10*period) // five periods missed
	if s := a.Stats(); s.TimerFires != 4 || s.TimerMiss != 5 {
		t.Errorf("fired %d, missed %d; want 4, 5", s.TimerFires, s.TimerMiss)
	}
	// The count reloads although no Tick has run.
	clock.ns = start + 12*period + 1000
	if got := read(t, a, MSRCurrentCount); got != uint64(period-1000) {
		t.Errorf("count %d", got)
	}
	// Switched to one-shot it stops with the next expiry.
	a.Tick(clock.ns)
	take(a)
	write(t, a, MSREOI, 0)
	write(t, a, MSRLVTTimer, 0xec)
	clock.ns = start + 13*period
	a.Tick(clock.ns)
	if got := take(a); got != 0xec {
		t.Errorf("took %#x", got)
	}
	if _, armed := a.NextTimer(); armed {
		t.Error("still armed")
	}
}

func TestPeriodicFloor(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRDivideConfig, 0xb)
	write(t, a, MSRLVTTimer, 0x200ec)
	write(t, a, MSRInitialCount, 1)
	if deadline, _ := a.NextTimer(); deadline != clock.ns+minPeriodNS {
		t.Errorf("deadline in %d ns, want %d", deadline-clock.ns, minPeriodNS)
	}
	if got := read(t, a, MSRCurrentCount); got != 1 {
		t.Errorf("count %d above the initial count", got)
	}
	write(t, a, MSRDivideConfig, 0xa)
	if deadline, _ := a.NextTimer(); deadline != clock.ns+minPeriodNS {
		t.Errorf("deadline in %d ns after a new divisor, want %d", deadline-clock.ns, minPeriodNS)
	}
}

func TestDivideMidCount(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRDivideConfig, 0xb)
	write(t, a, MSRLVTTimer, 0xec)
	write(t, a, MSRInitialCount, 1000)
	clock.ns += 400
	write(t, a, MSRDivideConfig, 1) // by 4
	if got := read(t, a, MSRCurrentCount); got != 600 {
		t.Errorf("count %d, want 600", got)
	}
	if deadline, _ := a.NextTimer(); deadline != clock.ns+2400 {
		t.Errorf("deadline in %d ns, want 2400", deadline-clock.ns)
	}
	clock.ns += 2000
	write(t, a, MSRDivideConfig, 0xb)
	if got := read(t, a, MSRCurrentCount); got != 100 {
		t.Errorf("count %d, want 100", got)
	}
	// Expired before the write: it fires, and the new divisor changes nothing.
	clock.ns += 100
	write(t, a, MSRDivideConfig, 0)
	if got := take(a); got != 0xec {
		t.Errorf("took %#x", got)
	}
	if got := read(t, a, MSRCurrentCount); got != 0 {
		t.Errorf("count %d", got)
	}
}

func TestMaskedTimer(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRDivideConfig, 0xb)
	write(t, a, MSRLVTTimer, 0x100ec)
	write(t, a, MSRInitialCount, 1000)
	if _, armed := a.NextTimer(); armed {
		t.Error("armed while masked")
	}
	clock.ns += 10
	if got := read(t, a, MSRCurrentCount); got != 990 {
		t.Errorf("count %d: it counts while masked", got)
	}
	clock.ns += 2000
	write(t, a, MSRLVTTimer, 0xec)
	a.Tick(clock.ns)
	if got := take(a); got != 0 {
		t.Errorf("took %#x, which expired while masked", got)
	}
	// Unmasked before the deadline it fires; masked after the deadline, before
	// a Tick, it has fired.
	write(t, a, MSRLVTTimer, 0x100ec)
	write(t, a, MSRInitialCount, 1000)
	write(t, a, MSRLVTTimer, 0xec)
	clock.ns += 1000
	write(t, a, MSRLVTTimer, 0x100ec)
	if got := take(a); got != 0xec {
		t.Errorf("took %#x", got)
	}
	write(t, a, MSREOI, 0)
	// Disabling the APIC masks it.
	write(t, a, MSRLVTTimer, 0xec)
	write(t, a, MSRInitialCount, 1000)
	write(t, a, MSRSVR, 0xff)
	if _, armed := a.NextTimer(); armed {
		t.Error("armed in a disabled APIC")
	}
}

func TestTimerIllegalVector(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRLVTTimer, 0x08)
	write(t, a, MSRInitialCount, 1)
	a.Tick(clock.ns + 2)
	write(t, a, MSRESR, 0)
	if got := read(t, a, MSRESR); got != esrReceiveIllegalVector {
		t.Errorf("ESR %#x", got)
	}
}

// TestPeriodicChopped checks that it makes no difference to the sum of fired and
// missed periods, nor to the deadline, when and how often Tick runs.
func TestPeriodicChopped(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		a, _, clock := newTest(t)
		start := clock.ns
		divisor := uint64([]uint64{0, 1, 2, 3, 8, 9, 10, 11}[rng.IntN(8)])
		initial := 200_000 + rng.Uint64N(1_000_000)
		write(t, a, MSRDivideConfig, divisor)
		write(t, a, MSRLVTTimer, 0x200ec)
		write(t, a, MSRInitialCount, initial)
		first, _ := a.NextTimer()
		period := first - start
		for range rng.IntN(50) {
			clock.ns += rng.Int64N(4 * period)
			a.Tick(clock.ns)
			want := period - (clock.ns-start)%period
			if left := a.timer.deadline - clock.ns; left != want {
				t.Fatalf("seed %d: %d ns left, want %d", seed, left, want)
			}
		}
		s := a.Stats()
		if got, want := s.TimerFires+s.TimerMiss, uint64((clock.ns-start)/period); got != want {
			t.Fatalf("seed %d: %d periods passed, want %d", seed, got, want)
		}
	}
}

// TestPeriodicUnacknowledged checks that a periodic timer asks for no wake-up
// while its interrupt is requested or in service, and that a vCPU which takes
// long to acknowledge one is left alone for a multiple of that time.
func TestPeriodicUnacknowledged(t *testing.T) {
	a, _, clock := newTest(t)
	const period = 1_000_000
	write(t, a, MSRDivideConfig, 11) // by 1
	write(t, a, MSRLVTTimer, 0x200ec)
	write(t, a, MSRInitialCount, period)
	start := clock.ns
	expire := func() {
		t.Helper()
		deadline, armed := a.NextTimer()
		if !armed {
			t.Fatal("not armed")
		}
		clock.ns = deadline
		a.Tick(clock.ns)
		if _, armed := a.NextTimer(); armed {
			t.Error("armed while the interrupt is requested")
		}
		a.Accept(0xec)
		if _, armed := a.NextTimer(); armed {
			t.Error("armed while the interrupt is in service")
		}
	}
	expire()
	clock.ns += period / respite
	write(t, a, MSREOI, 0)
	if deadline, armed := a.NextTimer(); !armed || deadline != start+2*period {
		t.Errorf("after a quick acknowledgement: %d ns after the start, armed %v, want two periods", deadline-start, armed)
	}
	expire()
	clock.ns += 3 * period
	write(t, a, MSREOI, 0)
	if deadline, armed := a.NextTimer(); !armed || deadline != clock.ns+respite*3*period {
		t.Errorf("after three periods in service: %d ns from now, armed %v, want %d", deadline-clock.ns, armed, respite*3*period)
	}
	expire()
	clock.ns += 10 * maxRespiteNS
	write(t, a, MSREOI, 0)
	if deadline, armed := a.NextTimer(); !armed || deadline != clock.ns+maxRespiteNS {
		t.Errorf("after a very long service: %d ns from now, armed %v", deadline-clock.ns, armed)
	}
	if _, err := DecodeState(a.Save().Append(nil)); err != nil {
		t.Errorf("state with a postponed timer: %v", err)
	}
}
