// Package serial is a 16550A UART: the guest's console.
//
// The guest's side is eight registers; the host's side is a writer for output
// and Enqueue for input. Time does not pass on the line: a byte written to THR
// is sent at once, and a byte that was enqueued arrives as soon as the receive
// FIFO has room.
//
// What the register set leaves open is settled by what Linux's 8250 driver
// probes for and relies on; comments name the places. Source: National
// Semiconductor PC16550D data sheet.
package serial

import (
	"io"
	"sync"
	"time"
)

// Size is the number of ports the registers take.
const Size = 8

// Offsets of the registers. DLL and DLM replace the first two while LCR.DLAB is set.
const (
	regData = 0 // RBR on read, THR on write
	regIER  = 1
	regIIR  = 2 // FCR on write
	regLCR  = 3
	regMCR  = 4
	regLSR  = 5
	regMSR  = 6
	regSCR  = 7
)

const (
	ierRDI  = 1 << 0 // received data
	ierTHRI = 1 << 1 // transmitter holding register empty
	ierRLSI = 1 << 2 // receiver line status
	ierMSI  = 1 << 3 // modem status
	ierAll  = ierRDI | ierTHRI | ierRLSI | ierMSI

	iirMSI     = 0x0
	iirNone    = 0x1
	iirTHRI    = 0x2
	iirRDI     = 0x4
	iirRLSI    = 0x6
	iirTimeout = 0xc  // received data, fewer bytes than the trigger level
	iirFIFO    = 0xc0 // FIFOs are enabled

	fcrEnable  = 1 << 0
	fcrClearRX = 1 << 1
	fcrTrigger = 3 << 6

	lcrDLAB = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOUT1 = 1 << 2
	mcrOUT2 = 1 << 3
	mcrLoop = 1 << 4
	mcrAll  = mcrDTR | mcrRTS | mcrOUT1 | mcrOUT2 | mcrLoop

	lsrDR   = 1 << 0
	lsrOE   = 1 << 1
	lsrTHRE = 1 << 5
	lsrTEMT = 1 << 6

	msrDeltas = 0x0f
	msrTERI   = 1 << 2
	msrCTS    = 1 << 4
	msrDSR    = 1 << 5
	msrRI     = 1 << 6
	msrDCD    = 1 << 7
)

const (
	fifoSize = 16
	// inputRoom bounds the input that waits for the receive FIFO, in bytes.
	inputRoom = 4096
)

// triggers are the receive FIFO's trigger levels, by the top bits of FCR.
var triggers = [4]int{1, 4, 8, 14}

// UART is one serial port. Read and Write are called by vCPU threads, the other
// methods by anyone.
type UART struct {
	irq func(level bool)

	mu sync.Mutex // guards everything below

	ier, fcr, lcr, mcr, msr, scr byte
	dll, dlm                     byte
	overrun                      bool // LSR.OE
	thri                         bool // the THRE interrupt is pending
	line                         bool // level of the interrupt line

	// How a THRE interrupt is held back, see transmitLocked. quiet: IIR shows it but
	// the line does not; deferred: not even IIR does; timing: timer runs, and ends
	// both. burst counts the bytes sent since IIR last showed no interrupt.
	quiet, deferred, timing bool
	burst                   int
	timer                   *time.Timer

	fifo  []byte // received, at most fifoSize
	input []byte // waits for the FIFO, at most inputRoom
	// wantSpace: an Enqueue was cut short and onSpace, if any, is to be called.
	wantSpace bool
	onSpace   func()

	out output
}

// New returns a UART in its reset state that writes its output to out and
// drives its interrupt line through irq. Close it after use.
//
// irq is called with the level whenever that changes, in order, with the UART
// locked: it must not block or call back.
func New(out io.Writer, irq func(level bool)) *UART {
	u := &UART{
		irq:   irq,
		msr:   msrCTS | msrDSR | msrDCD,
		dll:   12, // 9600 baud
		fifo:  make([]byte, 0, fifoSize),
		input: make([]byte, 0, inputRoom),
	}
	u.timer = time.AfterFunc(sendTime, u.sent)
	u.timer.Stop()
	u.out.init()
	go u.drain(out)
	return u
}

// Read implements bus.Device. Wider accesses read consecutive registers.
func (u *UART) Read(off uint64, data []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range data {
		data[i] = u.readLocked((off + uint64(i)) % Size)
	}
	u.updateLocked()
}

// Write implements bus.Device. Wider accesses write consecutive registers.
func (u *UART) Write(off uint64, data []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, v := range data {
		u.writeLocked((off+uint64(i))%Size, v)
	}
	u.updateLocked()
}

