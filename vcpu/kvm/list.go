package kvm

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// The variable-length answers: CPUID tables and MSR lists.

const (
	maxCPUID       = 256 // KVM_MAX_CPUID_ENTRIES
	cpuidEntrySize = 40

	// MaxMSRs is how many MSRs one call takes: fewer than MAX_IO_MSRS (256).
	MaxMSRs = 255
)

// getCPUID fetches a CPUID table with room for as many entries as KVM allows.
func getCPUID(fd int, req uintptr) ([]CPUIDEntry, error) {
	b := make([]byte, 8+maxCPUID*cpuidEntrySize)
	binary.LittleEndian.PutUint32(b, maxCPUID)
	if _, errno := ioctlBytes(fd, req, b); errno != 0 {
		return nil, errno
	}
	n := binary.LittleEndian.Uint32(b)
	if n > maxCPUID {
		return nil, fmt.Errorf("%d entries, at most %d", n, maxCPUID)
	}
	e := make([]CPUIDEntry, n)
	_, err := binary.Decode(b[8:], binary.LittleEndian, e)
	return e, err
}

// getMSRList fetches a list of MSR indices, asking twice: KVM answers E2BIG
// and writes the number wanted.
func getMSRList(fd int, req uintptr) ([]uint32, error) {
	b := make([]byte, 4)
	var errno syscall.Errno
	for range 2 {
		if _, errno = ioctlBytes(fd, req, b); errno != unix.E2BIG {
			break
		}
		n := binary.LittleEndian.Uint32(b)
		b = make([]byte, 4+4*n)
		binary.LittleEndian.PutUint32(b, n)
	}
	if errno != 0 {
		return nil, errno
	}
	n := int(binary.LittleEndian.Uint32(b))
	if 4+4*n > len(b) {
		return nil, fmt.Errorf("%d entries in %d bytes", n, len(b))
	}
	l := make([]uint32, n)
	_, err := binary.Decode(b[4:], binary.LittleEndian, l)
	return l, err
}
