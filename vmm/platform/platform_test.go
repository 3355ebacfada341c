package platform

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"

	"coalesce/vmm/bus"
)

// machine is a port bus with the registers on it and a log of what they tell.
type machine struct {
	*Platform
	ports *bus.Bus

	mu  sync.Mutex
	log []string
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{ports: bus.NewPorts()}
	p, err := Register(m.ports, Config{
		PowerOff:     func() { m.note("power off") },
		Reset:        func(by string) { m.note("reset by " + by) },
		Panic:        func(e PanicEvent) { m.note("panic: " + e.String()) },
		GEDInterrupt: func(level bool) { m.note(fmt.Sprint("line ", level)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Platform = p
	return m
}

func (m *machine) note(s string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, s)
}

// told returns the log and empties it.
func (m *machine) told() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.log
	m.log = nil
	return l
}

func (m *machine) in(port uint64) byte {
	var b [1]byte
	m.ports.Read(port, b[:])
	return b[0]
}

func (m *machine) out(port uint64, v byte) { m.ports.Write(port, []byte{v}) }

// TestWrites checks what single writes to a fresh machine cause and leave behind.
func TestWrites(t *testing.T) {
	for _, tc := range []struct {
		name  string
		port  uint64
		value byte
		told  string // "" for nothing
		reads byte   // of the same port afterwards
	}{
		{"S5", 0x600, 5<<2 | 1<<5, "power off", 5 << 2},
		{"S5, other bits set", 0x600, 0xff &^ (2 << 2), "power off", 5 << 2},
		{"S5 without enable", 0x600, 5 << 2, "", 5 << 2},
		{"S3", 0x600, 3<<2 | 1<<5, "", 3 << 2},
		{"wake status", 0x601, 0x80, "", 0},
		{"sleep status is not control", 0x601, 5<<2 | 1<<5, "", 0},
		{"reset", 0x602, 1, "reset by ACPI reset register", 0},
		{"reset with another value", 0x602, 2, "", 0},
		{"cf9 prepares", 0xcf9, 0x02, "", 0x02},
		{"cf9 soft reset", 0xcf9, 0x04, "reset by reset control register", 0x04},
		{"cf9 hard reset", 0xcf9, 0x06, "reset by reset control register", 0x06},
		{"cf9 full reset", 0xcf9, 0x0e, "reset by reset control register", 0x0e},
		{"cf9 other bits", 0xcf9, 0xf1, "", 0},
		{"keyboard reset", 0x64, 0xfe, "reset by keyboard controller", 0},
		{"keyboard command", 0x64, 0xaa, "", 0},
		{"panic", 0x505, 1, "panic: panicked", 3},
		{"crash loaded", 0x505, 2, "panic: crash kernel loaded", 3},
		{"both", 0x505, 3, "panic: panicked, crash kernel loaded", 3},
		{"unknown panic event", 0x505, 0xfc, "", 3},
		{"PIT control", 0x43, 0xb0, "", 0},
		{"PIT channel 2", 0x42, 0xff, "", 0},
		{"system control", 0x61, 0x03, "", 0},
		{"debug port", 0x80, 0x55, "", 0},
		{"GED is read-only", 0x610, 0xff, "", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := newMachine(t)
			m.out(tc.port, tc.value)
			var want []string
			if tc.told != "" {
				want = []string{tc.told}
			}
			if got := m.told(); !slices.Equal(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
			if got := m.in(tc.port); got != tc.reads {
				t.Errorf("reads %#02x, want %#02x", got, tc.reads)
			}
		})
	}
}

// TestLinuxReboot does what native_machine_emergency_restart writes for
// reboot=p and reboot=k.
func TestLinuxReboot(t *testing.T) {
	m := newMachine(t)
	v := m.in(0xcf9) &^ 0x0e
	m.out(0xcf9, v|2)
	if got := m.told(); got != nil {
		t.Errorf("told %q too early", got)
	}
	m.out(0xcf9, v|0x0e)
	m.out(0xcf9, v|0x0e) // still set: no second reset
	if got := m.told(); len(got) != 1 {
		t.Errorf("told %q", got)
	}
	if m.in(0x64)&2 != 0 {
		t.Error("the keyboard controller's input buffer is full for ever")
	}
	m.out(0x64, 0xfe)
	if got := m.told(); len(got) != 1 {
		t.Errorf("told %q", got)
	}
}

func TestWideReads(t *testing.T) {
	m := newMachine(t)
	for port, n := range map[uint64]int{0x40: 4, 0x42: 2, 0x600: 2, 0x610: 2} {
		b := bytes.Repeat([]byte{0xff}, n)
		m.ports.Read(port, b)
		if !bytes.Equal(b, make([]byte, n)) {
			t.Errorf("%d bytes at %#x read %x", n, port, b)
		}
	}
}

func TestGED(t *testing.T) {
	m := newMachine(t)
	read := func() []byte {
		b := make([]byte, 4)
		m.ports.Read(PortGED, b)
		return b
	}
	want := func(when string, line ...string) {
		t.Helper()
		if got := m.told(); !slices.Equal(got, line) {
			t.Errorf("%s: told %q, want %q", when, got, line)
		}
	}
	m.Notify(0)
	want("no event")
	m.Notify(1 << 31)
	want("first event", "line true")
	m.Notify(2)
	want("second event")
	m.in(PortGED)
	want("a byte read takes nothing")
	if got := read(); !bytes.Equal(got, []byte{2, 0, 0, 0x80}) {
		t.Errorf("events are %x", got)
	}
	want("read", "line false")
	if got := read(); !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("events after the read are %x", got)
	}
	want("read again")
	m.Notify(4)
	want("next event", "line true")
}

func TestSaveRestore(t *testing.T) {
	a := newMachine(t)
	a.out(PortSleepControl, 3<<2)
	a.out(PortResetControl, 2)
	a.Notify(9)
	b := newMachine(t)
	b.Restore(a.Save())
	if got := b.told(); !slices.Equal(got, []string{"line true"}) {
		t.Errorf("restoring told %q", got)
	}
	if a.Save() != b.Save() || b.Save() != (State{3 << 2, 2, 9}) {
		t.Errorf("saved %+v, restored %+v", a.Save(), b.Save())
	}
}

func TestRegisterRefusesTakenPorts(t *testing.T) {
	m := newMachine(t)
	if _, err := Register(m.ports, Config{}); err == nil {
		t.Error("registered twice")
	}
}

// TestConcurrentEvents: no event is lost between notifiers and a reading guest,
// and the line's level alternates.
func TestConcurrentEvents(t *testing.T) {
	m := newMachine(t)
	const rounds = 2000
	line := make(chan struct{}, 4*rounds)
	up := false
	m.ged.setLine = func(level bool) {
		if level == up {
			t.Errorf("line is set to %v twice", level)
		}
		if up = level; level {
			line <- struct{}{}
		}
	}
	var wg sync.WaitGroup
	acked := [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}
	for i := range acked {
		wg.Go(func() {
			for range rounds {
				m.Notify(1 << i)
				<-acked[i]
			}
		})
	}
	for n := 0; n < 2*rounds; {
		<-line
		b := make([]byte, 4)
		m.ports.Read(PortGED, b)
		for i := range acked {
			if b[0]>>i&1 != 0 {
				n++
				acked[i] <- struct{}{}
			}
		}
	}
	wg.Wait()
	if m.Save().GEDEvents != 0 {
		t.Error("events are left over")
	}
}

// FuzzPorts plays a script of accesses, three bytes a step: whatever a guest
// writes, reads fill their data and power goes off only through S5.
func FuzzPorts(f *testing.F) {
	f.Add([]byte{0x00, 0x06, 0x34, 0x02, 0x06, 0x01, 0xf9, 0x0c, 0x06, 0x64, 0x00, 0xfe})
	f.Add([]byte{0x05, 0x05, 0x03, 0x10, 0x86, 0x00, 0x10, 0x06, 0x01})
	f.Fuzz(func(t *testing.T, script []byte) {
		m := newMachine(t)
		for step := 0; len(script) >= 3 && step < 200; step++ {
			port, v := uint64(script[0])|uint64(script[1]&0x0f)<<8, script[2]
			read, size := script[1]&0x80 != 0, 1<<(script[1]>>4&3)
			script = script[3:]
			if read {
				a, b := bytes.Repeat([]byte{0x55}, size), bytes.Repeat([]byte{0xaa}, size)
				m.ports.Read(port, a)
				m.ports.Read(port, b)
				if !bytes.Equal(a, b) {
					t.Fatalf("read of %d at %#x is %x, then %x", size, port, a, b)
				}
				continue
			}
			m.ports.Write(port, bytes.Repeat([]byte{v}, size))
			off := port == PortSleepControl && size <= 2 && v&0x3c == 0x34
			if got := slices.Contains(m.told(), "power off"); got != off {
				t.Fatalf("write of %#x to %#x: power off %v", v, port, got)
			}
		}
	})
}

// TestResetVector runs the reset vector's code, as far as it uses a handful of
// instructions, up to its HLT.
func TestResetVector(t *testing.T) {
	m := newMachine(t)
	code := ResetVector()
	if len(code) > 0x100000-ResetVectorGPA {
		t.Fatalf("%d bytes do not fit below 1 MiB", len(code))
	}
	var al byte
	var dx uint64
	for ip := 0; ; {
		switch code[ip] {
		case 0xb0: // mov al, imm8
			al, ip = code[ip+1], ip+2
		case 0xba: // mov dx, imm16
			dx, ip = uint64(code[ip+1])|uint64(code[ip+2])<<8, ip+3
		case 0xee: // out dx, al
			m.out(dx, al)
			ip++
		case 0xf4: // hlt
			if got := m.told(); !slices.Equal(got, []string{"reset by ACPI reset register"}) {
				t.Errorf("told %q", got)
			}
			if !bytes.Equal(code[ip+1:], []byte{0xeb, 0xfd}) {
				t.Errorf("after the HLT comes %x", code[ip+1:])
			}
			return
		default:
			t.Fatalf("unknown instruction %#x", code[ip])
		}
	}
}