func (u *UART) readLocked(reg uint64) byte {
	dlab := u.lcr&lcrDLAB != 0
	switch reg {
	case regData:
		if dlab {
			return u.dll
		}
		return u.receiveLocked()
	case regIER:
		if dlab {
			return u.dlm
		}
		return u.ier
	case regIIR:
		return u.readIIRLocked()
	case regLCR:
		return u.lcr
	case regMCR:
		return u.mcr
	case regLSR:
		return u.readLSRLocked()
	case regMSR:
		v := u.msr
		u.msr &^= msrDeltas
		return v
	}
	return u.scr
}

func (u *UART) writeLocked(reg uint64, v byte) {
	dlab := u.lcr&lcrDLAB != 0
	switch reg {
	case regData:
		if dlab {
			u.dll = v
		} else {
			u.transmitLocked(v)
		}
	case regIER:
		if dlab {
			u.dlm = v
		} else {
			u.writeIERLocked(v & ierAll)
		}
	case regIIR:
		u.writeFCRLocked(v)
	case regLCR:
		u.lcr = v
	case regMCR:
		u.mcr = v & mcrAll
		u.setModemLinesLocked()
		u.fillLocked()
	case regSCR:
		u.scr = v
	}
}

// writeIERLocked: turning THRI on while THR is empty makes the interrupt pending
// even if an earlier read of IIR has taken it. Linux's start_tx relies on that,
// and its THRE test at start-up turns to polling if it does not happen twice in
// a row (serial8250_THRE_test).
func (u *UART) writeIERLocked(v byte) {
	if v&^u.ier&ierTHRI != 0 && !u.out.stalled {
		u.thri, u.quiet, u.deferred = true, false, false
	}
	u.ier = v
}

// writeFCRLocked: switching the FIFOs on or off empties them. What waits in
// input is still on the wire and stays.
func (u *UART) writeFCRLocked(v byte) {
	if v&fcrClearRX != 0 || (v^u.fcr)&fcrEnable != 0 {
		u.fifo = u.fifo[:0]
	}
	u.fcr = v & (fcrEnable | fcrTrigger)
	if v&fcrEnable == 0 {
		u.fcr = 0
	}
	u.fillLocked()
}

func (u *UART) readLSRLocked() byte {
	var v byte
	if len(u.fifo) > 0 {
		v |= lsrDR
	}
	if u.overrun {
		v |= lsrOE
		u.overrun = false
	}
	if !u.out.stalled {
		v |= lsrTHRE | lsrTEMT
	}
	return v
}

// readIIRLocked: reading IIR takes the THRE interrupt, if that is what it names.
func (u *UART) readIIRLocked() byte {
	cause := u.causeLocked()
	switch cause {
	case iirTHRI:
		u.thri = false
	case iirNone:
		u.burst = 0
		u.showTHRELocked()
	}
	if u.fcr&fcrEnable != 0 {
		cause |= iirFIFO
	}
	return cause
}

// causeLocked names the interrupt of the highest priority.
func (u *UART) causeLocked() byte {
	switch {
	case u.ier&ierRLSI != 0 && u.overrun:
		return iirRLSI
	case u.ier&ierRDI != 0 && len(u.fifo) > 0:
		if u.fcr&fcrEnable != 0 && len(u.fifo) < triggers[u.fcr>>6] {
			// Nothing more is on its way, or it would be in the FIFO: the line is idle.
			return iirTimeout
		}
		return iirRDI
	case u.ier&ierTHRI != 0 && u.thri:
		return iirTHRI
	case u.ier&ierMSI != 0 && u.msr&msrDeltas != 0:
		return iirMSI
	}
	return iirNone
}

// updateLocked brings the interrupt line to the level of the registers. OUT2,
// which gates it on PC mainboards, is not looked at.
func (u *UART) updateLocked() {
	cause := u.causeLocked()
	if level := cause != iirNone && !(cause == iirTHRI && u.quiet); level != u.line {
		u.line = level
		u.irq(level)
	}
}

// setModemLinesLocked sets MSR's upper half: a ready peer, or in loopback the
// guest's own outputs, which is how Linux's autoconfig tells a UART from a
// floating bus.
func (u *UART) setModemLinesLocked() {
	lines := byte(msrCTS | msrDSR | msrDCD)
	if u.mcr&mcrLoop != 0 {
		lines = 0
		for _, w := range [4]struct{ from, to byte }{{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOUT1, msrRI}, {mcrOUT2, msrDCD}} {
			if u.mcr&w.from != 0 {
				lines |= w.to
			}
		}
	}
	changed := (u.msr ^ lines) & 0xf0
	deltas := changed >> 4
	if lines&msrRI != 0 {
		deltas &^= msrTERI // only the trailing edge counts
	}
	u.msr = lines | u.msr&msrDeltas | deltas
}
