package apic

// BusHz is the frequency of the bus clock that the timer divides. At 1 GHz a
// tick of the undivided timer is a nanosecond.
const BusHz = 1_000_000_000

// minPeriodNS bounds how often a periodic timer fires. A shorter period would
// expire again before the vCPU has executed an instruction, and the guest would
// stand still. KVM's limit has the same value.
const minPeriodNS = 200_000

// respite is how many times as long as a periodic timer's interrupt took to be
// acknowledged the vCPU is left alone afterwards. A vCPU whose pages are on
// another host may need longer for a tick than a tick's period: it would do
// nothing else, and keep fetching those pages from whoever works with them.
const respite = 8

// maxRespiteNS bounds that time.
const maxRespiteNS = 1_000_000_000

// slowNS is how long an interrupt has to take to be acknowledged for the one-shot
// timer to grant a respite, too: a guest kernel's tick, which it arms anew each
// time, for a time that has passed before it is done. On a CPU with its pages at
// hand it is microseconds.
const slowNS = 2_000_000

// divideBits are the writable bits of the divide configuration register.
const divideBits = 0b1011

// timer is the APIC timer's state. Mode and mask live in the LVT entry. The
// timer counts whether it is masked or not.
//
//	           write initial count != 0
//	stopped ------------------------------> counting
//	   ^                                      |  |
//	   |  write 0, or one-shot expiry         |  | periodic expiry:
//	   +--------------------------------------+  | deadline += period
//	                                          ^--+
type timer struct {
	initial  uint32
	divide   uint32 // divide configuration register
	counting bool
	deadline int64 // Clock time at which the count reaches zero
	accepted int64 // Clock time at which the vCPU took the interrupt in service
	respite  int64 // Clock time before which the one-shot timer does not expire
}

// divisor decodes the divide configuration register (SDM vol. 3, "Divide
// Configuration Register"): ns per tick.
func (t *timer) divisor() int64 {
	code := t.divide&3 | t.divide>>1&4 // bits 3, 1, 0: 0 is 2, 6 is 128, 7 is 1
	return 1 << ((code + 1) & 7)
}

// periodNS returns the time between expiries of the periodic timer.
func (t *timer) periodNS() int64 {
	return max(int64(t.initial)*t.divisor(), minPeriodNS)
}

// NextTimer returns the Clock time at which the timer has an interrupt to
// raise, which may be past. armed is false if it has none: stopped, masked, or
// periodic with its last interrupt still requested or in service, where an
// expiry would change nothing before the EOI. vCPU's thread only.
func (a *APIC) NextTimer() (deadlineNS int64, armed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	entry := a.lvt[lvtTimer]
	if !a.timer.counting || entry&lvtMasked != 0 {
		return 0, false
	}
	if v := uint8(entry); entry&lvtPeriodic != 0 && (a.irr.has(v) || a.isr.has(v)) {
		return 0, false
	}
	return a.timer.deadline, true
}

// Tick raises the timer interrupt if its deadline is at or before nowNS, a
// recent value of Clock. A periodic timer is re-armed by its deadline, so that
// it does not drift; periods missed altogether raise no interrupt of their own.
// vCPU's thread only; Pending may have changed afterwards.
func (a *APIC) Tick(nowNS int64) {
	a.mu.Lock()
	a.advanceTimerLocked(nowNS)
	a.mu.Unlock()
}

func (a *APIC) advanceTimerLocked(now int64) {
	t := &a.timer
	if !t.counting || now < t.deadline {
		return
	}
	entry := a.lvt[lvtTimer]
	var missed int64
	if entry&lvtPeriodic != 0 {
		period := t.periodNS()
		missed = (now - t.deadline) / period
		t.deadline += (missed + 1) * period
	} else {
		t.counting = false
	}
	if entry&lvtMasked != 0 {
		return
	}
	a.stats.TimerFires++
	a.stats.TimerMiss += uint64(missed)
	a.acceptVectorLocked(uint8(entry), false)
}

// acknowledgedLocked puts the next expiry off, if the timer's interrupt took so
// long to be acknowledged that the vCPU could do little else. The periods in
// between count as missed.
func (a *APIC) acknowledgedLocked(vector uint8) {
	entry := a.lvt[lvtTimer]
	if uint8(entry) != vector {
		return
	}
	t := &a.timer
	now := a.clock.NowNS()
	took := now - t.accepted
	next := now + min(respite*took, maxRespiteNS)
	switch {
	case entry&lvtPeriodic == 0:
		if took > slowNS {
			t.respite = next
			t.deadline = max(t.deadline, next)
		}
	case t.counting && next > t.deadline+t.periodNS():
		a.stats.TimerMiss += uint64((next - t.deadline) / t.periodNS())
		t.deadline = next
	}
}

// currentCountLocked returns the current count register. It does not expire
// the timer: that a read finds a periodic count reloaded before Tick ran is as
// on hardware.
func (a *APIC) currentCountLocked(now int64) uint32 {
	t := &a.timer
	if !t.counting {
		return 0
	}
	left := t.deadline - now
	if left <= 0 {
		if a.lvt[lvtTimer]&lvtPeriodic == 0 {
			return 0
		}
		period := t.periodNS()
		left = period - (-left)%period
	}
	div := t.divisor()
	return uint32(min((left+div-1)/div, int64(t.initial)))
}

// writeInitialCountLocked starts the timer, or stops it with 0.
func (a *APIC) writeInitialCountLocked(w uint32, now int64) {
	a.advanceTimerLocked(now)
	t := &a.timer
	t.initial = w
	t.counting = w != 0
	t.deadline = 0
	if t.counting {
		t.deadline = max(now+int64(w)*t.divisor(), t.respite)
		if a.lvt[lvtTimer]&lvtPeriodic != 0 {
			t.deadline = now + t.periodNS()
		}
	}
}

// writeDivideLocked changes the divisor. The count goes on from where it is, at
// the new rate.
func (a *APIC) writeDivideLocked(w uint32, now int64) {
	a.advanceTimerLocked(now)
	t := &a.timer
	old := t.divisor()
	t.divide = w
	if !t.counting {
		return
	}
	left := (t.deadline - now) * t.divisor() / old
	if a.lvt[lvtTimer]&lvtPeriodic != 0 {
		left = min(left, t.periodNS()) // minPeriodNS may have stretched it
	}
	t.deadline = now + left
}
