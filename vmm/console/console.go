// Package console connects the user's terminal, or whatever stands in for one,
// to the guest's serial port.
//
// A terminal is put into raw mode, so that every key reaches the guest, with
// Ctrl-a as the way out (see Help). A pipe or a file is passed on byte by byte
// as fast as the guest takes it, and its end means only that no more input
// comes. A change of the window's size is nobody's business here: a serial line
// has no size, and Go ignores SIGWINCH unless it is asked for.
package console

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Help is what Ctrl-a h prints.
const Help = "\r\n" +
	"Ctrl-a x       stop the guest and leave\r\n" +
	"Ctrl-a Ctrl-a  send Ctrl-a to the guest (so does Ctrl-a a)\r\n" +
	"Ctrl-a h       this help\r\n"

// pasteRoom bounds what is kept of a terminal's input that the guest has not
// taken, in bytes. Beyond it keys are dropped with a bell: the terminal has to be
// read on, or Ctrl-a x would not work on a guest that hangs.
const pasteRoom = 64 << 10

// Sink takes input. It is implemented by *serial.UART, which says what the
// methods promise.
type Sink interface {
	Enqueue(p []byte) int
	OnSpace(f func())
}

// Console reads the user's input on a goroutine of its own.
type Console struct {
	in       *os.File
	out      io.Writer
	sink     Sink
	terminal bool
	saved    *term.State // of the terminal, before raw mode

	wake     int // eventfd: there is room in the sink, or stop is set
	stop     atomic.Bool
	quit     chan struct{}
	finished chan struct{}

	closing  sync.Once
	closeErr error
}

// Start begins to pass input from in to sink. in may be nil, closed or at its
// end: then there is no input. If in is a terminal, it is in raw mode from now
// until Close, and messages to its user go to out. A process in the background
// leaves the terminal alone and reads nothing.
func Start(in *os.File, out io.Writer, sink Sink) (*Console, error) {
	c := &Console{in: in, out: out, sink: sink, quit: make(chan struct{}), finished: make(chan struct{})}
	if in == nil || !isOpen(in) || inBackground(in) {
		close(c.finished)
		c.in = nil
		return c, nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create eventfd for the console: %w", err)
	}
	c.wake = wake
	if c.terminal = term.IsTerminal(int(in.Fd())); c.terminal {
		if c.saved, err = makeRaw(int(in.Fd())); err != nil {
			return nil, errors.Join(fmt.Errorf("set terminal to raw mode: %w", err), unix.Close(wake))
		}
	}
	sink.OnSpace(c.signal)
	go c.run()
	return c, nil
}

// Quit is closed when the user has typed Ctrl-a x.
func (c *Console) Quit() <-chan struct{} { return c.quit }

// Close ends the goroutine and gives the terminal back as it was. It has to be
// called on every way out of the process, os.Exit included; any number of times,
// from any goroutine, it acts once. Nothing reaches the sink after it.
func (c *Console) Close() error {
	c.closing.Do(func() {
		if c.in == nil {
			return
		}
		c.stop.Store(true)
		c.signal()
		<-c.finished
		c.sink.OnSpace(nil) // nobody signals after this, so the descriptor may go
		c.closeErr = unix.Close(c.wake)
		if c.saved != nil {
			// EIO: the terminal has hung up, there is nothing to restore.
			if err := term.Restore(int(c.in.Fd()), c.saved); err != nil && !errors.Is(err, unix.EIO) {
				c.closeErr = fmt.Errorf("restore terminal: %w", err)
			}
		}
	})
	return c.closeErr
}

// signal wakes run. The counter of an eventfd cannot overflow here, and a full
// one would be as good a signal.
func (c *Console) signal() {
	_, _ = unix.Write(c.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// isOpen reports whether in has a file behind it.
func isOpen(in *os.File) bool {
	_, err := in.Stat()
	return err == nil
}

// inBackground reports whether in is the terminal of a job that the shell has
// put into the background: reading it or changing its mode would stop us.
func inBackground(in *os.File) bool {
	group, err := unix.IoctlGetInt(int(in.Fd()), unix.TIOCGPGRP)
	return err == nil && group != unix.Getpgrp()
}

// makeRaw sets a terminal to raw mode but leaves its output processing on, so
// that our own messages, which end in a bare line feed, do not stagger.
func makeRaw(fd int) (*term.State, error) {
	saved, err := term.MakeRaw(fd)
	if err != nil {
		return nil, err
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		t.Oflag |= unix.OPOST
		err = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	if err != nil {
		return nil, errors.Join(err, term.Restore(fd, saved))
	}
	return saved, nil
}
