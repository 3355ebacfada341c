package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

// port is a UART with its interrupt line and output, as a driver sees it.
type port struct {
	*UART
	t testing.TB

	mu    sync.Mutex
	level bool
	edges int // rising
	risen chan struct{}
}

func newPort(t testing.TB, out io.Writer) *port {
	p := &port{t: t, risen: make(chan struct{}, 1)}
	p.UART = New(out, func(level bool) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if level && !p.level {
			p.edges++
			select {
			case p.risen <- struct{}{}:
			default:
			}
		}
		p.level = level
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.Close(ctx); err != nil && ctx.Err() != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

func (p *port) in(reg uint64) byte {
	var b [1]byte
	p.Read(reg, b[:])
	return b[0]
}

func (p *port) out8(reg uint64, v byte) { p.Write(reg, []byte{v}) }

func (p *port) irqLevel() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.level
}

func (p *port) want(what string, got, want byte) {
	p.t.Helper()
	if got != want {
		p.t.Errorf("%s is %#02x, want %#02x", what, got, want)
	}
}

func (p *port) wantIRQ(when string, want bool) {
	p.t.Helper()
	if got := p.irqLevel(); got != want {
		p.t.Errorf("%s: interrupt line is %v", when, got)
	}
}

// gate is a writer that stands still until it is opened.
type gate struct {
	open  chan struct{}
	began chan struct{} // a Write has begun
	once  sync.Once

	mu  sync.Mutex
	buf bytes.Buffer
}

func newGate() *gate { return &gate{open: make(chan struct{}), began: make(chan struct{})} }

func (g *gate) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.began) })
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.Write(p)
}

func (g *gate) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.buf.String()
}

func TestRegistersReadBack(t *testing.T) {
	for _, tc := range []struct {
		name          string
		lcr           byte
		reg           uint64
		write, expect byte
	}{
		{"IER keeps four bits", 0, regIER, 0xff, 0x0f},
		{"LCR", 0, regLCR, 0x1b, 0x1b},
		{"MCR keeps five bits", 0, regMCR, 0xef, 0x0f},
		{"LSR ignores writes", 0, regLSR, 0, 0x60},
		{"MSR ignores writes", 0, regMSR, 0, 0xb0},
		{"SCR", 0, regSCR, 0xa5, 0xa5},
		{"DLL", lcrDLAB, regData, 1, 1},
		{"DLM", lcrDLAB, regIER, 2, 2},
		{"FIFO off", 0, regIIR, 0xc0, 0x01},
		{"FIFO on", 0, regIIR, 0xc1, 0xc1},
		{"RBR empty", 0, regData, 'x', 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPort(t, io.Discard)
			p.out8(regLCR, tc.lcr)
			p.out8(tc.reg, tc.write)
			p.want("register", p.in(tc.reg), tc.expect)
		})
	}
}

// TestLinuxAutoconfig does what autoconfig and autoconfig_16550a of Linux's
// 8250_port.c do to name the chip.
func TestLinuxAutoconfig(t *testing.T) {
	p := newPort(t, io.Discard)
	p.out8(regIER, 0)
	p.want("IER", p.in(regIER)&0x0f, 0)
	p.out8(regIER, 0x0f)
	p.want("IER", p.in(regIER)&0x0f, 0x0f)
	p.out8(regIER, 0)

	mcr, lcr := p.in(regMCR), p.in(regLCR)
	p.out8(regMCR, mcrLoop|mcrOUT2|mcrRTS)
	p.want("MSR in loopback", p.in(regMSR)&0xf0, 0x90)
	p.out8(regMCR, mcr)

	p.out8(regLCR, 0xbf)
	p.out8(regIIR, 0) // EFR
	p.out8(regLCR, 0)
	p.out8(regIIR, fcrEnable)
	p.want("IIR>>6 (3 is a 16550A)", p.in(regIIR)>>6, 3)

	p.out8(regLCR, lcrDLAB)
	if p.in(regIIR) == 0 {
		t.Error("looks like a 16C650: EFR reads 0")
	}
	p.out8(regLCR, 0xbf)
	if p.in(regIIR) == 0 {
		t.Error("looks like a 16650V2: EFR reads 0")
	}
	p.out8(regLCR, 0)
	p.out8(regIIR, fcrEnable|1<<5)
	status1 := p.in(regIIR) >> 5
	p.out8(regIIR, fcrEnable)
	p.out8(regLCR, lcrDLAB)
	p.out8(regIIR, fcrEnable|1<<5)
	status2 := p.in(regIIR) >> 5
	p.out8(regLCR, lcr)
	if status1 == 6 && status2 == 7 {
		t.Error("looks like a 16750 with 64-byte FIFOs")
	}

	p.out8(regIER, 1<<6) // UUE
	p.want("IER after UUE (0x40 is an XScale)", p.in(regIER), 0)
}

