package rtc

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"
)

// rig is a clock whose host time tests set.
type rig struct {
	*RTC
	host time.Time
}

func newRig(host time.Time) *rig {
	r := &rig{host: host}
	r.RTC = New(func() time.Time { return r.host })
	return r
}

func (r *rig) out(reg, v byte) {
	r.Write(0, []byte{reg})
	r.Write(1, []byte{v})
}

func (r *rig) in(reg byte) byte {
	r.Write(0, []byte{reg})
	var b [1]byte
	r.Read(1, b[:])
	return b[0]
}

var leapEve = time.Date(2024, 2, 28, 23, 59, 58, 250e6, time.UTC) // a Wednesday

// timeRegs are the registers that show the time, in the order of tests below.
var timeRegs = []byte{regSeconds, regMinutes, regHours, regWeekday, regDay, regMonth, regYear, regCentury}

func (r *rig) expect(t *testing.T, what string, want ...byte) {
	t.Helper()
	for i, reg := range timeRegs {
		if got := r.in(reg); got != want[i] {
			t.Errorf("%s: register %#x is %#x, want %#x", what, reg, got, want[i])
		}
	}
}

func TestTime(t *testing.T) {
	r := newRig(leapEve)
	r.expect(t, "at first", 0x58, 0x59, 0x23, 4, 0x28, 2, 0x24, 0x20)
	r.host = r.host.Add(749 * time.Millisecond)
	r.expect(t, "just before the update", 0x58, 0x59, 0x23, 4, 0x28, 2, 0x24, 0x20)
	r.host = r.host.Add(time.Millisecond)
	r.expect(t, "after it", 0x59, 0x59, 0x23, 4, 0x28, 2, 0x24, 0x20)
	r.host = r.host.Add(time.Second)
	r.expect(t, "next day", 0, 0, 0, 5, 0x29, 2, 0x24, 0x20)
	r.out(regB, b24Hour|bBinary)
	r.host = r.host.Add(306*24*time.Hour + 13*time.Hour + 45*time.Minute)
	r.expect(t, "binary", 0, 45, 13, 3, 31, 12, 24, 20)
	r.host = time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC)
	r.expect(t, "end of the century", 59, 59, 23, 5, 31, 12, 99, 20)
	r.host = r.host.Add(time.Second)
	r.expect(t, "next century", 0, 0, 0, 6, 1, 1, 0, 21)
}

func TestHours(t *testing.T) {
	for hour := range 24 {
		r := newRig(time.Date(2024, 1, 1, hour, 0, 0, 0, time.UTC))
		twelve := byte((hour+11)%12 + 1)
		pm := byte(hour / 12 * 0x80)
		bcd := func(n byte) byte { return n/10*16 + n%10 }
		for mode, want := range map[byte]byte{
			b24Hour: bcd(byte(hour)), b24Hour | bBinary: byte(hour), 0: bcd(twelve) | pm, bBinary: twelve | pm,
		} {
			r.out(regB, mode)
			if got := r.in(regHours); got != want {
				t.Errorf("%d h in mode %#x: %#x, want %#x", hour, mode, got, want)
			}
			r.out(regHours, want) // what reads can be written
			r.out(regB, b24Hour|bBinary)
			if got := r.in(regHours); got != byte(hour) {
				t.Errorf("%d h written as %#x in mode %#x: %d h", hour, want, mode, got)
			}
		}
	}
}

func TestStatusRegisters(t *testing.T) {
	r := newRig(leapEve)
	for reg, want := range map[byte]byte{regA: 0x26, regB: 0x02, regC: 0, regD: 0x80} {
		if got := r.in(reg); got != want {
			t.Errorf("register %#x is %#x, want %#x", reg, got, want)
		}
	}
	r.out(regA, 0xaf)
	r.out(regB, 0x7f)
	r.out(regC, 0xff)
	r.out(regD, 0)
	for reg, want := range map[byte]byte{regA: 0x2f, regB: 0x7f, regC: 0, regD: 0x80} {
		if got := r.in(reg); got != want {
			t.Errorf("register %#x is %#x after writing, want %#x", reg, got, want)
		}
	}
	r.out(regB, 0xff)
	if got := r.in(regB); got != 0xef {
		t.Errorf("register B is %#x, want SET to clear the update interrupt enable", got)
	}
	r.out(regB, b24Hour)
	r.host = r.host.Add(time.Second)
	if got := r.in(regC); got != cUpdateEnded {
		t.Errorf("register C is %#x after an update", got)
	}
	if got := r.in(regC); got != 0 {
		t.Errorf("register C is %#x when read again", got)
	}
}

