package vmm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"coalesce/vcpu/apic"
	"coalesce/vmm/bus"
	"coalesce/vmm/ioapic"
	"coalesce/vmm/platform"
	"coalesce/vmm/rtc"
	"coalesce/vmm/serial"
)

// devices are the client's: every other node's vCPUs reach them over the I/O
// link.
type devices struct {
	ioapic *ioapic.IOAPIC
	uart   *serial.UART
	watch  *watcher
}

// newDevices puts the devices on a client node's buses.
func newDevices(n *node, console io.Writer, mark string) (*devices, error) {
	n.ports, n.mmio = bus.NewPorts(), bus.NewMMIO()
	d := &devices{watch: &watcher{out: console, mark: []byte(mark)}}
	d.ioapic = ioapic.New(func(m apic.Message) { n.router.Route(m, apic.NoShorthand) })
	n.ioapic = d.ioapic.EOI
	line := func(pin int) func(bool) { return func(level bool) { d.ioapic.SetLine(pin, level) } }
	d.uart = serial.New(d.watch, line(gsiCOM1))
	for _, r := range []struct {
		bus          *bus.Bus
		name         string
		base, length uint64
		dev          bus.Device
	}{
		{n.mmio, "I/O APIC", ioapicBase, ioapicSize, d.ioapic},
		{n.ports, "COM1", portCOM1, 8, d.uart},
		{n.ports, "RTC", portRTC, 2, rtc.New(time.Now)},
	} {
		if err := r.bus.Register(r.name, r.base, r.length, r.dev); err != nil {
			return nil, fmt.Errorf("place a device: %w", err)
		}
	}
	_, err := platform.Register(n.ports, platform.Config{
		PowerOff: func() { n.report(event{kind: evPowerOff}) },
		Reset:    func(string) { n.report(event{kind: evReset}) },
		Panic: func(what platform.PanicEvent) {
			if what&platform.Panicked != 0 {
				n.report(event{kind: evPanic})
			}
		},
		GEDInterrupt: line(gsiGED),
	})
	if err != nil {
		return nil, fmt.Errorf("place the platform's registers: %w", err)
	}
	return d, nil
}

// watcher passes the console through and looks for a text on it.
type watcher struct {
	out  io.Writer
	mark []byte

	mu    sync.Mutex
	start time.Time
	tail  []byte        // the last bytes that may begin the mark
	after time.Duration // when it was complete, 0 before
}

func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	if len(w.mark) > 0 && w.after == 0 {
		w.tail = append(w.tail, b...)
		if bytes.Contains(w.tail, w.mark) {
			w.after = time.Since(w.start)
		}
		if keep := len(w.mark) - 1; len(w.tail) > keep {
			w.tail = append(w.tail[:0], w.tail[len(w.tail)-keep:]...)
		}
	}
	w.mu.Unlock()
	return w.out.Write(b)
}

func (d *devices) started(t time.Time) {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	d.watch.start = t
}

func (d *devices) marked() time.Duration {
	d.watch.mu.Lock()
	defer d.watch.mu.Unlock()
	return d.watch.after
}

// consoleTimeout bounds the wait for a console that does not take its output.
const consoleTimeout = 5 * time.Second

// flush returns when the console has everything the guest wrote.
func (d *devices) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, consoleTimeout)
	defer cancel()
	return d.uart.Flush(ctx)
}

// close ends the devices. The vCPUs have ended before.
func (d *devices) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), consoleTimeout)
	defer cancel()
	return d.uart.Close(ctx)
}
