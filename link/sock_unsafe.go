package link

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxParts is how many payload parts one Send takes.
const MaxParts = 7

// sendNoWait offers a frame to the socket with one sendmsg(2) and returns how
// many bytes it took; a full socket is 0, nil. len(payload) <= MaxParts. May not
// allocate, may not block. x/sys/unix has the same call, but allocates for it.
func sendNoWait(fd int, hdr *[HeaderSize]byte, payload [][]byte) (int, error) {
	var iov [1 + MaxParts]unix.Iovec
	iov[0].Base = &hdr[0]
	iov[0].SetLen(HeaderSize)
	n := 1
	for _, p := range payload {
		if len(p) > 0 {
			iov[n].Base = unsafe.SliceData(p)
			iov[n].SetLen(len(p))
			n++
		}
	}
	var msg unix.Msghdr
	msg.Iov = &iov[0]
	msg.SetIovlen(n)
	for {
		// Syscall, not RawSyscall: a payload page may have to be faulted in.
		sent, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd),
			uintptr(unsafe.Pointer(&msg)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch errno {
		case 0:
			return int(sent), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