// TestUpdateInProgress walks the host's time in small steps: the flag is clear at
// each second's beginning, set in its last 244 us, and the time does not change
// while it is clear for another 244 us.
func TestUpdateInProgress(t *testing.T) {
	r := newRig(leapEve)
	set, changes := 0, 0
	second := r.in(regSeconds)
	const step = 50 * time.Microsecond
	for range 2 * time.Second / step {
		uip := r.in(regA)&aUpdating != 0
		if uip {
			set++
		}
		r.host = r.host.Add(step)
		if s := r.in(regSeconds); s != second {
			second = s
			changes++
			if !uip {
				t.Error("an update without a warning")
			}
			if r.in(regA)&aUpdating != 0 {
				t.Error("UIP is set after the update")
			}
		}
	}
	if changes != 2 || set < 8 || set > 12 {
		t.Errorf("%d updates, UIP seen %d times", changes, set)
	}
	r.host = leapEve.Truncate(time.Second).Add(3*time.Second - time.Microsecond)
	if r.in(regA)&aUpdating == 0 {
		t.Error("UIP is clear just before an update")
	}
	r.out(regB, bSet)
	if r.in(regA)&aUpdating != 0 {
		t.Error("UIP is set although updates are inhibited")
	}
}

// TestSetLikeLinux sets the time as mc146818_set_time does: SET, divider reset,
// the bytes, SET clear, divider on. The next update comes half a second later.
func TestSetLikeLinux(t *testing.T) {
	r := newRig(leapEve)
	r.out(regB, b24Hour|bSet)
	r.out(regA, 0x70|6)
	for i, v := range []byte{0x59, 0x59, 0x23, 1, 0x31, 0x12, 0x99, 0x19} {
		r.out(timeRegs[i], v)
		r.host = r.host.Add(400 * time.Millisecond)
	}
	r.expect(t, "while set", 0x59, 0x59, 0x23, 1, 0x31, 0x12, 0x99, 0x19)
	r.out(regB, b24Hour)
	r.host = r.host.Add(5 * time.Second)
	r.expect(t, "in divider reset", 0x59, 0x59, 0x23, 1, 0x31, 0x12, 0x99, 0x19)
	r.out(regA, 0x26)
	r.host = r.host.Add(499 * time.Millisecond)
	r.expect(t, "before half a second", 0x59, 0x59, 0x23, 1, 0x31, 0x12, 0x99, 0x19)
	r.host = r.host.Add(time.Millisecond)
	r.expect(t, "after it", 0, 0, 0, 2, 1, 1, 0, 0x20)
	r.host = r.host.Add(59 * time.Second)
	r.expect(t, "it goes on", 0x59, 0, 0, 2, 1, 1, 0, 0x20)
}

// TestSetInhibitsUpdates: time passed under SET is lost, the phase is kept.
func TestSetInhibitsUpdates(t *testing.T) {
	r := newRig(leapEve) // 250 ms after an update
	r.out(regB, b24Hour|bSet)
	r.host = r.host.Add(10 * time.Second)
	if got := r.in(regSeconds); got != 0x58 {
		t.Errorf("%#x seconds under SET", got)
	}
	r.out(regB, b24Hour)
	r.host = r.host.Add(749 * time.Millisecond)
	if got := r.in(regSeconds); got != 0x58 {
		t.Errorf("%#x seconds before the update", got)
	}
	r.host = r.host.Add(time.Millisecond)
	if got := r.in(regSeconds); got != 0x59 {
		t.Errorf("%#x seconds after the update", got)
	}
}

// TestWriteThroughBadDate writes a date byte by byte, without SET, through one
// that does not exist.
func TestWriteThroughBadDate(t *testing.T) {
	r := newRig(time.Date(2023, 1, 31, 12, 0, 0, 0, time.UTC))
	r.out(regMonth, 2)
	r.out(regDay, 0x28)
	r.expect(t, "written", 0, 0, 0x12, 3, 0x28, 2, 0x23, 0x20)
	r.out(regMonth, 0xff)
	r.out(regSeconds, 0xff)
	r.out(regCentury, 0xff)
	r.host = r.host.Add(time.Hour)
	if s := r.in(regSeconds); s > 0x59 {
		t.Errorf("%#x seconds after an update", s)
	}
}

func TestClockSetBack(t *testing.T) {
	r := newRig(leapEve)
	r.host = r.host.Add(-time.Hour)
	r.expect(t, "set back", 0x58, 0x59, 0x23, 4, 0x28, 2, 0x24, 0x20)
	r.host = r.host.Add(time.Second)
	r.expect(t, "a second later", 0x59, 0x59, 0x23, 4, 0x28, 2, 0x24, 0x20)
}

func TestMemory(t *testing.T) {
	r := newRig(leapEve)
	plain := func(reg byte) bool {
		return reg != regCentury && reg > regD || reg == regSecondsAlarm || reg == regMinutesAlarm || reg == regHoursAlarm
	}
	for reg := range byte(cells) {
		if plain(reg) {
			r.out(reg, ^reg)
		}
	}
	for reg := range byte(cells) {
		if got := r.in(reg | 0x80); plain(reg) && got != ^reg { // the NMI mask bit is no address bit
			t.Errorf("cell %#x is %#x", reg, got)
		}
	}
}

