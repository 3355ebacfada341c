package platform

import (
	"encoding/binary"
	"sync"
)

// gedSize is the register's size in bytes.
const gedSize = 4

// ged is the event register behind ACPI's Generic Event Device (ACPI 6.5, 5.6.9):
// the guest's _EVT method reads it to learn which events its interrupt stands
// for, and reading clears it. The line is up while events are pending, which
// makes the interrupt right for edge and level triggering alike: an event that
// comes while the line is up is found by the read that will lower it.
type ged struct {
	setLine func(level bool)

	mu     sync.Mutex
	events uint32
}

func newGED(setLine func(level bool)) *ged { return &ged{setLine: setLine} }

// Read implements bus.Device. Only the whole register can be read.
func (g *ged) Read(_ uint64, data []byte) {
	clear(data)
	if len(data) != gedSize {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	binary.LittleEndian.PutUint32(data, g.events)
	if g.events != 0 {
		g.events = 0
		g.setLine(false)
	}
}

// Write implements bus.Device: the register is read-only.
func (g *ged) Write(uint64, []byte) {}

func (g *ged) notify(events uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.events
	g.events |= events
	if before == 0 && g.events != 0 {
		g.setLine(true)
	}
}

func (g *ged) save() uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.events
}

func (g *ged) restore(events uint32) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.events = events
	g.setLine(events != 0)
}
