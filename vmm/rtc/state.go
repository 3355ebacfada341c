package rtc

import (
	"fmt"
	"time"
)

// State is everything about a clock that the guest can observe.
type State struct {
	Index       uint8
	A, B        uint8
	UpdateEnded bool
	// The time at Base.
	Second, Minute, Hour, Weekday, Day, Month, Year, Century int
	// Base is the host's time of the last update, in ns since 1970. The clock
	// goes on with the host's time of the machine that restores it.
	Base   int64
	Memory [cells]uint8
}

// Save returns the state.
func (r *RTC) Save() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advanceLocked()
	c := &r.cal
	return State{
		Index: r.index, A: r.a, B: r.b, UpdateEnded: r.ended,
		Second: c.second, Minute: c.minute, Hour: c.hour,
		Weekday: c.weekday, Day: c.day, Month: c.month, Year: c.year, Century: c.century,
		Base:   r.base.UnixNano(),
		Memory: r.memory,
	}
}

// Restore sets the state. It refuses one that no clock can have, and changes
// nothing then.
func (r *RTC) Restore(s State) error {
	if s.Index >= cells || s.A&aUpdating != 0 || s.B&bSet != 0 && s.B&bUpdateEnable != 0 {
		return fmt.Errorf("restore RTC: not a state of it: index %#x, register A %#x, B %#x", s.Index, s.A, s.B)
	}
	for _, n := range []int{s.Second, s.Minute, s.Hour, s.Weekday, s.Day, s.Month, s.Year, s.Century} {
		if n < 0 || n > 255 {
			return fmt.Errorf("restore RTC: no register holds %d", n)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index, r.a, r.b, r.ended = s.Index, s.A, s.B, s.UpdateEnded
	r.cal = calendar{
		second: s.Second, minute: s.Minute, hour: s.Hour,
		weekday: s.Weekday, day: s.Day, month: s.Month, year: s.Year, century: s.Century,
	}
	r.base = time.Unix(0, s.Base)
	r.memory = s.Memory
	return nil
}
