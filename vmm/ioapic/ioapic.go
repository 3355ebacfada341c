// Package ioapic is the I/O APIC: it turns the interrupt lines of devices into
// messages to local APICs. It follows the Intel 82093AA datasheet, with the EOI
// register of version 0x20 (Intel I/O Controller Hub datasheets, "APIC Indirect
// Memory Registers").
//
// Deviations, all as KVM has them:
//
//   - SetLine says asserted or not, whatever the polarity bit says: the bit is
//     stored, and devices need not know what a table announced for them.
//   - Remote IRR is cleared when an entry is made edge triggered. Linux relies
//     on that to get rid of an interrupt nobody ended.
//   - Bits 55:49 of an entry are bits 14:8 of the destination, for guests that
//     were told so in CPUID (KVM_FEATURE_MSI_EXT_DEST_ID); others leave them 0.
package ioapic

import (
	"sync"

	"coalesce/vcpu/apic"
)

// Pins is the number of interrupt inputs.
const Pins = 24

// Size is the length of the MMIO window in bytes.
const Size = 0x1000

// Redirection table entry. Bit 12, delivery status, always reads idle.
const (
	entryVector     = 0xff
	entryDelivery   = 7 << 8
	entryLogical    = 1 << 11
	entryActiveLow  = 1 << 13
	entryRemoteIRR  = 1 << 14 // ro
	entryLevel      = 1 << 15
	entryMasked     = 1 << 16
	entryDestHigh   = 0x7f << 49 // destination bits 14:8
	entryDestLow    = 0xff << 56 // destination bits 7:0
	entryWritable   = entryVector | entryDelivery | entryLogical | entryActiveLow | entryLevel | entryMasked | entryDestHigh | entryDestLow
	entryAfterReset = entryMasked
)

// Stats counts since New.
type Stats struct {
	Interrupts [Pins]uint64 // messages sent, by pin
	EOIs       uint64       // EOIs that ended an interrupt of a pin
}

// IOAPIC is an I/O APIC. Its methods may be called by any thread: Read and Write
// by those of vCPUs, SetLine by devices, EOI by the vCPU that ends an interrupt,
// on this node or another.
//
// A level-triggered pin:
//
//	         asserted, unmasked: send
//	idle ------------------------------> remote IRR
//	  ^                                   |     ^
//	  |  EOI, line deasserted or masked   |     | EOI, still asserted: send again
//	  +-----------------------------------+-----+
//
// An edge-triggered pin sends when its line goes from deasserted to asserted.
// An edge on a masked pin is "ignored (i.e., not delivered or held pending)"
// (82093AA, "Interrupt Mask"); Linux clears the device's causes when it opens
// the line, and replays what it masks itself.
type IOAPIC struct {
	send func(apic.Message)

	// mu guards all below. Messages leave after it is released: what they lead
	// to may come back.
	mu       sync.Mutex
	id       uint8
	selected uint8 // IOREGSEL
	entries  [Pins]uint64
	lines    uint32 // asserted, by pin
	quiet    bool
	held     uint32 // edges that came while quiet, by pin
	stats    Stats
}

// New returns an I/O APIC with all pins masked. send carries its messages to
// local APICs; it is called without a lock held, by the thread whose call made
// the message.
func New(send func(apic.Message)) *IOAPIC {
	a := &IOAPIC{send: send}
	for i := range a.entries {
		a.entries[i] = entryAfterReset
	}
	return a
}

// batch is the messages of one call, at most one of each pin.
type batch struct {
	messages [Pins]apic.Message
	n        int
}

// flush sends the messages. mu must not be held.
func (a *IOAPIC) flush(b *batch) {
	for _, m := range b.messages[:b.n] {
		a.send(m)
	}
}

// SetLine asserts or deasserts a pin's line. Each pin has one device. A pin that
// is not there is ignored.
func (a *IOAPIC) SetLine(pin int, level bool) {
	if pin < 0 || pin >= Pins {
		return
	}
	var out batch
	a.mu.Lock()
	bit := uint32(1) << pin
	rising := level && a.lines&bit == 0
	if level {
		a.lines |= bit
	} else {
		a.lines &^= bit
	}
	switch {
	case isLevel(a.entries[pin]):
		a.serviceLocked(pin, &out)
	case rising && a.entries[pin]&entryMasked == 0:
		a.edgeLocked(pin, &out)
	}
	a.mu.Unlock()
	a.flush(&out)
}

// EOI ends the level-triggered interrupts with this vector; a pin that is still
// asserted interrupts again.
func (a *IOAPIC) EOI(vector uint8) {
	var out batch
	a.mu.Lock()
	a.eoiLocked(vector, &out)
	a.mu.Unlock()
	a.flush(&out)
}

func (a *IOAPIC) eoiLocked(vector uint8, out *batch) {
	for pin := range a.entries {
		e := &a.entries[pin]
		if uint8(*e) == vector && *e&entryRemoteIRR != 0 {
			*e &^= entryRemoteIRR
			a.stats.EOIs++
			a.serviceLocked(pin, out)
		}
	}
}

// isLevel reports whether a pin is level triggered. "NMI ... is treated as an
// edge triggered interrupt even if it is programmed as a level triggered
// interrupt" (82093AA, "Delivery Mode"), and so are the others without an EOI.
func isLevel(entry uint64) bool {
	d := delivery(entry)
	return entry&entryLevel != 0 && (d == apic.Fixed || d == apic.LowestPriority)
}

func delivery(entry uint64) apic.Delivery { return apic.Delivery(entry & entryDelivery >> 8) }

// serviceLocked sends the interrupt of a level-triggered pin if there is one to
// send. While quiet there is not: Resume looks again.
func (a *IOAPIC) serviceLocked(pin int, out *batch) {
	e := &a.entries[pin]
	if a.quiet || !isLevel(*e) || *e&(entryMasked|entryRemoteIRR) != 0 || a.lines>>pin&1 == 0 {
		return
	}
	*e |= entryRemoteIRR
	a.sendLocked(pin, out)
}

// edgeLocked sends the interrupt of an edge-triggered pin.
func (a *IOAPIC) edgeLocked(pin int, out *batch) {
	if a.quiet {
		a.held |= 1 << pin
		return
	}
	a.sendLocked(pin, out)
}

// sendLocked adds the message of a pin to out.
func (a *IOAPIC) sendLocked(pin int, out *batch) {
	e := a.entries[pin]
	m := apic.Message{
		Dest:     uint32(e>>56) | uint32(e&entryDestHigh>>49)<<8,
		Delivery: delivery(e),
		Vector:   uint8(e),
		Level:    isLevel(e),
		Assert:   true,
		From:     apic.FromDevice,
	}
	switch {
	case m.Delivery == apic.SIPI || m.Delivery == 3:
		return // reserved here
	case e&entryLogical != 0:
		m.DestMode = apic.Logical
	case m.Dest == 0xff:
		// The broadcast id of an 8-bit destination field.
		m.Dest = apic.Broadcast
	}
	out.messages[out.n] = m
	out.n++
	a.stats.Interrupts[pin]++
}

// Stats returns the counters.
func (a *IOAPIC) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stats
}
