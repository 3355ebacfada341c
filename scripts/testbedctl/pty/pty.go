// Package pty opens pseudo-terminals.
package pty

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Terminal is our side of a pseudo-terminal. It is read and written without blocking a thread, with deadlines; Fd would
// end that, so the descriptor is kept beside it.
type Terminal struct {
	*os.File
	fd int
}

// Open opens a new pseudo-terminal of that size in characters.
func Open(rows, cols uint16) (*Terminal, error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/ptmx: %w", err)
	}
	t := &Terminal{File: os.NewFile(uintptr(fd), "/dev/ptmx"), fd: fd}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Close()
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	if err := t.Resize(rows, cols); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

// Resize tells the terminal its size in characters.
func (t *Terminal) Resize(rows, cols uint16) error {
	if err := unix.IoctlSetWinsize(t.fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		return fmt.Errorf("set the terminal's size: %w", err)
	}
	return nil
}

// PeerName returns the path of the other side, for the programs that are to have the terminal.
func (t *Terminal) PeerName() (string, error) {
	n, err := unix.IoctlGetInt(t.fd, unix.TIOCGPTN)
	if err != nil {
		return "", fmt.Errorf("find the terminal's name: %w", err)
	}
	return "/dev/pts/" + strconv.Itoa(n), nil
}

// OpenPeer opens the other side.
func (t *Terminal) OpenPeer() (*os.File, error) {
	name, err := t.PeerName()
	if err != nil {
		return nil, err
	}
	return os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
}