// TestLinuxStartup does the checks of serial8250_do_startup that turn to a
// polling timer or to workarounds when they fail.
func TestLinuxStartup(t *testing.T) {
	p := newPort(t, io.Discard)
	p.out8(regIIR, fcrEnable)
	p.out8(regIIR, fcrEnable|fcrClearRX|1<<2)
	p.out8(regIIR, 0)
	if lsr := p.in(regLSR); lsr == 0xff {
		t.Error("LSR looks like a floating bus")
	}
	p.in(regData)
	p.in(regIIR)
	p.in(regMSR)
	for range 2 { // serial8250_THRE_test
		p.out8(regIER, ierTHRI)
		p.wantIRQ("THRI on", true)
		if p.in(regIIR)&iirNone != 0 {
			t.Error("the THRE interrupt does not come again: UART_BUG_THRE")
		}
		p.wantIRQ("IIR read", false)
		p.out8(regIER, 0)
	}
	p.out8(regIER, ierTHRI)
	if lsr, iir := p.in(regLSR), p.in(regIIR); lsr&lsrTEMT != 0 && iir&iirNone != 0 {
		t.Error("no interrupt when it is enabled: UART_BUG_TXEN")
	}
	p.out8(regIER, 0)
}

func TestInterrupts(t *testing.T) {
	type step struct {
		write bool
		reg   uint64
		v     byte // written, or expected
		irq   bool // line afterwards
	}
	w := func(reg uint64, v byte, irq bool) step { return step{true, reg, v, irq} }
	r := func(reg uint64, v byte, irq bool) step { return step{false, reg, v, irq} }
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"THRE is taken by reading IIR", []step{
			w(regIER, ierTHRI, true), r(regIIR, 0x02, false), r(regIIR, 0x01, false),
			w(regIER, ierTHRI, false),                      // already on: no new interrupt
			w(regData, 'a', false), r(regIIR, 0x02, false), // there for who looks, but no new interrupt yet
			w(regIER, 0, false), w(regIER, ierTHRI, true),
		}},
		{"THRE is pending while masked", []step{
			w(regData, 'a', false), r(regIIR, 0x01, false), w(regIER, ierTHRI, true),
		}},
		{"masking lowers the line", []step{
			w(regIER, ierTHRI, true), w(regIER, 0, false), r(regIIR, 0x01, false),
		}},
		{"reading IIR leaves THRE alone when it names another", []step{
			w(regIIR, fcrEnable, false), w(regMCR, mcrLoop, false), w(regData, 'x', false),
			w(regIER, ierTHRI|ierRDI, true), r(regIIR, 0xc4, true), r(regData, 'x', true), r(regIIR, 0xc2, false),
		}},
		{"loopback overrun is a line status interrupt", []step{
			w(regMCR, mcrLoop, false), w(regIER, ierRLSI|ierRDI, false),
			w(regData, 'a', true), w(regData, 'b', true), r(regIIR, 0x06, true),
			r(regLSR, 0x63, true), r(regIIR, 0x04, true), r(regData, 'a', false), r(regLSR, 0x60, false),
		}},
		{"modem lines in loopback", []step{
			w(regIER, ierMSI, false), w(regMCR, mcrLoop|mcrOUT1, true), r(regIIR, 0x00, true),
			r(regMSR, 0x40|0x0b, false), // CTS, DSR and DCD went; RI's rise does not count
			w(regMCR, mcrLoop, true), r(regMSR, 0x04, false),
			w(regMCR, mcrLoop|mcrDTR|mcrRTS, true), r(regMSR, 0x33, false), r(regMSR, 0x30, false),
		}},
		{"the divisor is not data", []step{
			w(regIER, ierTHRI, true), r(regIIR, 0x02, false), w(regLCR, lcrDLAB, false),
			w(regData, 1, false), w(regIER, 0, false), w(regLCR, 3, false), r(regIER, ierTHRI, false),
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPort(t, io.Discard)
			for i, s := range tc.steps {
				if s.write {
					p.out8(s.reg, s.v)
				} else if got := p.in(s.reg); got != s.v {
					t.Errorf("step %d: register %d is %#02x, want %#02x", i, s.reg, got, s.v)
				}
				if got := p.irqLevel(); got != s.irq {
					t.Errorf("step %d: interrupt line is %v", i, got)
				}
			}
		})
	}
}

