package microvm

import (
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RAM is guest memory from physical address 0: a memfd mapped into this
// process. It is an ordinary mapping; Go code may touch it.
type RAM struct {
	file *os.File
	mem  []byte
}

// NewRAM makes size bytes of zeroed memory.
func NewRAM(size int) (*RAM, error) {
	fd, err := unix.MemfdCreate("micro", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	f := os.NewFile(uintptr(fd), "micro")
	if err := f.Truncate(int64(size)); err != nil {
		f.Close()
		return nil, err
	}
	return MapRAM(f)
}

// MapRAM maps the memory of another process's RAM. It takes over the file.
func MapRAM(f *os.File) (*RAM, error) {
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("mapping %d bytes of guest memory: %w", st.Size(), err)
	}
	return &RAM{file: f, mem: mem}, nil
}

// File is the memfd, to be passed to another process.
func (r *RAM) File() *os.File { return r.file }

// Size is the memory's size in bytes.
func (r *RAM) Size() int { return len(r.mem) }

// WriteAt writes at a guest-physical address.
func (r *RAM) WriteAt(b []byte, gpa int64) (int, error) {
	if gpa < 0 || gpa > int64(len(r.mem)) {
		return 0, io.ErrShortWrite
	}
	if n := copy(r.mem[gpa:], b); n < len(b) {
		return n, io.ErrShortWrite
	}
	return len(b), nil
}

// Load reads a quadword that the guest may be writing.
func (r *RAM) Load(gpa uint64) uint64 { return r.word(gpa).Load() }

// Store writes a quadword that the guest may be reading.
func (r *RAM) Store(gpa, v uint64) { r.word(gpa).Store(v) }

func (r *RAM) word(gpa uint64) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&r.mem[gpa : gpa+8][0]))
}

// addr is where the memory is mapped.
func (r *RAM) addr() uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(r.mem))) }

// Close unmaps the memory. No VM may be using it.
func (r *RAM) Close() error {
	if err := unix.Munmap(r.mem); err != nil {
		return err
	}
	return r.file.Close()
}
