package console

import (
	"errors"

	"golang.org/x/sys/unix"
)

// run passes input on until it ends, the user quits or Close is called.
func (c *Console) run() {
	defer close(c.finished)
	var (
		keys    escape
		pending []byte // for the sink
		buf     [1024]byte
		ended   bool
	)
	fd := int32(c.in.Fd())
	for !ended || len(pending) > 0 {
		// A terminal is always read, a pipe when the sink has taken what came before.
		fds := [2]unix.PollFd{{Fd: int32(c.wake), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
		if !ended && (c.terminal || len(pending) == 0) {
			fds[1].Fd = fd
		}
		if _, err := unix.Poll(fds[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if c.stop.Load() {
			return
		}
		if fds[0].Revents != 0 {
			_, _ = unix.Read(c.wake, buf[:8]) // clears it; there may be nothing to clear
		}
		if fds[1].Revents != 0 {
			n, err := unix.Read(int(fd), buf[:])
			switch {
			case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
			case err != nil || n <= 0:
				ended = true
			case !c.terminal:
				pending = append(pending, buf[:n]...)
			default:
				in, typed := keys.filter(buf[:n])
				if typed.quit {
					close(c.quit)
					return
				}
				pending = c.keep(pending, in)
				if typed.help {
					c.tell(Help)
				}
			}
		}
		if len(pending) > 0 {
			n := c.sink.Enqueue(pending)
			pending = pending[:copy(pending, pending[n:])]
		}
	}
}

// keep appends typed input to pending as far as there is room.
func (c *Console) keep(pending, in []byte) []byte {
	n := min(len(in), pasteRoom-len(pending))
	if n < len(in) {
		c.tell("\a")
	}
	return append(pending, in[:n]...)
}

// tell writes to the user. A terminal that takes no messages is no reason to
// stop the guest.
func (c *Console) tell(s string) { _, _ = c.out.Write([]byte(s)) }