func TestReceiveTrigger(t *testing.T) {
	for _, tc := range []struct {
		fcr   byte
		bytes int
		iir   byte
	}{
		{0, 0, 0x01}, {0, 1, 0x04}, {0, 5, 0x04},
		{0x01, 1, 0xc4}, {0x41, 1, 0xcc}, {0x41, 3, 0xcc}, {0x41, 4, 0xc4},
		{0x81, 7, 0xcc}, {0x81, 8, 0xc4}, {0xc1, 13, 0xcc}, {0xc1, 14, 0xc4}, {0xc1, 100, 0xc4},
	} {
		p := newPort(t, io.Discard)
		p.out8(regIIR, tc.fcr)
		p.out8(regMCR, mcrRTS)
		p.out8(regIER, ierRDI)
		in := bytes.Repeat([]byte("abcdefg"), 20)[:tc.bytes]
		if n := p.Enqueue(in); n != tc.bytes {
			t.Errorf("took %d of %d", n, tc.bytes)
		}
		p.want("IIR", p.in(regIIR), tc.iir)
		p.wantIRQ("data waits", tc.bytes > 0)
		var got []byte
		for p.in(regLSR)&lsrDR != 0 {
			got = append(got, p.in(regData))
		}
		if !bytes.Equal(got, in) {
			t.Errorf("received %q of %q", got, in)
		}
		p.want("IIR", p.in(regIIR)&0x0f, iirNone)
		p.wantIRQ("all read", false)
	}
}

// TestInputWaitsForRTS: what arrives before the driver is ready is kept, and
// clearing the FIFO loses only what is in it.
func TestInputWaitsForRTS(t *testing.T) {
	p := newPort(t, io.Discard)
	p.Enqueue([]byte("ls\n"))
	p.want("LSR before RTS", p.in(regLSR), 0x60)
	p.out8(regIIR, fcrEnable|fcrClearRX)
	p.want("RBR before RTS", p.in(regData), 0)
	p.out8(regMCR, mcrRTS|mcrLoop)
	p.want("LSR in loopback", p.in(regLSR), 0x60)
	p.out8(regMCR, mcrRTS|mcrDTR)
	p.want("LSR", p.in(regLSR), 0x61)
	p.want("RBR", p.in(regData), 'l')
	p.out8(regIIR, fcrEnable|fcrClearRX)
	p.want("LSR after clearing", p.in(regLSR), 0x60)
	p.Enqueue(bytes.Repeat([]byte{'x'}, fifoSize+1))
	p.out8(regIIR, fcrEnable|fcrClearRX)
	p.want("RBR after clearing", p.in(regData), 'x')
	p.want("LSR at last", p.in(regLSR), 0x60)
}

func TestInputBackPressure(t *testing.T) {
	p := newPort(t, io.Discard)
	in := make([]byte, inputRoom+100)
	if n := p.Enqueue(in); n != inputRoom {
		t.Fatalf("took %d of %d", n, len(in))
	}
	if n := p.Enqueue(in[:1]); n != 0 {
		t.Fatalf("took %d more", n)
	}
	p.out8(regIIR, fcrEnable)
	p.out8(regMCR, mcrRTS)
	space := 0
	p.OnSpace(func() { space++ })
	for i := range inputRoom {
		if (space > 0) != (i >= inputRoom/2-fifoSize) {
			t.Fatalf("after %d bytes space was signalled %d times", i, space)
		}
		p.in(regData)
	}
	if space != 1 {
		t.Errorf("space was signalled %d times", space)
	}
	if n := p.Enqueue(in[:100]); n != 100 {
		t.Errorf("took %d of 100", n)
	}
}