func TestAccessSizes(t *testing.T) {
	r := newRig(leapEve)
	r.Write(0, []byte{0x40, 0xab}) // outw: index and data
	b := []byte{0, 0, 0}
	r.Read(0, b)
	if b[0] != 0xff || b[1] != 0xab || b[2] != 0xff {
		t.Errorf("read %x", b)
	}
	r.Write(0, nil)
	r.Read(1, nil)
	r.Write(2, []byte{1})
	if got := r.in(0x40); got != 0xab {
		t.Errorf("cell is %#x", got)
	}
}

func TestSaveRestore(t *testing.T) {
	r := newRig(leapEve)
	r.out(regB, bBinary)
	r.out(regHours, 0x85) // 5 PM
	r.out(0x20, 0x77)
	r.out(regHoursAlarm, 0x12)
	r.host = r.host.Add(time.Second)
	saved := r.Save()
	to := newRig(r.host.Add(10 * time.Second))
	if err := to.Restore(saved); err != nil {
		t.Fatal(err)
	}
	to.expect(t, "restored", 9, 0, 0x86, 4, 28, 2, 24, 20)
	if a, m := to.in(regHoursAlarm), to.in(0x20); a != 0x12 || m != 0x77 {
		t.Errorf("alarm %#x, cell %#x", a, m)
	}
	// Where the host's clock is behind, it goes on at once.
	to = newRig(r.host.Add(-time.Hour))
	if err := to.Restore(saved); err != nil {
		t.Fatal(err)
	}
	to.host = to.host.Add(time.Second)
	to.in(regSeconds)
	to.host = to.host.Add(time.Second)
	to.expect(t, "host behind", 0, 0, 0x86, 4, 28, 2, 24, 20)

	for name, spoil := range map[string]func(s *State){
		"index": func(s *State) { s.Index = cells },
		"A":     func(s *State) { s.A |= aUpdating },
		"B":     func(s *State) { s.B = 0xff },
		"month": func(s *State) { s.Month = 256 },
		"day":   func(s *State) { s.Day = -1 },
		"year":  func(s *State) { s.Year = 300 },
	} {
		s := saved
		spoil(&s)
		if err := to.Restore(s); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
}

// TestReadBackProperty sets random valid times in random modes and checks that
// the clock shows them, and the host's elapsed time on top.
func TestReadBackProperty(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 500 {
		r := newRig(leapEve)
		mode := byte(rng.IntN(4)) << 1
		r.out(regB, mode|bSet)
		at := time.Unix(rng.Int64N(4e9), 0).UTC()
		set := calendarOf(at)
		for _, reg := range timeRegs {
			r.out(reg, r.encode(reg, *set.field(reg)))
		}
		r.out(regB, mode)
		elapsed := time.Duration(rng.Int64N(1e9)) * time.Second
		r.host = r.host.Add(elapsed)
		want := calendarOf(at.Add(elapsed))
		for _, reg := range timeRegs {
			if got := r.in(reg); got != r.encode(reg, *want.field(reg)) {
				t.Fatalf("seed %d: %v + %v: register %#x is %#x in mode %#x", seed, at, elapsed, reg, got, mode)
			}
		}
	}
}

// FuzzRTC plays accesses and time on a clock. Whatever comes, UIP ends within
// 244 us, and the state is one that Restore takes.
func FuzzRTC(f *testing.F) {
	step := func(op, reg byte, v uint32) []byte {
		return binary.LittleEndian.AppendUint32([]byte{op, reg}, v)
	}
	f.Add(append(step(0, regCentury, 0xff), step(2, 0, 1000)...))
	f.Add(append(step(0, regMonth, 0), step(2, 0, 0xffffffff)...))
	f.Fuzz(func(t *testing.T, script []byte) {
		r := newRig(leapEve)
		for ; len(script) >= 6; script = script[6:] {
			v := script[2:6]
			switch script[0] % 4 {
			case 0:
				r.out(script[1], v[0])
			case 1:
				r.in(script[1])
			case 2:
				r.host = r.host.Add(time.Duration(int32(binary.LittleEndian.Uint32(v))) * time.Millisecond << (script[1] & 7))
				if y := r.host.Year(); y < 1700 || y > 2250 { // what Base can hold
					r.host = leapEve
				}
			case 3:
				r.Write(uint64(script[1]&3), v[:script[0]/4%5])
				r.Read(uint64(script[1]&3), v[:script[0]/4%5])
			}
		}
		r.host = r.host.Add(updateTime)
		if r.in(regA)&aUpdating != 0 {
			r.host = r.host.Add(updateTime)
			if r.in(regA)&aUpdating != 0 {
				t.Fatal("UIP is stuck")
			}
		}
		s := r.Save()
		if err := r.Restore(s); err != nil {
			t.Fatal(err)
		}
		if r.Save() != s {
			t.Fatal("restored to something else")
		}
	})
}
