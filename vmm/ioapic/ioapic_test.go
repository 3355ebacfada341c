package ioapic

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"coalesce/vcpu/apic"
)

// rig is an I/O APIC that records its messages.
type rig struct {
	*IOAPIC
	sent []apic.Message
}

func newRig() *rig {
	r := &rig{}
	r.IOAPIC = New(func(m apic.Message) { r.sent = append(r.sent, m) })
	return r
}

// take returns the vectors sent since it was last called.
func (r *rig) take() []uint8 {
	var vectors []uint8
	for _, m := range r.sent {
		vectors = append(vectors, m.Vector)
	}
	r.sent = nil
	return vectors
}

func (r *rig) write(reg uint8, value uint32) {
	r.Write(offSelect, []byte{reg, 0, 0, 0})
	r.Write(offWindow, binary.LittleEndian.AppendUint32(nil, value))
}

func (r *rig) read(reg uint8) uint32 {
	r.Write(offSelect, []byte{reg, 0, 0, 0})
	var b [4]byte
	r.Read(offWindow, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// program writes a pin's entry as Linux does: high half first.
func (r *rig) program(pin int, entry uint64) {
	r.write(uint8(regEntries+2*pin+1), uint32(entry>>32))
	r.write(uint8(regEntries+2*pin), uint32(entry))
}

func TestRegisters(t *testing.T) {
	r := newRig()
	for reg := range 256 {
		want := uint32(0)
		switch {
		case reg == regVersion:
			want = 0x0017_0020
		case reg >= 0x10 && reg < 0x40 && reg%2 == 0:
			want = entryMasked
		}
		if got := r.read(uint8(reg)); got != want {
			t.Errorf("register %#x is %#x after reset, want %#x", reg, got, want)
		}
	}
	for _, c := range []struct {
		reg         uint8
		value, want uint32
	}{
		{regID, 0xffffffff, 0x0f000000}, {regVersion, 0, 0x170020}, {regArbitration, 0, 0x0f000000},
		{0x10, 0xffffffff, 0x0001afff}, {0x11, 0xffffffff, 0xfffe0000}, {0x10, 0, 0}, {0x11, 0, 0},
		{0x3e, 0x1a1ff, 0x1a1ff}, {0x3f, 0x12345678, 0x12340000},
		{0x40, 0xffffffff, 0}, {0xff, 0xffffffff, 0}, {0x03, 1, 0},
	} {
		r.write(c.reg, c.value)
		if got := r.read(c.reg); got != c.want {
			t.Errorf("register %#x: wrote %#x, read %#x, want %#x", c.reg, c.value, got, c.want)
		}
	}
}

func TestAccessSizes(t *testing.T) {
	r := newRig()
	r.program(1, 0x0300_0000_0001_8042)
	read := func(off uint64, n int) string {
		b := slices.Repeat([]byte{0xee}, n)
		r.Read(off, b)
		return fmt.Sprintf("%x", b)
	}
	r.Write(offSelect, []byte{0x12})
	for _, c := range []struct {
		off  uint64
		n    int
		want string
	}{
		{0x00, 4, "12000000"}, {0x00, 1, "12"}, {0x10, 4, "42800100"}, {0x10, 1, "42"}, {0x11, 2, "8001"}, {0x12, 2, "0100"},
		{0x10, 8, "4280010000000000"}, {0x13, 4, "00000000"}, {0x18, 4, "00000000"}, {0x20, 4, "00000000"}, {0x40, 4, "00000000"}, {0xfff, 1, "00"}, {0x10, 0, ""},
	} {
		if got := read(c.off, c.n); got != c.want {
			t.Errorf("%d bytes at %#x: %s, want %s", c.n, c.off, got, c.want)
		}
	}
	// Small writes to IOWIN, and any beside the registers, change nothing.
	r.Write(offWindow, []byte{0})
	r.Write(offWindow, []byte{0, 0})
	r.Write(0x11, []byte{0, 0, 0, 0})
	r.Write(0x20, []byte{0, 0, 0, 0})
	r.Write(offWindow, nil)
	if got := read(offWindow, 4); got != "42800100" {
		t.Errorf("entry is %s after writes that do not count", got)
	}
	r.Write(offWindow, []byte{0x43, 0x80, 1, 0, 0xff, 0xff, 0xff, 0xff})
	if got := read(offWindow, 4); got != "43800100" {
		t.Errorf("entry is %s after 8 bytes", got)
	}
}

func TestMessages(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry uint64
		want  []apic.Message
	}{
		{"fixed", 7<<56 | 0x42, []apic.Message{{Dest: 7, Vector: 0x42}}},
		{"level", 7<<56 | 0x8042, []apic.Message{{Dest: 7, Vector: 0x42, Level: true}}},
		{"active low", 7<<56 | 0xa042, []apic.Message{{Dest: 7, Vector: 0x42, Level: true}}},
		{"lowest priority, logical", 3<<56 | 0x0942, []apic.Message{{Dest: 3, DestMode: apic.Logical, Delivery: apic.LowestPriority, Vector: 0x42}}},
		{"broadcast", 0xff<<56 | 0x42, []apic.Message{{Dest: apic.Broadcast, Vector: 0x42}}},
		{"logical 0xff is cluster 0", 0xff<<56 | 0x0842, []apic.Message{{Dest: 0xff, DestMode: apic.Logical, Vector: 0x42}}},
		{"15-bit destination", 0x12<<56 | 0x2b<<49 | 0x42, []apic.Message{{Dest: 0x2b12, Vector: 0x42}}},
		{"NMI, level is ignored", 0x8402, []apic.Message{{Delivery: apic.NMI, Vector: 2}}},
		{"INIT", 0x0500, []apic.Message{{Delivery: apic.INIT}}},
		{"SMI", 0x0200, []apic.Message{{Delivery: apic.SMI}}},
		{"ExtINT", 0x0700, []apic.Message{{Delivery: apic.ExtINT}}},
		{"reserved 3", 0x0342, nil},
		{"reserved 6", 0x0642, nil},
		{"masked", 0x1_0042, nil},
		{"masked level", 0x1_8042, nil},
	} {
		r := newRig()
		r.program(9, c.entry)
		r.SetLine(9, true)
		for i := range c.want {
			c.want[i].Assert, c.want[i].From = true, apic.FromDevice
		}
		if !slices.Equal(r.sent, c.want) {
			t.Errorf("%s: sent %+v, want %+v", c.name, r.sent, c.want)
		}
		if got := r.Stats().Interrupts[9]; got != uint64(len(c.want)) {
			t.Errorf("%s: counted %d", c.name, got)
		}
	}
}

// TestPin plays one pin: + and - are the line, E an EOI of its vector, e of
// another, X the EOI register, m and u mask and unmask, L and D make it level
// and edge triggered, q and r quiesce and resume. ! wants one message since the
// last mark, . none.
func TestPin(t *testing.T) {
	const vector = 0x55
	for _, script := range []string{
		"u+!+.-.+!", // edge: each rising edge
		"u+!E.e.",   // edge: EOIs mean nothing
		"+.u.-+!",   // edge on a masked pin is lost
		"u+!mu.",    // unmasking is no edge
		"um+-.u.-+!",
		"Lu+!+.-+.",   // level: once until EOI
		"Lu+!E!E!-E.", // still asserted: again
		"Lu+!e.E!",    // another vector's EOI
		"Lu+!-E.+!",
		"Lu+!-+.E!", // reasserted meanwhile: known at EOI
		"L+.u!",     // asserted while masked: sent when unmasked
		"L+-u.",
		"Lu+!mE.u!", // EOI while masked
		"Lu+!mu.E!", // unmasking with remote IRR
		"Lu+!X!-X.", // EOI register
		"+.uL!",     // made level with its line asserted
		"Lu+!DL!",   // made edge: remote IRR is gone
		"Lu+!D.E.-+!",
		"uq+.r!", // quiesced edge
		"uq+-+.r!",
		"uq+mr.u.",
		"Luq+.r!.E!", // quiesced level
		"Luq+-.r.",
		"Lu+!qE.r!",
		"Luq+.r!q.r.E!-",
	} {
		r := newRig()
		entry := uint64(entryMasked | vector)
		r.program(4, entry)
		for i, op := range script {
			switch op {
			case '+', '-':
				r.SetLine(4, op == '+')
			case 'E':
				r.EOI(vector)
			case 'e':
				r.EOI(vector + 1)
			case 'X':
				r.Write(offEOI, []byte{vector, 0, 0, 0})
			case 'm', 'u', 'L', 'D':
				switch op {
				case 'm':
					entry |= entryMasked
				case 'u':
					entry &^= entryMasked
				case 'L':
					entry |= entryLevel
				case 'D':
					entry &^= entryLevel
				}
				r.write(regEntries+8, uint32(entry))
			case 'q':
				r.Quiesce()
			case 'r':
				r.Resume()
			case '!', '.':
				want := []uint8{vector}
				if op == '.' {
					want = nil
				}
				if got := r.take(); !slices.Equal(got, want) {
					t.Errorf("%q at %d: sent %#x, want %#x", script, i, got, want)
				}
			}
		}
		if got := r.take(); len(got) != 0 {
			t.Errorf("%q: %#x sent at its end", script, got)
		}
	}
}

// TestSharedVector ends both pins of a vector with one EOI.
func TestSharedVector(t *testing.T) {
	r := newRig()
	for _, pin := range []int{2, 20} {
		r.program(pin, entryLevel|0x61)
		r.SetLine(pin, true)
	}
	r.take()
	r.SetLine(2, false)
	r.EOI(0x61)
	if got := r.take(); !slices.Equal(got, []uint8{0x61}) {
		t.Errorf("sent %#x, want pin 20's again", got)
	}
	if got := r.Stats(); got.EOIs != 2 || got.Interrupts[20] != 2 || got.Interrupts[2] != 1 {
		t.Errorf("%+v", got)
	}
}

func TestNoSuchPin(t *testing.T) {
	r := newRig()
	for _, pin := range []int{-1, Pins, 1 << 40, -1 << 62} {
		r.SetLine(pin, true)
	}
	if got := r.Save().Lines; got != 0 {
		t.Errorf("lines %#x", got)
	}
}

func TestSaveRestore(t *testing.T) {
	r := newRig()
	r.write(regID, 3<<24)
	r.program(4, 1<<56|0x44)
	r.program(5, 2<<56|entryLevel|entryActiveLow|0x55)
	r.program(6, entryLevel|0x66)
	r.SetLine(6, true)
	r.Quiesce()
	r.SetLine(4, true)
	r.SetLine(5, true)
	if got := r.take(); !slices.Equal(got, []uint8{0x66}) {
		t.Fatalf("sent %#x", got)
	}
	saved := r.Save()
	to := newRig()
	if err := to.Restore(saved); err != nil {
		t.Fatal(err)
	}
	if got := to.Save(); got != saved {
		t.Errorf("restored %+v, want %+v", got, saved)
	}
	to.SetLine(4, true) // devices drive their lines again when restored
	to.SetLine(5, true)
	to.SetLine(6, true)
	if got := to.take(); len(got) != 0 {
		t.Errorf("sent %#x while quiesced", got)
	}
	to.Resume()
	if got := to.take(); !slices.Equal(got, []uint8{0x44, 0x55}) {
		t.Errorf("sent %#x, want what was held back", got)
	}
	to.EOI(0x66)
	if got := to.take(); !slices.Equal(got, []uint8{0x66}) {
		t.Errorf("sent %#x after the EOI", got)
	}

	for name, spoil := range map[string]func(s *State){
		"id":               func(s *State) { s.ID = 16 },
		"lines":            func(s *State) { s.Lines = 1 << Pins },
		"held":             func(s *State) { s.Held = 1 << 31 },
		"reserved":         func(s *State) { s.Entries[7] |= 1 << 17 },
		"delivery status":  func(s *State) { s.Entries[7] |= 1 << 12 },
		"remote IRR, edge": func(s *State) { s.Entries[4] |= entryRemoteIRR },
	} {
		s := saved
		spoil(&s)
		before := to.Save()
		if err := to.Restore(s); err == nil {
			t.Errorf("%s: restored", name)
		}
		if to.Save() != before {
			t.Errorf("%s: a refused state left traces", name)
		}
	}
}

type clock struct{}

func (clock) NowNS() int64 { return 0 }

// machine is two nodes: APIC 0 beside the I/O APIC, APIC 1 on the other node,
// whose messages and EOIs come through router functions.
func machine(t *testing.T) (io *IOAPIC, apics [2]*apic.APIC, kicked [2]chan struct{}) {
	var routers [2]*apic.Router
	routers[0] = apic.NewRouter(func(v uint8) { io.EOI(v) })
	routers[1] = apic.NewRouter(func(v uint8) { io.EOI(v) })
	io = New(func(m apic.Message) { routers[0].Route(m, apic.NoShorthand) })
	for i := range apics {
		kicked[i] = make(chan struct{}, 1)
		apics[i] = apic.New(uint32(i), i == 0, routers[i], clock{})
		if err := apics[i].WriteMSR(apic.MSRSVR, 0x1ff); err != nil {
			t.Fatal(err)
		}
		routers[i].SetLocal(apics[i], func() {
			select {
			case kicked[i] <- struct{}{}:
			default:
			}
		})
		routers[i].SetRemote(uint32(1-i), uint32(1-i))
		routers[i].SetNode(uint32(1-i), func(m apic.Message) {
			d, err := apic.DecodeMessage(m.Append(nil))
			if err != nil {
				t.Error(err)
			}
			routers[1-i].Inject(d)
		})
	}
	return io, apics, kicked
}

// TestLevelRoundTrip takes a level interrupt to each APIC and its EOI back.
func TestLevelRoundTrip(t *testing.T) {
	io, apics, _ := machine(t)
	for i, a := range apics {
		r := rig{IOAPIC: io}
		r.program(10, uint64(i)<<56|entryLevel|0x71)
		accept := func() bool {
			v, ok := a.Pending()
			if ok && v != 0x71 {
				t.Fatalf("APIC %d: vector %#x", i, v)
			}
			a.Accept(v)
			return ok
		}
		end := func() {
			if err := a.WriteMSR(apic.MSREOI, 0); err != nil {
				t.Fatal(err)
			}
		}
		io.SetLine(10, true)
		if !accept() {
			t.Fatalf("APIC %d: no interrupt", i)
		}
		if r.read(regEntries+20)&entryRemoteIRR == 0 {
			t.Errorf("APIC %d: remote IRR is clear in service", i)
		}
		end() // the line is still asserted
		if !accept() {
			t.Fatalf("APIC %d: no second interrupt", i)
		}
		io.SetLine(10, false)
		end()
		if accept() {
			t.Errorf("APIC %d: interrupt of a deasserted line", i)
		}
		if r.read(regEntries+20)&entryRemoteIRR != 0 {
			t.Errorf("APIC %d: remote IRR is set after the EOI", i)
		}
	}
}

// TestConcurrentDevices lets devices queue work and assert level lines while two
// vCPUs serve them: a vCPU takes all of a device's work and deasserts its line,
// as a driver does. All work must be done in the end, driven by interrupts only.
func TestConcurrentDevices(t *testing.T) {
	const devices, each = 4, 2000
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	io, apics, kicked := machine(t)
	type device struct {
		mu   sync.Mutex
		work int
	}
	var devs [devices]device
	r := rig{IOAPIC: io}
	for i := range devs {
		r.program(i, uint64(rng.IntN(2))<<56|entryLevel|uint64(0x40+0x10*i))
	}
	var left atomic.Int64
	left.Store(devices * each)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range devs {
		wg.Go(func() {
			d := &devs[i]
			for range each {
				d.mu.Lock()
				d.work++
				io.SetLine(i, true)
				d.mu.Unlock()
			}
		})
	}
	for i, a := range apics {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Second):
					t.Errorf("seed %d: APIC %d gets no kick", seed, i)
					return
				case <-kicked[i]:
				}
				a.TakeEvents()
				for {
					v, ok := a.Pending()
					if !ok {
						break
					}
					a.Accept(v)
					n := int(v-0x40) / 0x10
					d := &devs[n]
					d.mu.Lock()
					work := d.work
					d.work = 0
					io.SetLine(n, false)
					d.mu.Unlock()
					if err := a.WriteMSR(apic.MSREOI, 0); err != nil {
						t.Error(err)
					}
					if work > 0 && left.Add(-int64(work)) == 0 {
						close(done)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := left.Load(); n != 0 {
		t.Errorf("seed %d: %d left", seed, n)
	}
}

// FuzzIOAPIC plays writes, reads, lines and EOIs. Whatever comes, messages are
// well-formed and the state is one that Restore takes.
func FuzzIOAPIC(f *testing.F) {
	step := func(op, arg byte, v uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{op, arg}, v)
	}
	f.Add(slices.Concat(step(0, 0, 0x18), step(0, 0x10, 0x8055), step(1, 4, 1), step(2, 0x55, 0), step(1, 4, 0), step(3, 0x10, 8)))
	f.Add(slices.Concat(step(0, 0, 0x10), step(0, 0x10, 0x42), step(4, 0, 0), step(1, 0, 1), step(5, 0, 0), step(0, 0x40, 0x42)))
	f.Fuzz(func(t *testing.T, script []byte) {
		sent := 0
		a := New(func(m apic.Message) {
			sent++
			if d, err := apic.DecodeMessage(m.Append(nil)); err != nil || d != m {
				t.Fatalf("message %+v: %+v, %v", m, d, err)
			}
		})
		for ; len(script) >= 6; script = script[6:] {
			arg, v := script[1], script[2:6]
			switch script[0] % 6 {
			case 0:
				a.Write(uint64(arg), v[:4-script[0]/6%5])
			case 1:
				a.SetLine(int(int8(arg)), v[0]&1 != 0)
			case 2:
				a.EOI(arg)
			case 3:
				a.Read(uint64(arg), make([]byte, v[0]&15))
			case 4:
				a.Quiesce()
			case 5:
				a.Resume()
			}
		}
		s := a.Save()
		if err := a.Restore(s); err != nil {
			t.Fatal(err)
		}
		if a.Save() != s {
			t.Fatal("restored to something else")
		}
		n := sent
		a.SetLine(3, true)
		if sent != n {
			t.Fatal("sent while quiesced")
		}
	})
}
