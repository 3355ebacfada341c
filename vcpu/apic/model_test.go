package apic

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// model is the interrupt half of an APIC written a second time, as simply as
// possible: sets of vectors instead of bits, every priority computed from
// scratch.
type model struct {
	irr, isr, tmr map[int]bool
	tpr           int
	enabled       bool
	errorVector   int // 0: masked
	esr, logged   map[string]bool
	state         string
	latched       []string // INIT, SIPI, NMI in order of arrival
	eois          []int
}

func newModel() *model {
	m := &model{}
	m.reset()
	m.state = "running"
	return m
}

func (m *model) reset() {
	m.irr, m.isr, m.tmr = map[int]bool{}, map[int]bool{}, map[int]bool{}
	m.tpr, m.enabled, m.errorVector = 0, false, 0
	m.esr, m.logged = map[string]bool{}, map[string]bool{}
}

func highest(set map[int]bool) int {
	high := 0
	for v := range set {
		high = max(high, v)
	}
	return high
}

func (m *model) ppr() int {
	if s := highest(m.isr); s/16 > m.tpr/16 {
		return s / 16 * 16
	}
	return m.tpr
}

func (m *model) fixed(v int, level bool) {
	switch {
	case !m.enabled:
	case v < 16:
		first := len(m.logged) == 0
		m.logged["received"] = true
		if first && m.errorVector != 0 {
			m.fixed(m.errorVector, false)
		}
	default:
		m.irr[v] = true
		m.tmr[v] = level
	}
}

// arrive latches an event, or not, by reading back what was latched before.
func (m *model) arrive(event string) {
	waiting := m.state == "wait-for-SIPI"
	for _, e := range m.latched {
		waiting = e == "INIT" || waiting && e != "SIPI"
	}
	switch {
	case event == "INIT":
		m.latched = []string{"INIT"}
	case slices.Contains(m.latched, event):
	case waiting == (event == "SIPI"):
		m.latched = append(m.latched, event)
	}
}

func (m *model) take() (e Events) {
	e.INIT = slices.Contains(m.latched, "INIT")
	e.SIPI = slices.Contains(m.latched, "SIPI")
	e.NMI = slices.Contains(m.latched, "NMI")
	if e.INIT {
		m.reset()
		m.state = "wait-for-SIPI"
	}
	if e.SIPI {
		m.state = "running"
	}
	m.latched = nil
	return e
}

func (m *model) pending() (int, bool) {
	v := highest(m.irr)
	return v, m.enabled && v/16 > m.ppr()/16
}

// TestAgainstModel plays random operations on an APIC and on the model and
// compares all that can be seen after each.
func TestAgainstModel(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for run := range 300 {
		bus := &recordBus{}
		a, m := New(5, true, bus, &fakeClock{}), newModel()
		for step := range 300 {
			op := rng.IntN(100)
			v := rng.IntN(256)
			if rng.IntN(2) == 0 {
				v = 0x30 + rng.IntN(0x28) // close together, so that they meet
			}
			switch {
			case op < 40:
				level := rng.IntN(2) == 0
				a.Deliver(Message{Delivery: Delivery(rng.IntN(2)), Vector: uint8(v), Level: level, Assert: true})
				m.fixed(v, level)
			case op < 60:
				got, ok := a.Pending()
				want, wantOK := m.pending()
				if ok != wantOK || ok && int(got) != want {
					t.Fatalf("seed %d run %d step %d: pending %#x %t, model %#x %t", seed, run, step, got, ok, want, wantOK)
				}
				if ok {
					a.Accept(got)
					delete(m.irr, want)
					m.isr[want] = true
				}
			case op < 75:
				write(t, a, MSREOI, 0)
				if s := highest(m.isr); s != 0 {
					delete(m.isr, s)
					if m.tmr[s] {
						m.eois = append(m.eois, s)
					}
				}
			case op < 80:
				write(t, a, MSRTPR, uint64(v))
				m.tpr = v
			case op < 83:
				a.SetTPR(uint8(v & 0xf))
				if m.tpr/16 != v&0xf {
					m.tpr = v & 0xf * 16
				}
			case op < 88:
				on := rng.IntN(4) != 0
				svr := uint64(0xff)
				if on {
					svr |= svrEnable
				}
				write(t, a, MSRSVR, svr)
				m.enabled = on
				if !on {
					m.errorVector = 0
				}
			case op < 90:
				write(t, a, MSRLVTError, 0xfe)
				if m.enabled {
					m.errorVector = 0xfe
				}
			case op < 92:
				write(t, a, MSRESR, 0)
				m.esr, m.logged = m.logged, map[string]bool{}
			case op < 94:
				write(t, a, MSRSelfIPI, uint64(v))
				if v >= 16 {
					m.fixed(v, false)
				} else {
					first := len(m.logged) == 0
					m.logged["sent"] = true
					if first && m.errorVector != 0 {
						m.fixed(m.errorVector, false)
					}
				}
			case op < 97:
				d := []Delivery{INIT, SIPI, NMI}[rng.IntN(3)]
				a.Deliver(Message{Delivery: d, Assert: true})
				m.arrive(d.String())
			default:
				if got, want := a.TakeEvents(), m.take(); got != want {
					t.Fatalf("seed %d run %d step %d: events %+v, model %+v", seed, run, step, got, want)
				}
			}
			compare(t, a, m, seed, run, step)
		}
		if !slices.EqualFunc(bus.eois, m.eois, func(x uint8, y int) bool { return int(x) == y }) {
			t.Fatalf("seed %d run %d: EOIs %v, model %v", seed, run, bus.eois, m.eois)
		}
	}
}

func compare(t *testing.T, a *APIC, m *model, seed uint64, run, step int) {
	t.Helper()
	for _, c := range []struct {
		name  string
		first uint32
		want  map[int]bool
	}{{"IRR", MSRIRR, m.irr}, {"ISR", MSRISR, m.isr}, {"TMR", MSRTMR, m.tmr}} {
		var want [8]uint64
		for v, on := range c.want {
			if on {
				want[v/32] |= 1 << (v % 32)
			}
		}
		for i, w := range want {
			if got := read(t, a, c.first+uint32(i)); got != w {
				t.Fatalf("seed %d run %d step %d: %s %d is %#x, model %#x", seed, run, step, c.name, i, got, w)
			}
		}
	}
	var esr uint64
	if m.esr["sent"] {
		esr |= esrSendIllegalVector
	}
	if m.esr["received"] {
		esr |= esrReceiveIllegalVector
	}
	if got := read(t, a, MSRPPR); int(got) != m.ppr() {
		t.Fatalf("seed %d run %d step %d: PPR %#x, model %#x", seed, run, step, got, m.ppr())
	}
	if got := read(t, a, MSRESR); got != esr {
		t.Fatalf("seed %d run %d step %d: ESR %#x, model %#x", seed, run, step, got, esr)
	}
	if got := a.Activity().String(); got != m.state {
		t.Fatalf("seed %d run %d step %d: %s, model %s", seed, run, step, got, m.state)
	}
}
