package uffd

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapViews maps the memfd twice. Only the alias becomes a slice.
func (m *Memory) mapViews() error {
	guest, err := mapView(m.fd, uintptr(m.size))
	if err != nil {
		return fmt.Errorf("map the guest view: %w", err)
	}
	alias, err := mapView(m.fd, uintptr(m.size))
	if err != nil {
		return errors.Join(fmt.Errorf("map the alias: %w", err), unix.MunmapPtr(guest, uintptr(m.size)))
	}
	m.guest = uintptr(guest)
	m.alias = unsafe.Slice((*byte)(alias), m.size)
	m.unmap = func() error {
		return errors.Join(unix.MunmapPtr(guest, uintptr(m.size)), unix.MunmapPtr(alias, uintptr(m.size)))
	}
	return nil
}

// mapView maps the memfd at an address that is a multiple of 2 MiB, which huge
// pages need. It reserves more than that, maps inside, and returns the rest.
func mapView(fd int, size uintptr) (unsafe.Pointer, error) {
	room := size + hugeSize
	base, err := unix.MmapPtr(-1, 0, nil, room, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", room, err)
	}
	head := -uintptr(base) & (hugeSize - 1)
	at := unsafe.Add(base, head)
	_, err = unix.MmapPtr(fd, 0, at, size, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_NORESERVE|unix.MAP_FIXED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mmap %d bytes of memfd: %w", size, err), unix.MunmapPtr(base, room))
	}
	if head > 0 {
		err = unix.MunmapPtr(base, head)
	}
	// The view need not end on a page table's boundary, but always on a page's.
	return at, errors.Join(err, unix.MunmapPtr(unsafe.Add(at, size), room-head-size))
}

// aliasAddr returns where the alias starts.
func (m *Memory) aliasAddr() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(m.alias))) }

// madvise is madvise(2) by address: the guest view is no slice.
func madvise(addr, length uintptr, advice int) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_MADVISE, addr, length, uintptr(advice))
	return e
}

// mlockOnFault is mlock2(2) with MLOCK_ONFAULT.
func mlockOnFault(addr, length uintptr) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_MLOCK2, addr, length, unix.MLOCK_ONFAULT)
	return e
}

// mincore is mincore(2): it fills in a byte for each page from addr on, whose
// lowest bit tells whether the page is in memory.
func mincore(addr uintptr, pages []byte) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_MINCORE, addr, uintptr(len(pages))<<pageShift, uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	return e
}
