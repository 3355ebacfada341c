package bus

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

// fake is a device of bytes that notes its last access.
type fake struct {
	mu    sync.Mutex
	bytes []byte
	last  string
}

func (f *fake) Read(off uint64, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(data, f.bytes[off:])
	f.last = fmt.Sprintf("read %d+%d", off, len(data))
}

func (f *fake) Write(off uint64, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copy(f.bytes[off:], data)
	f.last = fmt.Sprintf("write %d+%d", off, len(data))
}

func TestRegister(t *testing.T) {
	const top = ^uint64(0)
	for _, tc := range []struct {
		name         string
		bus          *Bus
		base, length uint64
		overlap      bool
		says         string // "" for success
	}{
		{"fits between", NewPorts(), 0x108, 8, false, ""},
		{"below", NewPorts(), 0xf8, 8, false, ""},
		{"same", NewPorts(), 0x100, 8, true, "taken by first at 0x100..0x107"},
		{"inside", NewPorts(), 0x103, 1, true, "taken by first"},
		{"around", NewPorts(), 0xf0, 0x40, true, "taken by first"},
		{"over its end", NewPorts(), 0x107, 2, true, "taken by first"},
		{"over its start", NewPorts(), 0xff, 2, true, "taken by first"},
		{"over the second's start", NewPorts(), 0x10f, 2, true, "taken by second"},
		{"empty", NewPorts(), 0x300, 0, false, "does not fit"},
		{"last port", NewPorts(), 0xffff, 1, false, ""},
		{"beyond the ports", NewPorts(), 0xffff, 2, false, "does not fit"},
		{"last byte", NewMMIO(), top, 1, false, ""},
		{"wraps", NewMMIO(), top, 2, false, "does not fit"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for i, name := range []string{"first", "second"} {
				if err := tc.bus.Register(name, 0x100+0x10*uint64(i), 8, &fake{}); err != nil {
					t.Fatal(err)
				}
			}
			err := tc.bus.Register("new", tc.base, tc.length, &fake{})
			if (err == nil) != (tc.says == "") || (err != nil && !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("error is %v, want %q", err, tc.says)
			}
			if errors.Is(err, ErrOverlap) != tc.overlap {
				t.Errorf("errors.Is(%v, ErrOverlap) is %v", err, !tc.overlap)
			}
		})
	}
}

func TestDispatch(t *testing.T) {
	b := NewPorts()
	devs := map[string]*fake{}
	for name, base := range map[string]uint64{"low": 0, "a": 0x3f8, "b": 0x400, "high": 0xfff8} {
		devs[name] = &fake{bytes: []byte{0, 1, 2, 3, 4, 5, 6, 7}}
		if err := b.Register(name, base, 8, devs[name]); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		addr uint64
		n    int
		dev  string // "" for none
		off  byte
	}{
		{0, 1, "low", 0}, {7, 1, "low", 7}, {8, 1, "", 0}, {6, 4, "", 0},
		{0x3f7, 1, "", 0}, {0x3f7, 2, "", 0}, {0x3f8, 1, "a", 0}, {0x3fc, 4, "a", 4},
		{0x3fe, 4, "", 0}, // crosses from one device into the next
		{0x400, 8, "b", 0}, {0x408, 1, "", 0}, {0xffff, 1, "high", 7}, {0xffff, 2, "", 0}, {^uint64(0), 8, "", 0},
	} {
		for _, f := range devs {
			f.last = ""
		}
		data := make([]byte, tc.n)
		b.Read(tc.addr, data)
		want := bytes.Repeat([]byte{0xff}, tc.n)
		if tc.dev != "" {
			for i := range want {
				want[i] = tc.off + byte(i)
			}
		}
		if !bytes.Equal(data, want) {
			t.Errorf("read of %d at %#x is %x, want %x", tc.n, tc.addr, data, want)
		}
		b.Write(tc.addr, data)
		for name, f := range devs {
			want := ""
			if name == tc.dev {
				want = fmt.Sprintf("write %d+%d", tc.off, tc.n)
			}
			if f.last != want {
				t.Errorf("%d at %#x: device %s saw %q, want %q", tc.n, tc.addr, name, f.last, want)
			}
		}
	}
	b.Read(0, nil)
	b.Write(0, nil)
	if s := b.Stats()[0]; s != (DeviceStats{"low", 0, 8, 2, 2}) {
		t.Errorf("stats of the first device are %+v", s)
	}
}

