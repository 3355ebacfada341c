// Package uffdtest touches guest views on behalf of tests, as a vCPU would.
//
// A Go load of a guest-view address can deadlock the process: the thread waits in
// a page fault while the runtime waits for it to stop the world, the goroutine
// that should resolve the fault included. So these functions have the kernel make
// the access inside a system call, where the runtime does not wait for the
// thread. All block until the fault is resolved; no signal ends that.
package uffdtest

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Touch takes a read or write fault at addr, as one instruction would, and leaves
// what is there unchanged.
func Touch(addr uintptr, write bool) error {
	advice := unix.MADV_POPULATE_READ
	if write {
		advice = unix.MADV_POPULATE_WRITE
	}
	const page = 4096
	if _, _, e := unix.Syscall(unix.SYS_MADVISE, addr&^(page-1), page, uintptr(advice)); e != 0 {
		return fmt.Errorf("touch %#x (write %v): %w", addr, write, e)
	}
	return nil
}

// Load reads the 8 bytes at addr.
func Load(addr uintptr) (uint64, error) {
	var b [8]byte
	local := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	remote := unix.RemoteIovec{Base: addr, Len: len(b)}
	n, err := unix.ProcessVMReadv(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err != nil || n != len(b) {
		return 0, fmt.Errorf("load %#x: %d bytes: %w", addr, n, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// Store writes the 8 bytes at addr.
func Store(addr uintptr, v uint64) error {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	local := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	remote := unix.RemoteIovec{Base: addr, Len: len(b)}
	n, err := unix.ProcessVMWritev(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err != nil || n != len(b) {
		return fmt.Errorf("store %#x: %d bytes: %w", addr, n, err)
	}
	return nil
}

// Write writes b at addr, which may not cross a page.
func Write(addr uintptr, b []byte) error {
	local := unix.Iovec{Base: &b[0], Len: uint64(len(b))}
	remote := unix.RemoteIovec{Base: addr, Len: len(b)}
	n, err := unix.ProcessVMWritev(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err != nil || n != len(b) {
		return fmt.Errorf("write %d bytes at %#x: %d written: %w", len(b), addr, n, err)
	}
	return nil
}

// Numbers of linux/futex.h.
const (
	futexWakeOp      = 5
	futexPrivateFlag = 128
	futexOpAdd       = 1
	futexOpCmpEQ     = 0
)

// Increment adds 1 to the 4 bytes at addr with one locked instruction, as a vCPU's
// "lock inc" would; addr is a multiple of 4.
//
// The instruction is FUTEX_WAKE_OP's. The kernel does not wait for a userfault
// there but says EFAULT, so Increment takes the fault with Touch and tries again,
// until the page stays long enough.
func Increment(addr uintptr) error {
	const op = futexOpAdd<<28 | futexOpCmpEQ<<24 | 1<<12
	for {
		// Both futex words are addr: nobody waits on it, so nobody is woken.
		_, _, e := unix.Syscall6(unix.SYS_FUTEX, addr, futexWakeOp|futexPrivateFlag, 0, 0, addr, op)
		switch e {
		case 0:
			return nil
		case unix.EFAULT:
			if err := Touch(addr, true); err != nil {
				return err
			}
		case unix.EAGAIN, unix.EINTR:
		default:
			return fmt.Errorf("increment %#x: %w", addr, e)
		}
	}
}
