package apic

import "testing"

// fakeClock is a clock that tests set.
type fakeClock struct{ ns int64 }

func (c *fakeClock) NowNS() int64 { return c.ns }

// sentIPI and recordBus record what leaves an APIC.
type sentIPI struct {
	Message
	shorthand Shorthand
}

type recordBus struct {
	sent []sentIPI
	eois []uint8
}

func (b *recordBus) Send(m Message, s Shorthand) { b.sent = append(b.sent, sentIPI{m, s}) }
func (b *recordBus) EOI(v uint8)                 { b.eois = append(b.eois, v) }

// newTest returns an APIC with id 5 that is software-enabled and Running.
func newTest(t *testing.T) (*APIC, *recordBus, *fakeClock) {
	t.Helper()
	bus, clock := &recordBus{}, &fakeClock{ns: 1000}
	a := New(5, true, bus, clock)
	write(t, a, MSRSVR, svrEnable|0xff)
	return a, bus, clock
}

func write(t *testing.T, a *APIC, msr uint32, v uint64) {
	t.Helper()
	if err := a.WriteMSR(msr, v); err != nil {
		t.Fatalf("write %#x to MSR %#x: %v", v, msr, err)
	}
}

func read(t *testing.T, a *APIC, msr uint32) uint64 {
	t.Helper()
	v, err := a.ReadMSR(msr)
	if err != nil {
		t.Fatalf("read MSR %#x: %v", msr, err)
	}
	return v
}

func fixed(vector uint8) Message {
	return Message{Delivery: Fixed, Vector: vector, Assert: true, From: FromDevice}
}

func levelled(vector uint8) Message {
	m := fixed(vector)
	m.Level = true
	return m
}

// TestRegisters reads every MSR of the range after New and checks which are
// there, then what a write of each kind of value does.
func TestRegisters(t *testing.T) {
	a := New(0x123, false, &recordBus{}, &fakeClock{})
	want := map[uint32]uint64{
		MSRID: 0x123, MSRVersion: 0x50014, MSRTPR: 0, MSRPPR: 0,
		MSRLDR: 0x12<<16 | 1<<3, MSRSVR: 0xff, MSRESR: 0, MSRICR: 0,
		MSRLVTTimer: 0x10000, MSRLVTThermal: 0x10000, MSRLVTPerf: 0x10000,
		MSRLVTLINT0: 0x10000, MSRLVTLINT1: 0x10000, MSRLVTError: 0x10000,
		MSRInitialCount: 0, MSRCurrentCount: 0, MSRDivideConfig: 0,
	}
	for i := range uint32(8) {
		want[MSRISR+i], want[MSRTMR+i], want[MSRIRR+i] = 0, 0, 0
	}
	for msr := FirstMSR - 1; msr <= LastMSR+1; msr++ {
		got, err := a.ReadMSR(msr)
		if v, ok := want[msr]; ok && (err != nil || got != v) {
			t.Errorf("MSR %#x reads %#x, %v; want %#x", msr, got, err, v)
		} else if !ok && err != ErrGP {
			t.Errorf("MSR %#x reads %#x, %v; want #GP", msr, got, err)
		}
	}
}

