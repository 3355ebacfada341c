package serial

import (
	"context"
	"fmt"
	"io"
	"time"
)

const (
	// outputRoom bounds the output that waits for the writer, in bytes: a boot log.
	outputRoom = 128 << 10
	// writeChunk is the most that one Write gets.
	writeChunk = 4096
	// maxBurst is how many bytes a guest sends in one run of its interrupt handler
	// before it is made to end it. Linux's sends 16 bytes a pass and gives up after
	// 256 passes ("too much work for irq4"; 512 since 5.9): half of that is safe.
	maxBurst = 128 * fifoSize
	// sendTime is how long a FIFO takes to send, as far as interrupts go: after it
	// a THRE interrupt that the guest has not looked for raises the line.
	sendTime = time.Millisecond
)

// output is what waits for the writer. It is guarded by UART.mu.
//
//	         room left                     no room for a FIFO
//	flowing ───────────▶ flowing   flowing ──────────────────▶ stalled
//	          half drained
//	stalled ──────────────▶ flowing, THRE interrupt
//
// While stalled LSR.THRE is clear, so the guest waits as it would for a slow
// line, and no vCPU ever waits here.
type output struct {
	buf     []byte // at most outputRoom
	stalled bool
	writing bool // a Write is under way
	closing bool // no more output is taken
	lost    uint64
	err     error // of the first Write that failed; later output is dropped

	wake    chan struct{}   // there is something to do
	done    chan struct{}   // closed when the writer has ended
	flushes []chan struct{} // closed when nothing waits any more
}

func (o *output) init() {
	o.wake = make(chan struct{}, 1)
	o.done = make(chan struct{})
}

func (o *output) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// transmitLocked sends a byte, after which THR is empty again and the THRE
// interrupt pending. IIR shows it at once, for the driver that looks again before
// its interrupt handler ends, as Linux's does; but the line stays down for
// sendTime, or each run of a handler would cause another one, for nothing.
//
// A guest that sends on and on within one run of its handler is shown no
// interrupt once, so that the handler ends.
func (u *UART) transmitLocked(v byte) {
	first := !u.thri // the guest has been told that THR is empty, or does not care
	u.thri = false
	if u.mcr&mcrLoop != 0 {
		if u.fifoRoomLocked() > 0 {
			u.fifo = append(u.fifo, v)
		} else {
			u.overrun = true
		}
		u.thri = true
		return
	}
	o := &u.out
	switch {
	case o.closing || o.err != nil:
		u.thri = true
		return
	case len(o.buf) == outputRoom:
		o.lost++ // the guest did not look at THRE
		return
	}
	o.buf = append(o.buf, v)
	o.signal()
	o.stalled = o.stalled || len(o.buf) > outputRoom-fifoSize
	u.burst++
	if o.stalled {
		return // drain makes the interrupt pending
	}
	if first {
		u.quiet = true
		u.deferred = u.burst >= maxBurst
		if !u.timing {
			u.timing = true
			u.timer.Reset(sendTime)
		}
	}
	u.thri = !u.deferred
}

// sent runs when sendTime is over.
func (u *UART) sent() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.timing = false
	if u.out.closing {
		return
	}
	u.showTHRELocked()
	u.updateLocked()
}

// showTHRELocked lets a THRE interrupt that was held back through.
func (u *UART) showTHRELocked() {
	u.quiet = false
	if u.deferred {
		u.deferred = false
		u.thri = true
	}
}

// drain is the goroutine that writes the output. It ends when the UART is closed
// and everything is written.
func (u *UART) drain(w io.Writer) {
	o := &u.out
	defer close(o.done)
	chunk := make([]byte, writeChunk)
	for range o.wake {
		for {
			n, end := u.takeOutput(chunk)
			if end {
				return
			}
			if n == 0 {
				break
			}
			_, err := w.Write(chunk[:n])
			u.wrote(err)
		}
	}
}

// takeOutput moves output to chunk. With nothing left it says so to Flush, and
// whether the UART is closed.
func (u *UART) takeOutput(chunk []byte) (n int, end bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	o := &u.out
	n = copy(chunk, o.buf)
	o.buf = o.buf[:copy(o.buf, o.buf[n:])]
	o.writing = n > 0
	if n == 0 {
		for _, f := range o.flushes {
			close(f)
		}
		o.flushes = nil
		end = o.closing
	}
	if o.stalled && len(o.buf) <= outputRoom/2 {
		o.stalled, u.quiet = false, false
		u.thri = true
		u.updateLocked()
	}
	return n, end
}

// wrote notes the result of a Write.
func (u *UART) wrote(err error) {
	if err == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.err = err
	u.out.buf = u.out.buf[:0]
}

// Flush waits until everything the guest has sent is written, or ctx is done.
// It returns the writer's error if it has failed.
func (u *UART) Flush(ctx context.Context) error {
	u.mu.Lock()
	o := &u.out
	var flushed chan struct{}
	if len(o.buf) > 0 || o.writing {
		flushed = make(chan struct{})
		o.flushes = append(o.flushes, flushed)
	}
	u.mu.Unlock()
	if flushed != nil {
		select {
		case <-flushed:
		case <-ctx.Done():
			return u.unwritten(ctx)
		}
	}
	return u.writeError()
}

// Close takes no more output or input, waits until what was sent is written and
// ends the writer. If ctx is done first, as with a terminal that is stopped, the
// writer ends when its Write returns. Closing again waits again.
func (u *UART) Close(ctx context.Context) error {
	u.mu.Lock()
	u.out.closing = true
	u.out.signal()
	u.timer.Stop()
	u.mu.Unlock()
	select {
	case <-u.out.done:
		return u.writeError()
	case <-ctx.Done():
		return u.unwritten(ctx)
	}
}

// Lost returns how many bytes the guest sent although LSR.THRE was clear.
func (u *UART) Lost() uint64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.out.lost
}

func (u *UART) writeError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.out.err != nil {
		return fmt.Errorf("write serial output: %w", u.out.err)
	}
	return nil
}

func (u *UART) unwritten(ctx context.Context) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return fmt.Errorf("write serial output: %d bytes and more wait for the writer: %w", len(u.out.buf), context.Cause(ctx))
}
