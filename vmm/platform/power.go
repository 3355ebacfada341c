package platform

import "sync"

// sleepRegisters are the ACPI sleep control and status registers of a
// hardware-reduced machine (ACPI 6.5, 4.8.3.7).
type sleepRegisters struct {
	powerOff func()

	mu      sync.Mutex
	control uint8
}

const (
	sleepControl = 0                                  // offset of the control register
	sleepStatus  = PortSleepStatus - PortSleepControl // bit 7, WAK_STS, is never set here

	sleepTypeShift = 2
	sleepTypeMask  = 7
	sleepEnable    = 1 << 5 // reads as 0
)

// Read implements bus.Device.
func (s *sleepRegisters) Read(off uint64, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(data)
	if off == sleepControl {
		data[0] = s.control
	}
}

// Write implements bus.Device. Only S5 is offered, so a write that enables
// another sleep type does nothing.
func (s *sleepRegisters) Write(off uint64, data []byte) {
	if off == sleepStatus {
		return
	}
	v := data[0]
	s.restore(v)
	if v&sleepEnable != 0 && v>>sleepTypeShift&sleepTypeMask == SleepTypeS5 {
		s.powerOff()
	}
}

func (s *sleepRegisters) save() uint8 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.control
}

func (s *sleepRegisters) restore(v uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = v & (sleepTypeMask << sleepTypeShift)
}

// resetRegister is the reset register that the FADT names (ACPI 6.5, 4.8.3.6).
type resetRegister struct{ reset func(by string) }

// Read implements bus.Device.
func (resetRegister) Read(_ uint64, data []byte) { clear(data) }

// Write implements bus.Device.
func (r resetRegister) Write(_ uint64, data []byte) {
	if data[0] == ResetValue {
		r.reset("ACPI reset register")
	}
}

// resetControl is the reset control register of Intel chipsets at 0xcf9: the
// CPU is reset when bit 2 goes from 0 to 1, bit 1 tells a hard reset from a soft one.
type resetControl struct {
	reset func(by string)

	mu    sync.Mutex
	value uint8
}

const (
	resetControlBits = 0x0e // full reset, reset CPU, system reset
	resetControlCPU  = 1 << 2

	keyboardPulseReset = 0xfe // command: pulse the CPU's reset line
)

// Read implements bus.Device.
func (r *resetControl) Read(_ uint64, data []byte) {
	clear(data)
	data[0] = r.save()
}

// Write implements bus.Device.
func (r *resetControl) Write(_ uint64, data []byte) {
	if r.swap(data[0])&resetControlCPU == 0 && data[0]&resetControlCPU != 0 {
		r.reset("reset control register")
	}
}

// swap sets the value and returns the old one.
func (r *resetControl) swap(v uint8) (old uint8) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, r.value = r.value, v&resetControlBits
	return old
}

func (r *resetControl) save() uint8 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.value
}

func (r *resetControl) restore(v uint8) { r.swap(v) }

// keyboard is what is left of a PS/2 keyboard controller: its command to reset
// the CPU. Its status reads 0, an empty input buffer, because Linux waits for
// that before it writes the command (kb_wait). It does not look for a keyboard
// here, since the FADT's boot flags name no controller.
type keyboard struct{ reset func(by string) }

// Read implements bus.Device.
func (keyboard) Read(_ uint64, data []byte) { clear(data) }

// Write implements bus.Device.
func (k keyboard) Write(_ uint64, data []byte) {
	if data[0] == keyboardPulseReset {
		k.reset("keyboard controller")
	}
}
