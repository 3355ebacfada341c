package rtc

import "time"

// calendar is a time as the guest sees it. A guest that sets it passes through
// dates that do not exist; they are kept as they are until the next update.
type calendar struct {
	second, minute, hour, weekday, day, month, year, century int
}

// calendarOf returns a time whose year the registers can show, or that modulo
// 10,000.
func calendarOf(t time.Time) calendar {
	year := (t.Year() + 10_000) % 10_000
	return calendar{
		second: t.Second(), minute: t.Minute(), hour: t.Hour(),
		weekday: int(t.Weekday()) + 1,
		day:     t.Day(), month: int(t.Month()), year: year % 100, century: year / 100,
	}
}

// add returns the time d later. The day of the week counts on by itself, as on
// hardware: it is whatever the guest says it is.
func (c calendar) add(d time.Duration) calendar {
	from := time.Date(100*c.century+c.year, time.Month(c.month), c.day, c.hour, c.minute, c.second, 0, time.UTC)
	to := from.Add(d)
	const day = 24 * 60 * 60
	days := int(floorDiv(to.Unix(), day) - floorDiv(from.Unix(), day))
	sum := calendarOf(to)
	sum.weekday = (c.weekday+6+days%7)%7 + 1
	return sum
}

// floorDiv rounds towards minus infinity; n > 0.
func floorDiv(x, n int64) int64 {
	q := x / n
	if x%n < 0 {
		q--
	}
	return q
}

// field returns the part of the time that a register holds, or nil.
func (c *calendar) field(reg uint8) *int {
	switch reg {
	case regSeconds:
		return &c.second
	case regMinutes:
		return &c.minute
	case regHours:
		return &c.hour
	case regWeekday:
		return &c.weekday
	case regDay:
		return &c.day
	case regMonth:
		return &c.month
	case regYear:
		return &c.year
	case regCentury:
		return &c.century
	}
	return nil
}

// hourPM is bit 7 of the hours in 12-hour mode.
const hourPM = 0x80

// encode returns a number as the register shows it in the modes of register B.
func (r *RTC) encode(reg uint8, n int) uint8 {
	var pm uint8
	if reg == regHours && r.b&b24Hour == 0 {
		if n%24 >= 12 {
			pm = hourPM
		}
		n = (n+11)%12 + 1 // 0 is 12 AM, 12 is 12 PM
	}
	if r.b&bBinary != 0 {
		return uint8(n) | pm
	}
	return uint8(n/10<<4|n%10) | pm
}

// decode is the inverse of encode. A byte that is no number of the mode gives
// some number from 0 to 255.
func (r *RTC) decode(reg, v uint8) int {
	pm := 0
	twelve := reg == regHours && r.b&b24Hour == 0
	if twelve {
		pm = int(v&hourPM) / hourPM * 12
		v &^= hourPM
	}
	n := int(v)
	if r.b&bBinary == 0 {
		n = int(v>>4)*10 + int(v&0xf)
	}
	if twelve {
		n = n%12 + pm
	}
	return n
}
