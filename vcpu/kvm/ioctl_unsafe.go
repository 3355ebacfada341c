package kvm

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ioctl issues a request whose argument is a number. EINTR is retried: Go
// preempts with SIGURG, and KVM_CREATE_VM gives up when it sees a signal. Not
// for KVM_RUN, where EINTR is a result.
func ioctl(fd int, req, arg uintptr) (int, syscall.Errno) {
	for {
		r, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), req, arg)
		if errno != unix.EINTR {
			return int(r), errno
		}
	}
}

// ioctlPtr issues a request whose argument is a structure.
func ioctlPtr[T any](fd int, req uintptr, arg *T) (int, syscall.Errno) {
	for {
		r, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		if errno != unix.EINTR {
			return int(r), errno
		}
	}
}

// ioctlBytes issues a request whose argument is a variable-length buffer.
func ioctlBytes(fd int, req uintptr, arg []byte) (int, syscall.Errno) {
	return ioctlPtr(fd, req, unsafe.SliceData(arg))
}

// deviceAttr reads or writes one attribute of a vCPU. The value's address
// travels inside a structure, where the garbage collector does not see it, so
// the value is pinned for the call.
func deviceAttr(fd int, req uintptr, group uint32, attr uint64, value *uint64) syscall.Errno {
	var pin runtime.Pinner
	pin.Pin(value)
	defer pin.Unpin()
	a := deviceAttrArg{group: group, attr: attr, addr: uint64(uintptr(unsafe.Pointer(value)))}
	_, errno := ioctlPtr(fd, req, &a)
	return errno
}
