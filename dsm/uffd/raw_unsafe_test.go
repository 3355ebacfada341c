package uffd_test

import (
	"testing"
	"unsafe"

	"coalesce/dsm/uffd"

	"golang.org/x/sys/unix"
)

// rawUffd is a userfaultfd opened as package uffd never does.
type rawUffd struct{ fd int }

// openWithEventRemove registers all of m for missing faults and remove events.
func openWithEventRemove(t *testing.T, m *uffd.Memory) rawUffd {
	t.Helper()
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC, 0, 0)
	if e != 0 {
		t.Fatal(e)
	}
	t.Cleanup(func() { unix.Close(int(fd)) })
	const ioctlAPI, ioctlRegister, modeMissing = 0xC018AA3F, 0xC020AA00, 1
	api := [3]uint64{0xAA, uffd.FeatureEventRemove | uffd.FeatureMissingShmem}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, ioctlAPI, uintptr(unsafe.Pointer(&api))); e != 0 {
		t.Fatal(e)
	}
	reg := [4]uint64{uint64(m.HVA(0)), uint64(m.Pages()) * uffd.PageSize, modeMissing}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, fd, ioctlRegister, uintptr(unsafe.Pointer(&reg))); e != 0 {
		t.Fatal(e)
	}
	return rawUffd{int(fd)}
}

// nextEvent reads one message and returns its kind.
func (r rawUffd) nextEvent(t *testing.T) byte {
	t.Helper()
	var msg [32]byte
	for {
		_, err := unix.Read(r.fd, msg[:])
		if err == unix.EINTR {
			continue
		}
		check(t, err)
		return msg[0]
	}
}

// vmsplice pins n bytes at addr into a pipe.
func vmsplice(pipe int, addr uintptr, n int) error {
	iov := struct {
		base uintptr
		len  uint64
	}{addr, uint64(n)}
	_, _, e := unix.Syscall6(unix.SYS_VMSPLICE, uintptr(pipe), uintptr(unsafe.Pointer(&iov)), 1, 0, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
