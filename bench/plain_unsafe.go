package bench

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeMemory returns size bytes of private memory on a boundary of 2 MiB, which
// the kernel backs with pages of that size if it has them, and its address; all
// that is to be unmapped in the end is mapping.
func hugeMemory(size int) (mem []byte, addr uintptr, mapping []byte, err error) {
	const huge = 2 << 20
	mapping, err = unix.Mmap(-1, 0, size+huge, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("map %d bytes: %w", size, err)
	}
	base := uintptr(unsafe.Pointer(unsafe.SliceData(mapping)))
	skip := int(-base & (huge - 1))
	mem = mapping[skip : skip+size]
	if err := unix.Madvise(mem, unix.MADV_HUGEPAGE); err != nil && err != unix.EINVAL {
		return nil, 0, mapping, fmt.Errorf("ask for huge pages: %w", err)
	}
	return mem, base + uintptr(skip), mapping, nil
}