func TestRegisterWrites(t *testing.T) {
	const gp = ^uint64(0) // wanted: #GP, old value kept
	for _, c := range []struct {
		msr     uint32
		v, want uint64
	}{
		{MSRID, 0, gp}, {MSRVersion, 0, gp}, {MSRPPR, 0, gp}, {MSRLDR, 0, gp},
		{MSRISR, 0, gp}, {MSRTMR + 7, 0, gp}, {MSRIRR + 3, 0, gp}, {MSRCurrentCount, 0, gp},
		{0x800, 0, gp}, {0x80e, 0, gp}, {0x82f, 0, gp}, {0x831, 0, gp}, {0x840, 0, gp}, {0x8ff, 0, gp}, {0x900, 0, gp}, {0x7ff, 0, gp},
		{MSRTPR, 0xff, 0xff}, {MSRTPR, 0x100, gp}, {MSRTPR, 1 << 32, gp},
		{MSREOI, 1, gp}, {MSREOI, 1 << 32, gp},
		{MSRSVR, 0x1ff, 0x1ff}, {MSRSVR, 0x3ff, 0x3ff}, {MSRSVR, 0x0ff, 0x0ff}, {MSRSVR, 1<<12 | 0x1ff, gp}, {MSRSVR, 1 << 10, gp}, {MSRSVR, 1<<63 | 0x1ff, gp},
		{MSRESR, 0, 0}, {MSRESR, 1, gp},
		{MSRICR, 1 << 13, gp}, {MSRICR, 1 << 16, gp}, {MSRICR, 1 << 17, gp}, {MSRICR, 1 << 20, gp}, {MSRICR, 1 << 31, gp},
		{MSRICR, 7<<32 | 0x4030, 7<<32 | 0x4030}, {MSRICR, 7<<32 | 0x1030, 7<<32 | 0x0030},
		{MSRLVTTimer, 0x200ec, 0x200ec}, {MSRLVTTimer, 0x300ec, 0x300ec}, {MSRLVTTimer, 0x400ec, gp}, {MSRLVTTimer, 0x600ec, gp},
		{MSRLVTTimer, 0x010ec, 0x000ec}, {MSRLVTTimer, 0x004ec, gp}, {MSRLVTTimer, 1 << 32, gp},
		{MSRLVTThermal, 0x107ff, 0x107ff}, {MSRLVTThermal, 1 << 15, gp}, {MSRLVTThermal, 1 << 13, gp},
		{MSRLVTPerf, 0x00400, 0x00400}, {MSRLVTPerf, 1 << 17, gp}, {MSRLVTPerf, 1 << 11, gp},
		{MSRLVTLINT0, 0x1f7ff, 0x1a7ff}, {MSRLVTLINT0, 1 << 17, gp},
		{MSRLVTLINT1, 0x00400, 0x00400}, {MSRLVTLINT1, 1 << 11, gp},
		{MSRLVTError, 0x000fe, 0x000fe}, {MSRLVTError, 0x00400, gp},
		{MSRInitialCount, 0xffffffff, 0xffffffff}, {MSRInitialCount, 1 << 32, gp},
		{MSRDivideConfig, 0xb, 0xb}, {MSRDivideConfig, 4, gp}, {MSRDivideConfig, 0x10, gp}, {MSRDivideConfig, 1 << 40, gp},
		{MSRSelfIPI, 0x100, gp}, {MSRSelfIPI, 1 << 32, gp},
	} {
		a, _, _ := newTest(t)
		before, readErr := a.ReadMSR(c.msr)
		err := a.WriteMSR(c.msr, c.v)
		after, _ := a.ReadMSR(c.msr)
		switch {
		case c.want == gp && err != ErrGP:
			t.Errorf("MSR %#x = %#x: %v, want #GP", c.msr, c.v, err)
		case c.want == gp && readErr == nil && before != after:
			t.Errorf("MSR %#x = %#x: #GP, but it went from %#x to %#x", c.msr, c.v, before, after)
		case c.want != gp && (err != nil || after != c.want):
			t.Errorf("MSR %#x = %#x: reads %#x, %v; want %#x", c.msr, c.v, after, err, c.want)
		}
	}
}

// take accepts what is pending and returns it, 0 if nothing is.
func take(a *APIC) uint8 {
	v, ok := a.Pending()
	if !ok {
		return 0
	}
	a.Accept(v)
	return v
}

// TestPriority follows IRR, ISR, TPR and PPR through nested interrupts.
func TestPriority(t *testing.T) {
	a, _, _ := newTest(t)
	ppr := func(want uint64) {
		t.Helper()
		if got := read(t, a, MSRPPR); got != want {
			t.Fatalf("PPR %#x, want %#x", got, want)
		}
	}
	expect := func(want uint8) {
		t.Helper()
		if got := take(a); got != want {
			t.Fatalf("took %#x, want %#x", got, want)
		}
	}
	a.Deliver(fixed(0x41))
	a.Deliver(fixed(0x52))
	a.Deliver(fixed(0x5f))
	expect(0x5f)
	ppr(0x50)
	expect(0) // 0x52 is of the same class, 0x41 below
	a.Deliver(fixed(0x60))
	expect(0x60) // nests
	ppr(0x60)
	write(t, a, MSRTPR, 0x65) // same class: PPR is TPR with its sub-class
	ppr(0x65)
	write(t, a, MSRTPR, 0x72)
	ppr(0x72)
	write(t, a, MSRTPR, 0x21)
	ppr(0x60)
	write(t, a, MSREOI, 0)
	ppr(0x50)
	expect(0)
	write(t, a, MSREOI, 0)
	ppr(0x21)
	expect(0x52)
	write(t, a, MSREOI, 0)
	write(t, a, MSRTPR, 0x40)
	expect(0) // 0x41's class is the task's
	write(t, a, MSRTPR, 0x3f)
	expect(0x41)
	write(t, a, MSREOI, 0)
	write(t, a, MSREOI, 0) // nothing in service: no effect
	ppr(0x3f)
}

func TestTMRFollowsAcceptance(t *testing.T) {
	a, bus, _ := newTest(t)
	a.Deliver(levelled(0x81))
	if got := read(t, a, MSRTMR+4); got != 2 {
		t.Fatalf("TMR %#x", got)
	}
	take(a)
	write(t, a, MSREOI, 0)
	a.Deliver(fixed(0x81))
	if got := read(t, a, MSRTMR+4); got != 0 {
		t.Fatalf("TMR %#x after an edge", got)
	}
	take(a)
	write(t, a, MSREOI, 0)
	if len(bus.eois) != 1 || bus.eois[0] != 0x81 {
		t.Errorf("EOI broadcasts %v, want one of 0x81", bus.eois)
	}
}
