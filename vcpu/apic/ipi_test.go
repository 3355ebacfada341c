package apic

import (
	"slices"
	"testing"
)

// TestICR writes the ICR of APIC 5 and checks what leaves it and what it does
// to itself.
func TestICR(t *testing.T) {
	to := func(dest uint32, low uint32) uint64 { return uint64(dest)<<32 | uint64(low) }
	msg := func(dest uint32, mode DestMode, d Delivery, vector uint8) Message {
		return Message{Dest: dest, DestMode: mode, Delivery: d, Vector: vector, Assert: true, From: 5}
	}
	for _, c := range []struct {
		name string
		icr  uint64
		sent []sentIPI
		self uint8  // vector pending afterwards
		nmi  bool   // latched at the sender
		init bool   // latched at the sender
		esr  uint64 // after a write of the ESR
	}{
		{name: "fixed, physical", icr: to(7, 0x40f1), sent: []sentIPI{{msg(7, Physical, Fixed, 0xf1), NoShorthand}}},
		{name: "fixed, no assert bit", icr: to(7, 0x00f1), sent: []sentIPI{{msg(7, Physical, Fixed, 0xf1), NoShorthand}}},
		{name: "trigger mode is ignored", icr: to(7, 0xc0f1), sent: []sentIPI{{msg(7, Physical, Fixed, 0xf1), NoShorthand}}},
		{name: "fixed, logical", icr: to(0x10003, 0x48f1), sent: []sentIPI{{msg(0x10003, Logical, Fixed, 0xf1), NoShorthand}}},
		{name: "lowest priority", icr: to(3, 0x49f1), sent: []sentIPI{{msg(3, Logical, LowestPriority, 0xf1), NoShorthand}}},
		{name: "broadcast", icr: to(Broadcast, 0x40f1), sent: []sentIPI{{msg(Broadcast, Physical, Fixed, 0xf1), NoShorthand}}},
		{name: "SMI", icr: to(7, 0x4200), sent: []sentIPI{{msg(7, Physical, SMI, 0), NoShorthand}}},
		{name: "NMI ignores its vector", icr: to(7, 0x4402), sent: []sentIPI{{msg(7, Physical, NMI, 2), NoShorthand}}},
		{name: "INIT assert", icr: to(7, 0xc500), sent: []sentIPI{{msg(7, Physical, INIT, 0), NoShorthand}}},
		{name: "INIT level de-assert", icr: to(7, 0x8500)},
		{name: "SIPI", icr: to(7, 0x4699), sent: []sentIPI{{msg(7, Physical, SIPI, 0x99), NoShorthand}}},
		{name: "reserved delivery mode", icr: to(7, 0x4330)},
		{name: "ExtINT", icr: to(7, 0x4730)},
		{name: "own physical id", icr: to(5, 0x40f1), self: 0xf1},
		{name: "own physical id, lowest priority", icr: to(5, 0x41f1), self: 0xf1},
		{name: "own physical id, NMI", icr: to(5, 0x4400), nmi: true},
		{name: "own physical id, INIT", icr: to(5, 0x4500), init: true},
		{name: "own physical id, SIPI while running", icr: to(5, 0x4600)},
		{name: "own logical id goes out", icr: to(1<<5, 0x48f1), sent: []sentIPI{{msg(1<<5, Logical, Fixed, 0xf1), NoShorthand}}},
		{name: "shorthand self", icr: to(9, 0x440f1), self: 0xf1},
		{name: "shorthand self, NMI", icr: to(9, 0x44400), nmi: true},
		{name: "shorthand self, INIT is invalid", icr: to(9, 0x44500)},
		{name: "shorthand all", icr: to(9, 0x840f1), sent: []sentIPI{{msg(9, Physical, Fixed, 0xf1), AllIncludingSelf}}},
		{name: "shorthand all, INIT is invalid", icr: to(9, 0x84500)},
		{name: "shorthand all but self", icr: to(9, 0xc40f1), sent: []sentIPI{{msg(9, Physical, Fixed, 0xf1), AllExcludingSelf}}},
		{name: "shorthand all but self, INIT", icr: to(0, 0xc4500), sent: []sentIPI{{msg(0, Physical, INIT, 0), AllExcludingSelf}}},
		{name: "illegal vector", icr: to(7, 0x400f), esr: esrSendIllegalVector, self: 0xfe},
		{name: "illegal vector, self", icr: to(0, 0x4400f), esr: esrSendIllegalVector, self: 0xfe},
	} {
		a, bus, _ := newTest(t)
		write(t, a, MSRLVTError, 0xfe)
		write(t, a, MSRICR, c.icr)
		if !slices.Equal(bus.sent, c.sent) {
			t.Errorf("%s: sent %+v, want %+v", c.name, bus.sent, c.sent)
		}
		if v, _ := a.Pending(); v != c.self {
			t.Errorf("%s: own vector %#x pending, want %#x", c.name, v, c.self)
		}
		if s := a.Save(); s.NMI != c.nmi || s.INIT != c.init || s.SIPI {
			t.Errorf("%s: latched NMI %t INIT %t SIPI %t", c.name, s.NMI, s.INIT, s.SIPI)
		}
		write(t, a, MSRESR, 0)
		if got := read(t, a, MSRESR); got != c.esr {
			t.Errorf("%s: ESR %#x, want %#x", c.name, got, c.esr)
		}
	}
}

