package apic

import (
	"fmt"
	"sync"
)

// Bus is where an APIC's messages go. Both methods are called on the vCPU's
// thread with no lock of the APIC held. Router implements it.
type Bus interface {
	// Send routes an IPI that left this APIC. Messages for this APIC alone
	// (self IPI, its own physical id) are done locally and do not come here;
	// broadcasts and groups that contain it do.
	Send(m Message, shorthand Shorthand)
	// EOI announces the end of a level-triggered interrupt to every IOAPIC.
	EOI(vector uint8)
}

// Clock is the time the APIC timer counts by. NowNS is monotonic, in
// nanoseconds, callable by any thread, and does not call back into the APIC.
type Clock interface {
	NowNS() int64
}

// Activity is what a vCPU does when nothing is delivered to it.
type Activity uint8

const (
	// Running: executes guest code.
	Running Activity = iota
	// Halted: executed HLT; an interrupt, NMI or INIT wakes it.
	Halted
	// WaitForSIPI: after INIT, and an AP's first state; only a SIPI starts it.
	WaitForSIPI
)

func (s Activity) String() string {
	switch s {
	case Running:
		return "running"
	case Halted:
		return "halted"
	case WaitForSIPI:
		return "wait-for-SIPI"
	}
	return fmt.Sprintf("activity %d", uint8(s))
}

// Events is what TakeEvents hands to a vCPU, to be carried out in the order of
// the fields. If INIT is set, the APIC has been reset already and the vCPU
// resets its registers.
type Events struct {
	INIT       bool
	SIPI       bool
	SIPIVector uint8 // the vCPU starts at SIPIVector << 12
	NMI        bool
}

// lifecycle is a vCPU's activity and the events latched for it.
//
//	          HLT
//	Running --------> Halted
//	 | ^ ^  intr, NMI  |
//	 | | +-------------+
//	 | |               |
//	 | | SIPI     INIT |
//	 | +---------+     |
//	 |  INIT     |     v
//	 +-------> WaitForSIPI <-+
//	               |   INIT  |
//	               +---------+
//
// Deliver latches; TakeEvents makes the transitions. A latched INIT counts as
// WaitForSIPI for what arrives after it, so that INIT-SIPI works however late
// the vCPU looks. Of two latched SIPIs the first one counts, as on hardware the
// second finds the CPU running.
//
// An INIT discards what was latched before it. An NMI in WaitForSIPI is
// dropped, not kept: it would hit the first instruction of the trampoline,
// which has no handler.
//
// Deviation: an INIT puts the BSP into WaitForSIPI, too. Hardware sends it to
// the reset vector, but this machine has no firmware there.
type lifecycle struct {
	activity Activity
	init     bool
	sipi     bool
	nmi      bool
	vector   uint8 // of the latched SIPI
}

// waiting reports whether a SIPI that arrives now is honoured.
func (l *lifecycle) waiting() bool {
	return (l.init || l.activity == WaitForSIPI) && !l.sipi
}

// Stats counts since New. Restore does not change it: it is what happened on
// this node.
type Stats struct {
	Sent       [8]uint64 // IPIs written to ICR or SELF IPI, by Delivery
	Delivered  uint64    // messages and local interrupts that changed the state
	Coalesced  uint64    // those that found their IRR bit or event set already
	Dropped    uint64    // those that an APIC in this state ignores
	Accepted   uint64    // interrupts given to the vCPU
	EOIs       uint64    // writes to EOI that ended an interrupt
	LevelEOIs  uint64    // of these, broadcast to the IOAPIC
	TimerFires uint64    // timer interrupts raised
	TimerMiss  uint64    // periods that passed before the one before was raised
}

// APIC is the local x2APIC of one vCPU. The package comment says who may call
// what.
type APIC struct {
	id    uint32
	bsp   bool
	bus   Bus
	clock Clock

	// mu guards all below. Critical sections are tens of nanoseconds and make
	// no call but Clock.NowNS.
	mu sync.Mutex

	irr, isr, tmr vectorSet
	tpr           uint8
	svr           uint32
	esr           uint32 // as the guest reads it
	esrPending    uint32 // logged since the guest wrote it
	icr           uint64
	lvt           [numLVT]uint32
	timer         timer
	life          lifecycle

	// kicked is set from the Deliver that asked for a kick until TakeEvents.
	kicked bool
	stats  Stats
}

