package ioapic

import "fmt"

// State is everything about an I/O APIC that the guest can observe, and the
// lines.
type State struct {
	ID       uint8
	Selected uint8
	Entries  [Pins]uint64
	Lines    uint32 // asserted, by pin
	Held     uint32 // edges not sent because of Quiesce, by pin
}

// Quiesce holds messages back until Resume: lines and registers still change,
// but nothing leaves. A message that another call is just sending may still do.
func (a *IOAPIC) Quiesce() {
	a.mu.Lock()
	a.quiet = true
	a.mu.Unlock()
}

// Resume sends what Quiesce held back and what is due since.
func (a *IOAPIC) Resume() {
	var out batch
	a.mu.Lock()
	a.quiet = false
	for pin := range a.entries {
		switch {
		case isLevel(a.entries[pin]):
			a.serviceLocked(pin, &out)
		case a.held>>pin&1 != 0 && a.entries[pin]&entryMasked == 0:
			a.sendLocked(pin, &out)
		}
	}
	a.held = 0
	a.mu.Unlock()
	a.flush(&out)
}

// Save returns the state. Unless the I/O APIC is quiesced and the vCPUs are
// stopped, it is outdated at once.
func (a *IOAPIC) Save() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return State{ID: a.id, Selected: a.selected, Entries: a.entries, Lines: a.lines, Held: a.held}
}

// Restore sets the state and leaves the I/O APIC quiesced: Resume sends what is
// due once the local APICs are restored. It refuses a state that no I/O APIC can
// have, and changes nothing then.
func (a *IOAPIC) Restore(s State) error {
	if s.ID > 0xf || s.Lines>>Pins != 0 || s.Held>>Pins != 0 {
		return fmt.Errorf("restore I/O APIC: not a state of it: id %d, lines %#x, held %#x", s.ID, s.Lines, s.Held)
	}
	for pin, e := range s.Entries {
		if e&^(entryWritable|entryRemoteIRR) != 0 || e&entryRemoteIRR != 0 && !isLevel(e) {
			return fmt.Errorf("restore I/O APIC: not an entry of pin %d: %#x", pin, e)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.id, a.selected, a.entries = s.ID, s.Selected, s.Entries
	a.lines, a.held = s.Lines, s.Held
	a.quiet = true
	return nil
}
