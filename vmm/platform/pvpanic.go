package platform

import "strings"

// PanicEvent says what a guest kernel that panics is about to do, in the bits of
// QEMU's pvpanic device (docs/specs/pvpanic.rst).
type PanicEvent uint8

const (
	// Panicked: it stops.
	Panicked PanicEvent = 1 << 0
	// CrashLoaded: it goes on to a crash kernel, which handles the rest.
	CrashLoaded PanicEvent = 1 << 1

	panicEvents = Panicked | CrashLoaded
)

// String names the events.
func (e PanicEvent) String() string {
	var names []string
	if e&Panicked != 0 {
		names = append(names, "panicked")
	}
	if e&CrashLoaded != 0 {
		names = append(names, "crash kernel loaded")
	}
	return strings.Join(names, ", ")
}

// pvpanic is the panic notifier. Reading it gives the events it knows.
type pvpanic struct{ notify func(PanicEvent) }

// Read implements bus.Device.
func (pvpanic) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = byte(panicEvents)
}

// Write implements bus.Device.
func (p pvpanic) Write(_ uint64, data []byte) {
	if e := PanicEvent(data[0]) & panicEvents; e != 0 {
		p.notify(e)
	}
}