func TestSelfIPIRegister(t *testing.T) {
	a, bus, _ := newTest(t)
	write(t, a, MSRSelfIPI, 0x31)
	write(t, a, MSRSelfIPI, 0x31)
	write(t, a, MSRSelfIPI, 5)
	if got := take(a); got != 0x31 {
		t.Errorf("took %#x", got)
	}
	if len(bus.sent) != 0 {
		t.Errorf("sent %+v", bus.sent)
	}
	write(t, a, MSRESR, 0)
	if got := read(t, a, MSRESR); got != esrSendIllegalVector {
		t.Errorf("ESR %#x", got)
	}
	if s := a.Stats(); s.Sent[Fixed] != 3 || s.Delivered != 1 || s.Coalesced != 1 {
		t.Errorf("%+v", s)
	}
	// A self IPI asks for no kick, and leaves the next Deliver its own.
	if !a.Deliver(fixed(0x32)) {
		t.Error("a delivery after a self IPI asks for no kick")
	}
}

// TestErrorStatus checks the two-step ESR and the LVT error interrupt's re-arm.
func TestErrorStatus(t *testing.T) {
	a, _, _ := newTest(t)
	write(t, a, MSRLVTError, 0xfe)
	if !a.Deliver(fixed(3)) {
		t.Error("an error interrupt asks for no kick")
	}
	if got := read(t, a, MSRESR); got != 0 {
		t.Errorf("ESR %#x before it was written", got)
	}
	if got := take(a); got != 0xfe {
		t.Fatalf("took %#x, want the error interrupt", got)
	}
	write(t, a, MSREOI, 0)
	a.Deliver(fixed(0xf))
	if got := take(a); got != 0 {
		t.Errorf("took %#x: the ESR has not been written yet", got)
	}
	write(t, a, MSRESR, 0)
	if got := read(t, a, MSRESR); got != esrReceiveIllegalVector {
		t.Errorf("ESR %#x", got)
	}
	write(t, a, MSRESR, 0)
	if got := read(t, a, MSRESR); got != 0 {
		t.Errorf("ESR %#x after a second write", got)
	}
	write(t, a, MSRLVTError, 2) // the error interrupt's own vector is illegal
	a.Deliver(fixed(0))
	if got := take(a); got != 0 {
		t.Errorf("took %#x", got)
	}
	write(t, a, MSRLVTError, 0x100fe)
	a.Deliver(fixed(0))
	if got := take(a); got != 0 {
		t.Errorf("took %#x with the entry masked", got)
	}
}

