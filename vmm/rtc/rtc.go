// Package rtc is the MC146818 real-time clock of a PC with its battery-backed
// memory, at ports 0x70 and 0x71. It follows the Motorola MC146818A datasheet.
// Linux reads it at boot whatever the ACPI tables say, and polls its update flag
// until that is clear: a port that reads ones costs a boot seconds.
//
// There is no interrupt line. Alarm bytes and interrupt enables are stored
// without effect, and of the flags only "update ended" is ever set.
package rtc

import (
	"sync"
	"time"
)

// Size is the number of ports: the index at 0, the data at 1.
const Size = 2

// Registers.
const (
	regSeconds      = 0x00
	regSecondsAlarm = 0x01
	regMinutes      = 0x02
	regMinutesAlarm = 0x03
	regHours        = 0x04
	regHoursAlarm   = 0x05
	regWeekday      = 0x06 // 1 is Sunday
	regDay          = 0x07
	regMonth        = 0x08
	regYear         = 0x09
	regA            = 0x0a
	regB            = 0x0b
	regC            = 0x0c
	regD            = 0x0d
	// regCentury is where PC firmware keeps it; the datasheet has none.
	regCentury = 0x32
)

// cells is the number of bytes behind the index port; its top bit is the NMI
// mask of old PCs.
const cells = 0x80

// Register A.
const (
	aUpdating = 1 << 7 // UIP, ro
	// Divider codes with both bits set hold the clock in reset.
	aDividerReset = 3 << 5
	aAfterReset   = 0x26 // 32 kHz crystal, 1024 Hz
)

// Register B.
const (
	bSet          = 1 << 7 // updates are inhibited
	bUpdateEnable = 1 << 4
	bBinary       = 1 << 2 // otherwise BCD
	b24Hour       = 1 << 1 // otherwise 12 hours with PM in bit 7
)

const (
	cUpdateEnded = 1 << 4
	dValid       = 1 << 7 // VRT: the battery is good
)

const (
	// updateTime is how long before an update UIP is set: "if the UIP bit is
	// 0, an update cycle will not begin for at least 244 us". The update
	// itself takes no time here.
	updateTime = 244 * time.Microsecond
	// firstUpdate is the time from the end of a divider reset to the first
	// update: "one-half second later". Linux counts on it when it sets the time.
	firstUpdate = 500 * time.Millisecond
)

// RTC is the clock. Its methods may be called by any thread.
type RTC struct {
	now func() time.Time

	mu    sync.Mutex // guards all below
	index uint8
	a, b  uint8
	ended bool     // an update ended since register C was read
	cal   calendar // the time at base
	// base is the host's time at the last update, real or skipped. It may lie
	// up to a second back, or more if the guest has not looked since.
	base time.Time
	// memory holds all other bytes, alarms included, by index.
	memory [cells]uint8
}

// New returns a clock in 24-hour BCD mode that starts with the UTC time of now
// and follows it, in wall-clock time: it goes on while the host sleeps. What the
// guest sets it to counts as an offset.
func New(now func() time.Time) *RTC {
	wall := func() time.Time { return now().Round(0) }
	t := wall()
	return &RTC{
		now:  wall,
		a:    aAfterReset,
		b:    b24Hour,
		cal:  calendarOf(t.UTC()),
		base: t.Add(-time.Duration(t.Nanosecond())),
	}
}

// Read implements bus.Device. A wider access reads consecutive ports.
func (r *RTC) Read(off uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range data {
		data[i] = 0xff // the index port cannot be read
		if off+uint64(i) == 1 {
			data[i] = r.readLocked(r.index)
		}
	}
}

// Write implements bus.Device. A wider access writes consecutive ports.
func (r *RTC) Write(off uint64, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, v := range data {
		switch off + uint64(i) {
		case 0:
			r.index = v & (cells - 1)
		case 1:
			r.writeLocked(r.index, v)
		}
	}
}

// advanceLocked brings the clock to the present and returns the time since the
// last update, less than a second.
func (r *RTC) advanceLocked() time.Duration {
	now := r.now()
	if r.a&aDividerReset == aDividerReset {
		r.base = now.Add(firstUpdate - time.Second)
	}
	if now.Before(r.base) {
		r.base = now // the host's clock was set back: go on from here
	}
	passed := now.Sub(r.base)
	if n := passed / time.Second; n > 0 {
		r.base = r.base.Add(n * time.Second)
		passed -= n * time.Second
		if r.b&bSet == 0 {
			r.cal = r.cal.add(n * time.Second)
			r.ended = true
		}
	}
	return passed
}

func (r *RTC) readLocked(reg uint8) uint8 {
	passed := r.advanceLocked()
	if field := r.cal.field(reg); field != nil {
		return r.encode(reg, *field)
	}
	switch reg {
	case regA:
		if r.b&bSet == 0 && passed >= time.Second-updateTime {
			return r.a | aUpdating
		}
		return r.a
	case regB:
		return r.b
	case regC:
		if r.ended {
			r.ended = false
			return cUpdateEnded
		}
		return 0
	case regD:
		return dValid
	}
	return r.memory[reg]
}

func (r *RTC) writeLocked(reg, v uint8) {
	r.advanceLocked()
	if field := r.cal.field(reg); field != nil {
		*field = r.decode(reg, v)
		return
	}
	switch reg {
	case regA:
		r.a = v &^ aUpdating
	case regB:
		if v&bSet != 0 {
			v &^= bUpdateEnable // "SET going high clears the UIE bit"
		}
		r.b = v
	case regC, regD:
		// Read only.
	default:
		r.memory[reg] = v
	}
}