func TestOutputIsWritten(t *testing.T) {
	var out bytes.Buffer
	p := newPort(t, &out)
	want := strings.Repeat("hello, host\r\n", 1000)
	for i := range len(want) {
		p.out8(regData, want[i])
	}
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("%d of %d bytes came out", out.Len(), len(want))
	}
	p.Write(regData, []byte{'!', 0}) // a word: THR and IER
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out.String() != want+"!" {
		t.Error("Close lost what was sent before it")
	}
	p.out8(regData, '?')
	p.want("LSR after Close", p.in(regLSR), 0x60)
	if p.Enqueue([]byte("x")) != 1 || p.Close(t.Context()) != nil {
		t.Error("a closed port is in the way")
	}
}

// TestSlowWriter: the guest is told to wait, nothing is lost, no call blocks.
func TestSlowWriter(t *testing.T) {
	g := newGate()
	p := newPort(t, g)
	p.out8(regData, '0')
	<-g.began // the writer holds what it has taken
	sent := 1
	for p.in(regLSR)&lsrTHRE != 0 {
		p.out8(regData, 'x')
		sent++
	}
	if sent != 1+outputRoom-fifoSize+1 {
		t.Errorf("stalled after %d bytes", sent)
	}
	p.want("LSR when stalled", p.in(regLSR), 0)
	p.out8(regIER, ierTHRI)
	p.wantIRQ("stalled", false)
	for range fifoSize - 1 { // a driver that fills the FIFO it believes empty
		p.out8(regData, 'y')
		sent++
	}
	p.out8(regData, 'z')
	if p.Lost() != 1 {
		t.Errorf("%d bytes lost", p.Lost())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Flush(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("flush with a standing writer: %v", err)
	}
	if s := p.Save(); !s.THREPending {
		t.Error("the saved state forgets that THR becomes empty")
	}

	close(g.open)
	<-p.risen
	p.want("IIR", p.in(regIIR), iirTHRI)
	if err := p.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := g.String(); len(s) != sent || strings.Contains(s, "z") {
		t.Errorf("%d bytes came out of %d", len(s), sent)
	}
	p.want("LSR", p.in(regLSR), 0x60)
}

func TestCloseGivesUp(t *testing.T) {
	g := newGate()
	p := newPort(t, g)
	p.out8(regData, 'x')
	<-g.began
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("terminal is stopped"))
	if err := p.Close(ctx); err == nil || !strings.Contains(err.Error(), "terminal is stopped") {
		t.Errorf("close with a standing writer: %v", err)
	}
	close(g.open) // the cleanup closes again and finds the writer ended
}

func TestWriterFails(t *testing.T) {
	r, w := io.Pipe()
	r.CloseWithError(io.ErrClosedPipe)
	p := newPort(t, w)
	p.out8(regData, 'x')
	if err := p.Flush(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("flush: %v", err)
	}
	for range outputRoom + 100 {
		p.out8(regData, 'y') // goes nowhere, and the guest does not notice
	}
	p.want("LSR", p.in(regLSR), 0x60)
	if err := p.Close(t.Context()); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("close: %v", err)
	}
}

// TestHandlerEnds runs Linux's interrupt handler (serial8250_interrupt) on a
// driver that always has more to send: each run must end before the pass limit,
// with an edge for the next one.
func TestHandlerEnds(t *testing.T) {
	p := newPort(t, io.Discard)
	p.out8(regIIR, fcrEnable)
	p.out8(regIER, ierTHRI)
	for range 20 {
		<-p.risen
		passes := 0
		for ; p.in(regIIR)&iirNone == 0; passes++ {
			if passes == 256 {
				t.Fatal("too much work for irq4")
			}
			for len(p.risen) > 0 { // edges that this run serves
				<-p.risen
			}
			for range fifoSize {
				p.out8(regData, 'x')
			}
		}
		if passes == 0 {
			t.Fatal("interrupt without a cause")
		}
	}
}

