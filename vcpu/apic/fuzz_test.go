package apic

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// FuzzMSR plays guest accesses, deliveries and time on an APIC: ten bytes each,
// an operation, the low byte of an MSR, and a value. Whatever comes, the state
// is one that Restore takes.
func FuzzMSR(f *testing.F) {
	step := func(op, msr byte, v uint64) []byte {
		return binary.LittleEndian.AppendUint64([]byte{op, msr}, v)
	}
	f.Add(bytes.Join([][]byte{step(0, 0x0f, 0x1ff), step(0, 0x32, 0x200ec), step(0, 0x38, 1000), step(2, 0, 1<<20), step(3, 0, 0), step(0, 0x0b, 0)}, nil))
	f.Add(bytes.Join([][]byte{step(0, 0x0f, 0x1ff), step(4, 0xf1, 0x100), step(3, 0, 0), step(0, 0x0b, 0), step(4, 9, 5), step(5, 0, 0), step(4, 9, 6), step(5, 0, 0)}, nil))
	f.Add(bytes.Join([][]byte{step(0, 0x0f, 0x1ff), step(0, 0x37, 0xfe), step(0, 0x3f, 3), step(0, 0x30, 7<<32|0x840f1), step(1, 0x28, 0)}, nil))
	f.Fuzz(func(t *testing.T, script []byte) {
		clock := &fakeClock{}
		r := NewRouter(func(uint8) {})
		a := New(5, true, r, clock)
		r.SetLocal(a, func() {})
		for ; len(script) >= 10; script = script[10:] {
			msr := FirstMSR + uint32(script[1])
			v := binary.LittleEndian.Uint64(script[2:])
			switch script[0] % 7 {
			case 0:
				if err := a.WriteMSR(msr, v); err != nil && err != ErrGP {
					t.Fatalf("write %#x to MSR %#x: %v", v, msr, err)
				}
			case 1:
				if _, err := a.ReadMSR(msr); err != nil && err != ErrGP {
					t.Fatalf("read MSR %#x: %v", msr, err)
				}
			case 2:
				clock.ns += int64(v % (1 << 45))
				a.Tick(clock.ns)
			case 3:
				take(a)
			case 4:
				r.Inject(Message{Dest: 5, Delivery: Delivery(v), Vector: script[1], Level: v&0x100 != 0, Assert: v&0x200 == 0})
			case 5:
				a.TakeEvents()
			case 6:
				a.SetTPR(script[1])
			}
		}
		if err := a.Restore(a.Save()); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecodeState checks that what decodes encodes to the same bytes and can be
// restored and run.
func FuzzDecodeState(f *testing.F) {
	a := New(5, true, &recordBus{}, &fakeClock{})
	f.Add(a.Save().Append(nil))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		if got := s.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("decoded and encoded again:\n%x, want\n%x", got, b)
		}
		clock := &fakeClock{}
		a := New(s.ID, s.BSP, &recordBus{}, clock)
		if err := a.Restore(s); err != nil {
			t.Fatal(err)
		}
		if got := a.Save(); got != s {
			t.Fatalf("restored and saved again:\n%+v, want\n%+v", got, s)
		}
		clock.ns += 1 << 40
		a.Tick(clock.ns)
		if _, err := a.ReadMSR(MSRCurrentCount); err != nil {
			t.Fatal(err)
		}
		take(a)
		a.TakeEvents()
	})
}

func FuzzDecodeMessage(f *testing.F) {
	f.Add(Message{Dest: 3, Vector: 0xf1, Assert: true}.Append(nil))
	f.Add(Message{Dest: Broadcast, DestMode: Logical, Delivery: LowestPriority, Level: true, From: FromDevice}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			return
		}
		if got := m.Append(nil); !bytes.Equal(got, b) {
			t.Fatalf("decoded and encoded again: %x, want %x", got, b)
		}
		r := NewRouter(func(uint8) {})
		a := New(3, false, r, &fakeClock{})
		r.SetLocal(a, func() {})
		r.Inject(m)
		r.Route(m, NoShorthand)
	})
}