// New returns the APIC with this id in its reset state: software-disabled, in
// x2APIC mode. The BSP is Running, an AP is in WaitForSIPI. bus and clock must
// not be nil; id must not be Broadcast.
func New(id uint32, bsp bool, bus Bus, clock Clock) *APIC {
	a := &APIC{id: id, bsp: bsp, bus: bus, clock: clock}
	a.resetLocked() // nobody else has it yet
	if !bsp {
		a.life.activity = WaitForSIPI
	}
	return a
}

// ID returns the x2APIC id.
func (a *APIC) ID() uint32 { return a.id }

// Base returns the value of IA32_APIC_BASE: enabled, x2APIC mode, and the BSP
// flag. It never changes.
func (a *APIC) Base() uint64 {
	const base, enable, extd, bsp = 0xfee0_0000, 1 << 11, 1 << 10, 1 << 8
	if a.bsp {
		return base | enable | extd | bsp
	}
	return base | enable | extd
}

// resetLocked puts the registers into their state after INIT (SDM vol. 3,
// "Local APIC State After It Receives an INIT-Deassert" and "x2APIC States"):
// the id, and with it the LDR, and x2APIC mode stay.
func (a *APIC) resetLocked() {
	a.irr, a.isr, a.tmr = vectorSet{}, vectorSet{}, vectorSet{}
	a.tpr = 0
	a.svr = 0xff
	a.esr, a.esrPending = 0, 0
	a.icr = 0
	for i := range a.lvt {
		a.lvt[i] = lvtMasked
	}
	a.timer = timer{}
}

// Matches reports whether a message with this destination is for this APIC.
// Any thread.
func (a *APIC) Matches(dest uint32, mode DestMode) bool { return matches(a.id, dest, mode) }

// Deliver hands the APIC a message that is for it; the destination is not
// looked at. Any thread. If kick is true the caller makes the vCPU's thread
// pass through TakeEvents and Pending again: wakes it, or kicks it out of the
// guest. Requests are coalesced as the package comment explains.
func (a *APIC) Deliver(m Message) (kick bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.receiveLocked(m) || a.kicked {
		return false
	}
	a.kicked = true
	return true
}

// deliverSelf is Deliver on the APIC's own vCPU thread, which needs no kick.
func (a *APIC) deliverSelf(m Message) {
	a.mu.Lock()
	a.receiveLocked(m)
	a.mu.Unlock()
}

// receiveLocked takes in a message and reports whether the vCPU has something
// new to look at.
func (a *APIC) receiveLocked(m Message) (news bool) {
	if !m.Assert && (m.Level || m.Delivery == INIT) {
		a.stats.Dropped++
		return false
	}
	switch m.Delivery {
	case Fixed, LowestPriority:
		return a.acceptVectorLocked(m.Vector, m.Level)
	case NMI:
		if a.life.waiting() {
			break
		}
		return a.latchLocked(&a.life.nmi)
	case INIT:
		a.life.nmi, a.life.sipi = false, false
		return a.latchLocked(&a.life.init)
	case SIPI:
		if !a.life.waiting() {
			break
		}
		a.life.vector = m.Vector
		return a.latchLocked(&a.life.sipi)
	}
	a.stats.Dropped++
	return false
}

// latchLocked sets an event and reports whether it was clear.
func (a *APIC) latchLocked(event *bool) bool {
	if *event {
		a.stats.Coalesced++
		return false
	}
	*event = true
	a.stats.Delivered++
	return true
}

// acceptVectorLocked puts a fixed interrupt into IRR and TMR. A
// software-disabled APIC drops it (SDM vol. 3, "Local APIC State After It Has
// Been Software Disabled").
func (a *APIC) acceptVectorLocked(vector uint8, level bool) (news bool) {
	if !a.enabledLocked() {
		a.stats.Dropped++
		return false
	}
	if vector < firstVector {
		a.stats.Dropped++
		return a.errorLocked(esrReceiveIllegalVector)
	}
	// "Upon acceptance of an interrupt into the IRR, the corresponding TMR bit
	// is cleared for edge-triggered interrupts and set for level-triggered
	// interrupts" (SDM vol. 3, "Interrupt Acceptance for Fixed Interrupts").
	if level {
		a.tmr.set(vector)
	} else {
		a.tmr.clear(vector)
	}
	if a.irr.has(vector) {
		a.stats.Coalesced++
		return false
	}
	a.irr.set(vector)
	a.stats.Delivered++
	return true
}

