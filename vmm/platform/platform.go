// Package platform holds the chipset's small registers: ways to power off and to
// reset, the panic notifier, the event register of ACPI's Generic Event Device,
// and a few legacy ports that Linux looks at although nobody told it to.
//
// The port numbers are part of the machine's description: the ACPI tables name
// the same ones.
package platform

import (
	"fmt"

	"coalesce/vmm/bus"
)

// Ports of the registers.
const (
	PortPIT           = 0x40 // and the next three: channels 0 to 2 and control
	PortSystemControl = 0x61 // speaker and gate of PIT channel 2
	PortKeyboard      = 0x64 // command and status of a PS/2 keyboard controller
	PortDebug         = 0x80 // power-on self test code
	PortPVPanic       = 0x505
	PortSleepControl  = 0x600
	PortSleepStatus   = 0x601
	PortReset         = 0x602
	PortGED           = 0x610 // one register of 32 bits
	PortResetControl  = 0xcf9
)

// Values that the ACPI tables tell the guest.
const (
	SleepTypeS5 = 5 // SLP_TYP in \_S5
	ResetValue  = 1 // what to write to PortReset
)

// Config says whom to tell what the guest does. The functions are called on vCPU
// threads, possibly by several at once and more than once; they must not block.
type Config struct {
	// PowerOff: the guest has entered S5.
	PowerOff func()
	// Reset: the guest wants the machine reset; by names the register it used.
	Reset func(by string)
	// Panic: the guest kernel has panicked.
	Panic func(PanicEvent)
	// GEDInterrupt drives the interrupt line of the Generic Event Device. It is
	// called whenever the level changes, in order, with the device locked.
	GEDInterrupt func(level bool)
}

// Platform is the set of registers.
type Platform struct {
	ged          *ged
	sleep        *sleepRegisters
	resetControl *resetControl
}

// Register puts the registers on the port bus. All functions of cfg must be set.
func Register(ports *bus.Bus, cfg Config) (*Platform, error) {
	p := &Platform{
		ged:          newGED(cfg.GEDInterrupt),
		sleep:        &sleepRegisters{powerOff: cfg.PowerOff},
		resetControl: &resetControl{reset: cfg.Reset},
	}
	for _, r := range []struct {
		name         string
		base, length uint64
		dev          bus.Device
	}{
		{"PIT", PortPIT, 4, silent{}},
		{"system control port", PortSystemControl, 1, silent{}},
		{"keyboard controller", PortKeyboard, 1, keyboard{cfg.Reset}},
		{"debug port", PortDebug, 1, silent{}},
		{"pvpanic", PortPVPanic, 1, pvpanic{cfg.Panic}},
		{"ACPI sleep registers", PortSleepControl, 2, p.sleep},
		{"ACPI reset register", PortReset, 1, resetRegister{cfg.Reset}},
		{"GED", PortGED, gedSize, p.ged},
		{"reset control register", PortResetControl, 1, p.resetControl},
	} {
		if err := ports.Register(r.name, r.base, r.length, r.dev); err != nil {
			return nil, fmt.Errorf("platform: %w", err)
		}
	}
	return p, nil
}

// Notify reports events to the guest through the Generic Event Device: bits are
// or-ed into its register and the interrupt line goes up until the guest has
// read it. Any goroutine may call it, also from inside Config.PowerOff and the like.
func (p *Platform) Notify(events uint32) { p.ged.notify(events) }

// State is what the guest can observe of the registers.
type State struct {
	SleepControl uint8
	ResetControl uint8
	GEDEvents    uint32
}

// Save returns the state. The vCPUs are stopped, or it is outdated at once.
func (p *Platform) Save() State {
	return State{SleepControl: p.sleep.save(), ResetControl: p.resetControl.save(), GEDEvents: p.ged.save()}
}

// Restore sets the state and drives the GED's interrupt line to its level. It
// powers off and resets nothing.
func (p *Platform) Restore(s State) {
	p.sleep.restore(s.SleepControl)
	p.resetControl.restore(s.ResetControl)
	p.ged.restore(s.GEDEvents)
}
