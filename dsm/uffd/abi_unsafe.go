package uffd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The kernel's sizes, checked when this is compiled.
var (
	_ [unsafe.Sizeof(uffdioRange{}) - 16]byte
	_ [16 - unsafe.Sizeof(uffdioRange{})]byte
	_ [unsafe.Sizeof(uffdioAPI{}) - 24]byte
	_ [24 - unsafe.Sizeof(uffdioAPI{})]byte
	_ [unsafe.Sizeof(uffdioRegister{}) - 32]byte
	_ [32 - unsafe.Sizeof(uffdioRegister{})]byte
	_ [unsafe.Sizeof(uffdioWriteProtect{}) - 24]byte
	_ [24 - unsafe.Sizeof(uffdioWriteProtect{})]byte
	_ [unsafe.Sizeof(uffdioContinue{}) - 32]byte
	_ [32 - unsafe.Sizeof(uffdioContinue{})]byte
)

// The ioctls go through Syscall and not RawSyscall: they wait for the mmap lock,
// and the runtime must be able to stop the world meanwhile.

func (a *uffdioAPI) ioctl(fd int) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlAPI, uintptr(unsafe.Pointer(a)))
	return e
}

func (a *uffdioRegister) ioctl(fd int) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlRegister, uintptr(unsafe.Pointer(a)))
	return e
}

// ioctl does UFFDIO_UNREGISTER or UFFDIO_WAKE.
func (a *uffdioRange) ioctl(fd int, request uintptr) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(a)))
	return e
}

func (a *uffdioWriteProtect) ioctl(fd int) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlWriteProtect, uintptr(unsafe.Pointer(a)))
	return e
}

// ioctl does UFFDIO_CONTINUE or UFFDIO_POISON.
func (a *uffdioContinue) ioctl(fd int, request uintptr) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(a)))
	return e
}

// read and write are read(2) and write(2) of a non-empty p. Unlike unix.Read and
// unix.Write they do not allocate when the race detector is on.

func read(fd int, p []byte) (int, unix.Errno) {
	n, _, e := unix.Syscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return int(n), e
}

func write(fd int, p []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	return e
}
