package serial

import "fmt"

// State is everything the guest can observe of a UART, and the input that waits
// for it. Output is not part of it: it belongs to the host that ran the guest.
type State struct {
	IER, FCR, LCR, MCR, MSR, SCR byte
	DLL, DLM                     byte
	Overrun                      bool
	THREPending                  bool
	FIFO                         []byte
	Input                        []byte
}

// Save returns the state. The vCPUs are stopped, or it is outdated at once.
func (u *UART) Save() State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return State{
		IER: u.ier, FCR: u.fcr, LCR: u.lcr, MCR: u.mcr, MSR: u.msr, SCR: u.scr,
		DLL: u.dll, DLM: u.dlm,
		Overrun: u.overrun,
		// Where the state goes the transmitter is idle, so what waits for it comes true.
		THREPending: u.thri || u.deferred || u.out.stalled,
		FIFO:        append([]byte(nil), u.fifo...),
		Input:       append([]byte(nil), u.input...),
	}
}

// Restore sets the state and drives the interrupt line to its level. It refuses
// a state that no UART can have.
func (u *UART) Restore(s State) error {
	if len(s.FIFO) > fifoSize || len(s.Input) > inputRoom || s.IER&^ierAll != 0 || s.MCR&^mcrAll != 0 || s.FCR&^(fcrEnable|fcrTrigger) != 0 ||
		s.FCR&fcrEnable == 0 && (s.FCR != 0 || len(s.FIFO) > 1) {
		return fmt.Errorf("restore serial port: not a state of it: IER %#x, FCR %#x, MCR %#x, %d bytes received, %d bytes of input", s.IER, s.FCR, s.MCR, len(s.FIFO), len(s.Input))
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ier, u.fcr, u.lcr, u.mcr, u.msr, u.scr = s.IER, s.FCR, s.LCR, s.MCR, s.MSR, s.SCR
	u.dll, u.dlm = s.DLL, s.DLM
	u.quiet, u.deferred, u.burst = false, false, 0
	u.overrun, u.thri = s.Overrun, s.THREPending
	u.fifo = append(u.fifo[:0], s.FIFO...)
	u.input = append(u.input[:0], s.Input...)
	u.fillLocked()
	u.line = u.causeLocked() != iirNone
	u.irq(u.line)
	return nil
}
