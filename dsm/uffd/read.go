package uffd

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Read waits for faults and stores up to len(buf) of them, at most 16 at a time.
// It returns ErrInterrupted after Interrupt and ErrClosed after Close.
//
// The kernel hands each message to exactly one Read, and a thread waits behind
// it: every Fault must be answered by Continue, Unprotect, Poison or Wake. A Fault
// may be stale, when a signal made its thread return early.
//
// It sleeps in poll(2) made as a plain system call, not in the runtime's network
// poller, which would cost a switch of goroutines on every fault. The descriptor
// is non-blocking because nothing but a signal ends a blocking read of one.
func (u *Uffd) Read(buf []Fault) (int, error) {
	u.alive.RLock()
	defer u.alive.RUnlock()
	if len(buf) == 0 {
		return 0, nil
	}
	woken := false
	for spins := u.spinReads; ; spins-- {
		if u.closed || u.closing.Load() {
			return 0, ErrClosed
		}
		if u.bellRings.Load() > 0 && u.takeRing() {
			return 0, ErrInterrupted
		}
		n, err := u.readMessages(buf)
		if n > 0 || err != nil {
			return n, err
		}
		if spins > 0 {
			continue
		}
		if woken {
			u.vanished.Add(1)
			Breathe()
		}
		if woken, err = u.sleep(); err != nil {
			return 0, err
		}
	}
}

// Breathe stops the calling thread for a moment. A thread with a signal pending
// that faults inside KVM's instruction emulator does not sleep but faults again
// and again until the page is there. Its messages come and vanish; whoever
// follows each of them uses up the time that the page needs to come.
func Breathe() {
	pause := unix.NsecToTimespec(100_000)
	_ = unix.Nanosleep(&pause, nil) // cut short by a signal is as good
}

// Vanished returns how often a message was gone before it could be read: a
// signal had made its thread return early, or it spins (see Breathe).
func (u *Uffd) Vanished() uint64 { return u.vanished.Load() }

// readMessages takes the messages that are there, perhaps none.
func (u *Uffd) readMessages(buf []Fault) (int, error) {
	var raw [msgBatch * msgSize]byte
	n, e := read(u.fd, raw[:min(len(buf), msgBatch)*msgSize])
	switch e {
	case 0:
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	default:
		return 0, e
	}
	faults := 0
	for m := raw[:n]; len(m) >= msgSize; m = m[msgSize:] {
		addr := uintptr(binary.LittleEndian.Uint64(m[msgAddress:]))
		page := (addr - u.mem.guest) >> pageShift
		if m[msgEvent] != eventPagefault || page >= uintptr(u.mem.Pages()) {
			return faults, fmt.Errorf("userfaultfd: unexpected message, event %#x at %#x", m[msgEvent], addr)
		}
		flags := binary.LittleEndian.Uint64(m[msgFlags:])
		buf[faults] = Fault{
			Page:  uint32(page),
			Write: flags&faultWrite != 0,
			WP:    flags&faultWP != 0,
			Minor: flags&faultMinor != 0,
			TID:   binary.LittleEndian.Uint32(m[msgThreadID:]),
		}
		faults++
	}
	return faults, nil
}

// sleep waits for a message or for the bell, and tells whether a message was
// there.
func (u *Uffd) sleep() (message bool, err error) {
	fds := [2]unix.PollFd{
		{Fd: int32(u.fd), Events: unix.POLLIN},
		{Fd: int32(u.bell), Events: unix.POLLIN},
	}
	if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
		return false, err
	}
	if fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		return false, fmt.Errorf("userfaultfd: poll events %#x", fds[0].Revents)
	}
	return fds[0].Revents&unix.POLLIN != 0, nil
}

// takeRing takes one ring of the bell, if another reader has not.
func (u *Uffd) takeRing() bool {
	var b [8]byte
	if _, e := read(u.bell, b[:]); e != 0 {
		return false
	}
	u.bellRings.Add(-1)
	return true
}

// ring rings the bell once.
func (u *Uffd) ring() error {
	one := [8]byte{0: 1}
	if e := write(u.bell, one[:]); e != 0 {
		return fmt.Errorf("userfaultfd: ring the eventfd: %w", e)
	}
	return nil
}

// Interrupt makes one Read, running or next, return ErrInterrupted.
func (u *Uffd) Interrupt() error {
	u.alive.RLock()
	defer u.alive.RUnlock()
	if u.closed {
		return ErrClosed
	}
	u.bellRings.Add(1)
	return u.ring()
}