func TestSoftwareDisable(t *testing.T) {
	a, _, _ := newTest(t)
	write(t, a, MSRLVTTimer, 0xec)
	write(t, a, MSRLVTLINT1, 0x400)
	a.Deliver(fixed(0x44))
	write(t, a, MSRSVR, 0xff)
	if _, ok := a.Pending(); ok {
		t.Error("a disabled APIC has an interrupt pending")
	}
	if a.Deliver(fixed(0x55)) {
		t.Error("a disabled APIC takes a fixed interrupt")
	}
	for msr := MSRLVTTimer; msr <= MSRLVTError; msr++ {
		write(t, a, msr, 0)
		if got := read(t, a, msr); got != lvtMasked {
			t.Errorf("LVT %#x is %#x while disabled, want masked", msr, got)
		}
	}
	a.TakeEvents() // the kick for 0x44
	if !a.Deliver(Message{Delivery: NMI, Assert: true}) || !a.TakeEvents().NMI {
		t.Error("a disabled APIC ignores an NMI")
	}
	write(t, a, MSRSVR, 0x1ff)
	if got := read(t, a, MSRLVTLINT1); got != lvtMasked {
		t.Errorf("LINT1 is %#x after enabling, want still masked", got)
	}
	if got := take(a); got != 0x44 {
		t.Errorf("took %#x, want what was requested before", got)
	}
	if got := take(a); got != 0 {
		t.Errorf("took %#x, delivered while disabled", got)
	}
}

// TestKick checks which deliveries ask for a kick.
func TestKick(t *testing.T) {
	a, _, _ := newTest(t)
	nmi := Message{Delivery: NMI, Assert: true}
	for i, step := range []struct {
		m    Message
		take bool // TakeEvents first
		want bool
	}{
		{m: fixed(0x40), want: true},
		{m: fixed(0x41)},             // the first kick is on its way
		{m: fixed(0x40), take: true}, // adds nothing
		{m: fixed(0x42), want: true}, // re-armed
		{m: nmi},
		{m: nmi, take: true, want: true}, // the NMI before was taken
		{m: nmi},
		{m: Message{Delivery: SMI}, take: true}, // ignored
		{m: Message{Delivery: ExtINT}},
		{m: Message{Delivery: 3, Assert: true}},
		{m: Message{Delivery: SIPI}},            // running
		{m: Message{Delivery: INIT}},            // de-assert
		{m: Message{Level: true, Vector: 0x50}}, // de-assert
		{m: Message{Vector: 0x51}, want: true},  // edge has no de-assert
		{m: Message{Vector: 1}, take: true},     // error entry masked
		{m: Message{Delivery: INIT, Assert: true}, want: true},
	} {
		if step.take {
			a.TakeEvents()
		}
		if got := a.Deliver(step.m); got != step.want {
			t.Errorf("step %d, %v vector %#x: kick %t, want %t", i, step.m.Delivery, step.m.Vector, got, step.want)
		}
	}
}

func TestCR8(t *testing.T) {
	a, _, _ := newTest(t)
	write(t, a, MSRTPR, 0x25)
	if got := a.TPR(); got != 2 {
		t.Errorf("CR8 %d, want 2", got)
	}
	a.SetTPR(2)
	if got := read(t, a, MSRTPR); got != 0x25 {
		t.Errorf("TPR %#x: mirroring its own class lost the sub-class", got)
	}
	a.SetTPR(0xf3)
	if got := read(t, a, MSRTPR); got != 0x30 {
		t.Errorf("TPR %#x, want 0x30", got)
	}
}

func TestBase(t *testing.T) {
	if got := New(0, true, nil, nil).Base(); got != 0xfee00d00 {
		t.Errorf("BSP %#x", got)
	}
	if got := New(1, false, nil, nil).Base(); got != 0xfee00c00 {
		t.Errorf("AP %#x", got)
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		id, dest uint32
		mode     DestMode
		want     bool
	}{
		{0, 0, Physical, true}, {0, 1, Physical, false}, {0x1ff, 0x1ff, Physical, true}, {0x1ff, 0xff, Physical, false},
		{3, Broadcast, Physical, true}, {3, Broadcast, Logical, true}, {0x54321, Broadcast, Logical, true},
		{0, 1, Logical, true}, {15, 1 << 15, Logical, true}, {15, 1 << 14, Logical, false}, {4, 0xffff, Logical, true},
		{16, 1, Logical, false}, {16, 1<<16 | 1, Logical, true}, {31, 1<<16 | 0x8000, Logical, true}, {31, 1<<16 | 0x7fff, Logical, false},
		{0x1234, 0x123<<16 | 1<<4, Logical, true}, {0x1234, 0x123 << 16, Logical, false}, {0x1234, 0x122<<16 | 1<<4, Logical, false},
	} {
		if got := New(c.id, false, nil, nil).Matches(c.dest, c.mode); got != c.want {
			t.Errorf("id %#x, dest %#x, mode %d: %t", c.id, c.dest, c.mode, got)
		}
	}
}