func TestUnclaimedIsBounded(t *testing.T) {
	b := NewMMIO()
	var buf [4]byte
	for range 3 {
		b.Read(0x1000, buf[:])
	}
	b.Write(0x1000, buf[:])
	b.Write(0x2000, buf[:])
	for i := range uint64(100) {
		b.Read(0x10000+i, buf[:])
	}
	byAddr, others := b.Unclaimed()
	if len(byAddr) != maxUnclaimed || others != 100-(maxUnclaimed-2) {
		t.Fatalf("%d addresses and %d other accesses", len(byAddr), others)
	}
	if byAddr[0] != (UnclaimedStats{0x1000, 3, 1}) {
		t.Errorf("busiest is %+v", byAddr[0])
	}
}

func TestAccessDoesNotAllocate(t *testing.T) {
	b := NewPorts()
	if err := b.Register("dev", 0x10, 8, &nop{}); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4)
	if n := testing.AllocsPerRun(100, func() {
		b.Read(0x10, data)
		b.Write(0x14, data)
		b.Read(0x80, data)
		b.Write(0x80, data)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type nop struct{}

func (nop) Read(_ uint64, data []byte) { clear(data) }
func (nop) Write(uint64, []byte)       {}

// TestConcurrent registers while others access; the race detector judges.
func TestConcurrent(t *testing.T) {
	b := NewPorts()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			data := make([]byte, 2)
			for i := range 2000 {
				if g == 0 && i%20 == 0 {
					if err := b.Register(fmt.Sprint(i), uint64(i), 10, nop{}); err != nil {
						t.Error(err)
					}
				}
				b.Read(uint64(i), data)
				b.Write(uint64(i*7), data)
				if i%500 == 0 {
					b.Stats()
					b.Unclaimed()
				}
			}
		})
	}
	wg.Wait()
	var total uint64
	for _, s := range b.Stats() {
		total += s.Reads + s.Writes
	}
	byAddr, others := b.Unclaimed()
	for _, u := range byAddr {
		total += u.Reads + u.Writes
	}
	if total+others != 4*2000*2 {
		t.Errorf("%d accesses counted of %d", total+others, 4*2000*2)
	}
}

// edge checks that the bus keeps its promise to devices.
type edge struct {
	t      *testing.T
	length uint64
}

func (e edge) check(off uint64, data []byte) {
	if len(data) == 0 || off >= e.length || uint64(len(data)) > e.length-off {
		e.t.Errorf("access of %d at %d in a range of %d", len(data), off, e.length)
	}
}

func (e edge) Read(off uint64, data []byte)  { e.check(off, data); clear(data) }
func (e edge) Write(off uint64, data []byte) { e.check(off, data) }

// FuzzBus plays a script of registrations and accesses, five bytes a step, and
// compares every read with a map of the bytes that are claimed.
func FuzzBus(f *testing.F) {
	f.Add([]byte{0, 0x10, 0, 8, 0, 1, 0x10, 0, 4, 0, 2, 0x14, 0, 8, 0})
	f.Add([]byte{0, 0xff, 0xff, 1, 0, 1, 0xff, 0xff, 1, 0, 1, 0xff, 0xff, 2, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		b := NewPorts()
		owner := map[uint64]int{}
		for step := 0; len(script) >= 5 && step < 200; step++ {
			op, addr, n := script[0]%3, uint64(script[1])|uint64(script[2])<<8, uint64(script[3])
			script = script[5:]
			if op == 0 {
				want := n > 0 && addr+n <= 0x10000
				for i := range n {
					want = want && owner[addr+i] == 0
				}
				err := b.Register("dev", addr, n, edge{t, n})
				if (err == nil) != want {
					t.Fatalf("register %#x+%d: %v", addr, n, err)
				}
				for i := range n {
					if want {
						owner[addr+i] = step + 1
					}
				}
				continue
			}
			n = 1 << (n % 4)
			data := bytes.Repeat([]byte{0x55}, int(n))
			if op == 2 {
				b.Write(addr, data)
				continue
			}
			b.Read(addr, data)
			one := owner[addr] != 0
			for i := range n {
				one = one && owner[addr+i] == owner[addr]
			}
			want := byte(0xff)
			if one {
				want = 0
			}
			if !bytes.Equal(data, bytes.Repeat([]byte{want}, int(n))) {
				t.Fatalf("read %d at %#x: %x, claimed %v", n, addr, data, one)
			}
		}
	})
}