// errorLocked logs an error for the ESR and raises the LVT error interrupt,
// once until the guest writes the ESR.
func (a *APIC) errorLocked(bit uint32) (news bool) {
	raise := a.esrPending == 0
	a.esrPending |= bit
	entry := a.lvt[lvtError]
	if !raise || entry&lvtMasked != 0 {
		return false
	}
	if vector := uint8(entry); vector >= firstVector {
		return a.acceptVectorLocked(vector, false)
	}
	a.esrPending |= esrReceiveIllegalVector
	return false
}

// enabledLocked reports whether the APIC is software-enabled.
func (a *APIC) enabledLocked() bool { return a.svr&svrEnable != 0 }

// ppr returns the processor priority for a task priority and the set in
// service (SDM vol. 3, "Task and Processor Priorities").
func ppr(tpr uint8, isr *vectorSet) uint8 {
	if v, ok := isr.highest(); ok && v&0xf0 > tpr&0xf0 {
		return v & 0xf0
	}
	return tpr
}

// Pending returns the vector the vCPU would take if it accepted interrupts now:
// the highest one requested, if its priority class is above the processor's and
// the APIC is software-enabled.
func (a *APIC) Pending() (vector uint8, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	v, ok := a.irr.highest()
	if !ok || !a.enabledLocked() || v&0xf0 <= ppr(a.tpr, &a.isr)&0xf0 {
		return 0, false
	}
	return v, true
}

// Accept says that the vCPU takes the vector that Pending returned: it moves
// from IRR to ISR and raises the processor priority. A vector that is not
// requested is ignored.
func (a *APIC) Accept(vector uint8) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.irr.has(vector) {
		return
	}
	a.irr.clear(vector)
	a.isr.set(vector)
	a.stats.Accepted++
	if vector == uint8(a.lvt[lvtTimer]) {
		a.timer.accepted = a.clock.NowNS()
	}
}

// TakeEvents re-arms the kick, takes the latched events and makes their
// transitions: an INIT resets the registers and leaves WaitForSIPI, a SIPI
// leaves Running. An NMI leaves the activity to the vCPU that injects it.
func (a *APIC) TakeEvents() Events {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.kicked = false
	l := &a.life
	e := Events{INIT: l.init, SIPI: l.sipi, NMI: l.nmi}
	if e.INIT {
		a.resetLocked()
		l.activity = WaitForSIPI
	}
	if e.SIPI {
		e.SIPIVector = l.vector
		l.activity = Running
	}
	*l = lifecycle{activity: l.activity}
	return e
}

// Activity returns what the vCPU does when nothing is delivered to it.
func (a *APIC) Activity() Activity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.life.activity
}

// SetActivity records a transition that the vCPU makes itself: to Halted at
// HLT, to Running when an interrupt or NMI wakes it.
func (a *APIC) SetActivity(s Activity) {
	a.mu.Lock()
	a.life.activity = s
	a.mu.Unlock()
}

// TPR returns the task priority class as CR8 holds it: TPR bits 7:4.
func (a *APIC) TPR() (cr8 uint8) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tpr >> 4
}

// SetTPR sets the task priority from CR8 (bits 3:0). Setting the class it has
// already changes nothing, so that mirroring CR8 after each exit keeps the
// sub-class that a write to the TPR register set.
func (a *APIC) SetTPR(cr8 uint8) {
	a.mu.Lock()
	if cr8 &= 0xf; cr8 != a.tpr>>4 {
		a.tpr = cr8 << 4
	}
	a.mu.Unlock()
}

// Stats returns the counters. Any thread.
func (a *APIC) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}

// arbitration returns the processor priority for lowest-priority arbitration;
// a software-disabled APIC takes no part.
func (a *APIC) arbitration() (priority uint8, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return ppr(a.tpr, &a.isr), a.enabledLocked()
}