// TestHandlerLooksAgain: a handler that finds all it has to send taken, turns the
// interrupt off and looks once more has not caused another one.
func TestHandlerLooksAgain(t *testing.T) {
	p := newPort(t, io.Discard)
	p.UART.mu.Lock()
	p.timing = true // the timer never runs: this handler is quick
	p.UART.mu.Unlock()
	p.out8(regIIR, fcrEnable)
	for range 100 {
		p.out8(regIER, ierTHRI) // start_tx
		p.want("IIR", p.in(regIIR), 0xc2)
		for range 3 {
			p.out8(regData, 'x')
		}
		p.out8(regIER, 0) // stop_tx
		p.want("IIR", p.in(regIIR), 0xc1)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.edges != 100 {
		t.Errorf("%d interrupts for 100 messages", p.edges)
	}
}

// TestHandlerDoesNotLook: a driver that serves one cause per interrupt and does
// not look again gets its next interrupt all the same, also in a long burst.
func TestHandlerDoesNotLook(t *testing.T) {
	p := newPort(t, io.Discard)
	p.out8(regIIR, fcrEnable)
	p.out8(regIER, ierTHRI)
	for range 2 * maxBurst / fifoSize {
		<-p.risen
		p.want("IIR", p.in(regIIR), 0xc2)
		for range fifoSize {
			p.out8(regData, 'x')
		}
	}
}

func TestSaveRestore(t *testing.T) {
	a := newPort(t, io.Discard)
	a.out8(regLCR, lcrDLAB)
	a.out8(regData, 1)
	a.out8(regLCR, 0x13)
	a.out8(regIIR, 0x81)
	a.out8(regMCR, mcrRTS|mcrDTR|mcrOUT2)
	a.out8(regSCR, 0x77)
	a.out8(regIER, ierRDI|ierTHRI)
	a.Enqueue([]byte("twenty-four bytes of it."))
	s := a.Save()
	b := newPort(t, io.Discard)
	if err := b.Restore(s); err != nil {
		t.Fatal(err)
	}
	b.wantIRQ("restored", true)
	for reg := range uint64(Size) {
		if reg == regData {
			continue
		}
		if va, vb := a.in(reg), b.in(reg); va != vb {
			t.Errorf("register %d: %#02x, restored %#02x", reg, va, vb)
		}
	}
	var got []byte
	for b.in(regLSR)&lsrDR != 0 {
		got = append(got, b.in(regData))
	}
	if string(got) != "twenty-four bytes of it." {
		t.Errorf("received %q", got)
	}

	for name, bad := range map[string]State{
		"FIFO too long":        {FCR: 1, FIFO: make([]byte, fifoSize+1)},
		"holding register":     {FIFO: make([]byte, 2)},
		"input too long":       {Input: make([]byte, inputRoom+1)},
		"IER":                  {IER: 0x10},
		"MCR":                  {MCR: 0x80},
		"FCR":                  {FCR: 0x09},
		"trigger without FIFO": {FCR: 0x80},
	} {
		if b.Restore(bad) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestConcurrent uses one port from all sides; the race detector judges, and
// nothing that is sent is lost.
func TestConcurrent(t *testing.T) {
	var out bytes.Buffer
	p := newPort(t, &out)
	p.out8(regIIR, fcrEnable)
	p.out8(regMCR, mcrRTS)
	const each = 5000
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for i := 0; i < each; {
				if p.in(regLSR)&lsrTHRE != 0 {
					p.out8(regData, 'x')
					i++
				}
				p.in(regIIR)
			}
		})
	}
	space := make(chan struct{}, 1)
	p.OnSpace(func() { space <- struct{}{} })
	wg.Go(func() {
		for sent := 0; sent < each; {
			want := min(700, each-sent)
			n := p.Enqueue(make([]byte, want))
			if sent += n; n < want {
				<-space
			}
		}
	})
	wg.Go(func() {
		for got := 0; got < each; {
			if p.in(regLSR)&lsrDR != 0 {
				p.in(regData)
				got++
			}
		}
	})
	wg.Go(func() {
		for range 50 {
			p.Save()
			if err := p.Flush(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out.Len() != 2*each || p.Lost() != 0 {
		t.Errorf("%d bytes of %d came out, %d lost", out.Len(), 2*each, p.Lost())
	}
}
