package apic

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// busyAPIC has something in every field of its state.
func busyAPIC(t *testing.T) (*APIC, *fakeClock) {
	a, _, clock := newTest(t)
	for _, r := range []struct {
		msr uint32
		v   uint64
	}{
		{MSRTPR, 0x23}, {MSRICR, 0x1234<<32 | 0xc48f1}, {MSRLVTTimer, 0x200ec}, {MSRLVTThermal, 0xfa}, {MSRLVTPerf, 0x400},
		{MSRLVTLINT0, 0x1a700}, {MSRLVTLINT1, 0x400}, {MSRLVTError, 0xfe}, {MSRDivideConfig, 9}, {MSRInitialCount, 0x12345678},
	} {
		write(t, a, r.msr, r.v)
	}
	a.Deliver(fixed(7))
	write(t, a, MSRESR, 0)
	a.Deliver(fixed(7))
	a.Deliver(levelled(0x71))
	a.Deliver(levelled(0x91))
	take(a)
	a.Deliver(fixed(0x31))
	a.Deliver(Message{Delivery: INIT, Assert: true})
	a.Deliver(Message{Delivery: SIPI, Vector: 0x9a, Assert: true})
	a.Deliver(Message{Delivery: NMI, Assert: true})
	a.SetActivity(Halted)
	clock.ns += 1_000_000
	return a, clock
}

func TestStateRoundTrip(t *testing.T) {
	a, _ := busyAPIC(t)
	saved := a.Save()
	b := saved.Append(nil)
	if len(b) != StateSize {
		t.Fatalf("%d bytes, want %d", len(b), StateSize)
	}
	golden(t, "state.bin", b)
	decoded, err := DecodeState(b)
	if err != nil {
		t.Fatal(err)
	}
	if decoded != saved {
		t.Fatalf("decoded\n%+v, want\n%+v", decoded, saved)
	}
	// On another node, where the clock says something else.
	clock := &fakeClock{ns: 1 << 50}
	to := New(5, true, &recordBus{}, clock)
	if err := to.Restore(decoded); err != nil {
		t.Fatal(err)
	}
	if got := to.Save(); got != saved {
		t.Errorf("restored\n%+v, want\n%+v", got, saved)
	}
	if deadline, armed := to.NextTimer(); !armed || deadline-clock.ns != saved.TimerRemainingNS {
		t.Errorf("deadline in %d ns, armed %t", deadline-clock.ns, armed)
	}
	if e := to.TakeEvents(); e != (Events{INIT: true, SIPI: true, SIPIVector: 0x9a, NMI: true}) {
		t.Errorf("events %+v", e)
	}
}

// TestExpiredTimerMoves checks that an expiry that no Tick saw is not lost by a
// move.
func TestExpiredTimerMoves(t *testing.T) {
	a, _, clock := newTest(t)
	write(t, a, MSRLVTTimer, 0xec)
	write(t, a, MSRInitialCount, 10)
	clock.ns += 1000
	there := &fakeClock{ns: 5}
	b := New(5, true, &recordBus{}, there)
	if err := b.Restore(a.Save()); err != nil {
		t.Fatal(err)
	}
	b.Tick(there.ns)
	if got := take(b); got != 0xec {
		t.Errorf("took %#x", got)
	}
}

func TestRestoreRejects(t *testing.T) {
	a, _ := busyAPIC(t)
	good := a.Save()
	for name, spoil := range map[string]func(s *State){
		"id":             func(s *State) { s.ID = 6 },
		"BSP":            func(s *State) { s.BSP = false },
		"activity":       func(s *State) { s.Activity = 3 },
		"SVR":            func(s *State) { s.SVR |= 1 << 12 },
		"ESR":            func(s *State) { s.ESR = 1 },
		"pending ESR":    func(s *State) { s.ESRPending = 0x80 },
		"ICR":            func(s *State) { s.ICR |= 1 << 16 },
		"divide":         func(s *State) { s.DivideConfig = 4 },
		"count from 0":   func(s *State) { s.InitialCount = 0 },
		"negative time":  func(s *State) { s.TimerRemainingNS = -1 },
		"too much time":  func(s *State) { s.TimerRemainingNS = maxTimerNS + 1 },
		"time, stopped":  func(s *State) { s.TimerCounting = false },
		"illegal IRR":    func(s *State) { s.IRR[0] |= 1 << 15 },
		"illegal ISR":    func(s *State) { s.ISR[0] |= 1 },
		"illegal TMR":    func(s *State) { s.TMR[0] |= 1 << 8 },
		"deadline mode":  func(s *State) { s.LVT[lvtTimer] = 0x400ec },
		"disabled, LVT":  func(s *State) { s.SVR = 0xff },
		"delivery state": func(s *State) { s.LVT[lvtError] |= lvtDeliveryStatus },
	} {
		s := good
		spoil(&s)
		if err := a.Restore(s); !errors.Is(err, ErrBadState) {
			t.Errorf("%s: %v", name, err)
		}
		if name != "id" && name != "BSP" {
			if _, err := DecodeState(s.Append(nil)); !errors.Is(err, ErrBadState) {
				t.Errorf("%s, encoded: %v", name, err)
			}
		}
	}
	if a.Save() != good {
		t.Error("a rejected state left traces")
	}
}

// golden compares b with a file of testdata; UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want) {
		t.Errorf("%s: encoded\n%x, want\n%x", path, b, want)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	var all []byte
	for _, m := range []Message{
		{},
		{Dest: 0x12345678, DestMode: Logical, Delivery: LowestPriority, Vector: 0xfd, Level: true, Assert: true, From: FromDevice},
		{Dest: Broadcast, Delivery: SIPI, Vector: 0x9a, Assert: true, From: 3},
		{Dest: 1, Delivery: ExtINT, Level: true},
	} {
		b := m.Append(nil)
		got, err := DecodeMessage(b)
		if err != nil || got != m || len(b) != MessageSize {
			t.Errorf("%+v: %d bytes, %+v, %v", m, len(b), got, err)
		}
		all = append(all, b...)
	}
	golden(t, "messages.bin", all)

	good := Message{}.Append(nil)
	for name, b := range map[string][]byte{
		"empty": nil, "short": good[:MessageSize-1], "long": append(bytes.Clone(good), 0),
		"mode 3": spoiled(good, 9, 3), "mode 8": spoiled(good, 9, 8), "flags": spoiled(good, 10, 8), "tail": spoiled(good, 11, 1),
	} {
		if _, err := DecodeMessage(b); !errors.Is(err, ErrBadMessage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func spoiled(b []byte, i int, v byte) []byte {
	b = bytes.Clone(b)
	b[i] = v
	return b
}
