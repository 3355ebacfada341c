package uffd

import (
	"errors"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sys/unix"
)

// PageSize is the unit of coherence in bytes. x86's larger pages are never shared.
const PageSize = 4096

const (
	pageShift = 12
	hugeSize  = 2 << 20
)

// Window is a range of the guest physical map that is RAM. Both numbers are bytes
// and multiples of PageSize.
type Window struct {
	GPA, Size uint64
}

// Slot is a Window and where it is in the guest view, as
// KVM_SET_USER_MEMORY_REGION wants it. HVA is for the kernel only: see the
// package's comment on who may touch the guest view.
type Slot struct {
	GPA, Size uint64
	HVA       uintptr
}

// MemoryOptions says how the kernel keeps the memory. The zero value suits a
// guest that spans hosts.
type MemoryOptions struct {
	// Huge lets the guest view be mapped with 2 MiB pages where the system's
	// shmem_enabled setting allows it. See Memory.AllowHuge.
	Huge bool
	// Lock keeps pages resident from the moment they are touched through the
	// alias (MLOCK_ONFAULT). It counts against RLIMIT_MEMLOCK.
	Lock bool
}

// Memory is guest RAM: one memfd, two views. Its windows lie one after another,
// in the order given, in the memfd and in both views; a page is named by its
// index in that order.
//
// All methods but Close may be called from any goroutine at any time.
type Memory struct {
	name    string
	windows []placed
	size    uint64 // bytes of the memfd and of each view

	fd    int
	guest uintptr // where the guest view starts; never dereferenced here
	alias []byte

	closeOnce sync.Once
	unmap     func() error
}

// placed is a window and its first page's index.
type placed struct {
	Window
	first uint32
}

// NewMemory makes guest RAM of the windows, all of it holes that read as zero.
// The name appears in /proc/self/maps. Nothing is resident until it is touched.
//
// 2 MiB pages are possible in a window when its GPA and the sum of the sizes of
// the windows before it are multiples of 2 MiB; so put ragged ones last.
func NewMemory(name string, windows []Window, opts MemoryOptions) (*Memory, error) {
	m := &Memory{name: name, fd: -1}
	if err := m.place(windows); err != nil {
		return nil, fmt.Errorf("guest memory %q: %w", name, err)
	}
	fd, err := createMemfd(name, m.size)
	if err != nil {
		return nil, fmt.Errorf("guest memory %q: %w", name, err)
	}
	m.fd = fd
	if err := m.mapViews(); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("guest memory %q: %w", name, err)
	}
	if err := m.advise(opts); err != nil {
		m.Close()
		return nil, fmt.Errorf("guest memory %q: %w", name, err)
	}
	return m, nil
}

// place checks the windows and lays them out.
func (m *Memory) place(windows []Window) error {
	if len(windows) == 0 {
		return errors.New("no windows")
	}
	for i, w := range windows {
		if w.Size == 0 || w.GPA%PageSize != 0 || w.Size%PageSize != 0 {
			return fmt.Errorf("window %#x+%#x is empty or not made of whole pages", w.GPA, w.Size)
		}
		if w.GPA+w.Size < w.GPA {
			return fmt.Errorf("window %#x+%#x wraps around", w.GPA, w.Size)
		}
		for _, o := range windows[:i] {
			if w.GPA < o.GPA+o.Size && o.GPA < w.GPA+w.Size {
				return fmt.Errorf("windows %#x+%#x and %#x+%#x overlap", o.GPA, o.Size, w.GPA, w.Size)
			}
		}
		// A view must fit an address space (and int): 2^47 bytes on x86-64.
		if w.Size > 1<<46 || m.size+w.Size > 1<<46 || (m.size+w.Size)>>pageShift > math.MaxUint32 {
			return fmt.Errorf("%#x bytes at %#x are more than can be mapped", w.Size, w.GPA)
		}
		m.windows = append(m.windows, placed{w, uint32(m.size >> pageShift)})
		m.size += w.Size
	}
	return nil
}

// createMemfd makes a memfd of a size that cannot change any more, so that no
// access to a view can meet its end (SIGBUS).
func createMemfd(name string, size uint64) (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("ftruncate memfd to %d bytes: %w", size, err)
	}
	const seals = unix.F_SEAL_GROW | unix.F_SEAL_SHRINK | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal memfd's size: %w", err)
	}
	return fd, nil
}

// advise sets up both views for the kernel.
func (m *Memory) advise(opts MemoryOptions) error {
	for _, v := range []struct {
		view string
		addr uintptr
	}{{"guest view", m.guest}, {"alias", m.aliasAddr()}} {
		// A core file has no use for guest RAM, and writing it would fault on
		// every page; a forked child has none either.
		for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
			if e := madvise(v.addr, uintptr(m.size), advice); e != 0 {
				return fmt.Errorf("madvise(%d) on the %s: %w", advice, v.view, e)
			}
		}
	}
	// The alias writes single pages: a huge one there would fill the memfd.
	if e := madvise(m.aliasAddr(), uintptr(m.size), unix.MADV_NOHUGEPAGE); e != 0 && e != unix.EINVAL {
		return fmt.Errorf("madvise(MADV_NOHUGEPAGE) on the alias: %w", e)
	}
	if err := m.AllowHuge(opts.Huge); err != nil {
		return err
	}
	if opts.Lock {
		if e := mlockOnFault(m.aliasAddr(), uintptr(m.size)); e != 0 {
			return fmt.Errorf("mlock2(MLOCK_ONFAULT) of %d bytes (RLIMIT_MEMLOCK?): %w", m.size, e)
		}
	}
	return nil
}

// AllowHuge says whether the kernel may map the guest view with 2 MiB pages from
// now on: yes for a guest on one host, no while pages are shared one by one. A
// kernel without huge pages is not an error.
func (m *Memory) AllowHuge(yes bool) error {
	advice := unix.MADV_NOHUGEPAGE
	if yes {
		advice = unix.MADV_HUGEPAGE
	}
	if e := madvise(m.guest, uintptr(m.size), advice); e != 0 && e != unix.EINVAL {
		return fmt.Errorf("guest memory %q: madvise(%d) on the guest view: %w", m.name, advice, e)
	}
	return nil
}

// Collapse makes huge pages of the whole 2 MiB regions among n pages from page
// on, at the cost of milliseconds each (MADV_COLLAPSE, Linux 6.1). It works with
// shmem_enabled=never, needs AllowHuge(true), and refuses registered pages.
// Regions that touch the range only in part stay as they are.
func (m *Memory) Collapse(page uint32, n int) error {
	addr, length, err := m.guestRange(page, n)
	if err != nil {
		return err
	}
	start := (addr + hugeSize - 1) &^ (hugeSize - 1)
	end := (addr + length) &^ (hugeSize - 1)
	if start >= end {
		return nil
	}
	if e := madvise(start, end-start, unix.MADV_COLLAPSE); e != 0 {
		return fmt.Errorf("guest memory %q: madvise(MADV_COLLAPSE): %w", m.name, e)
	}
	return nil
}

// InUse returns how many of n pages from page on the memfd holds; the others are
// holes.
func (m *Memory) InUse(page uint32, n int) (int, error) {
	if !m.in(page, n) {
		return 0, ErrRange
	}
	resident := make([]byte, n)
	if e := mincore(m.aliasAddr()+uintptr(page)<<pageShift, resident); e != 0 {
		return 0, fmt.Errorf("guest memory %q: mincore: %w", m.name, e)
	}
	used := 0
	for _, r := range resident {
		used += int(r & 1)
	}
	return used, nil
}

// Pages returns the number of pages in all windows. Page indices are 0..Pages()-1.
func (m *Memory) Pages() int { return int(m.size >> pageShift) }

// Index returns the index of the page that holds guest physical address gpa. It
// is not ok outside the windows.
func (m *Memory) Index(gpa uint64) (page uint32, ok bool) {
	for i := range m.windows {
		if w := &m.windows[i]; gpa-w.GPA < w.Size {
			return w.first + uint32((gpa-w.GPA)>>pageShift), true
		}
	}
	return 0, false
}

// GPA returns the guest physical address of a page. It panics on an index that is
// not below Pages().
func (m *Memory) GPA(page uint32) uint64 {
	if int(page) >= m.Pages() {
		panic(fmt.Sprintf("uffd: page %d of %d", page, m.Pages()))
	}
	w := m.window(page)
	return w.GPA + uint64(page-w.first)<<pageShift
}

// Slots returns the windows with their places in the guest view.
func (m *Memory) Slots() []Slot {
	s := make([]Slot, len(m.windows))
	for i, w := range m.windows {
		s[i] = Slot{GPA: w.GPA, Size: w.Size, HVA: m.guest + uintptr(w.first)<<pageShift}
	}
	return s
}

// HVA returns a page's address in the guest view. It is for system calls only.
func (m *Memory) HVA(page uint32) uintptr { return m.guest + uintptr(page)<<pageShift }

// Alias returns n pages of the alias from page on. Go code may read and write
// them at any time; reading a hole allocates its page. The slice must not be used
// after Close. Like a slice expression, it panics when the pages are not all in
// the memory: whoever takes indices from elsewhere checks them first.
func (m *Memory) Alias(page uint32, n int) []byte {
	start := int(page) << pageShift
	end := start + n<<pageShift
	return m.alias[start:end:end]
}

// ReadAt reads guest physical memory from gpa on, across windows that touch. It
// is an io.ReaderAt: short only with an error, which is ErrNotRAM where the
// windows end.
func (m *Memory) ReadAt(p []byte, gpa int64) (int, error) {
	return m.each(p, gpa, func(alias, part []byte) { copy(part, alias) })
}

// WriteAt writes guest physical memory from gpa on, across windows that touch,
// for loaders before the guest runs. Nothing is written unless all of p fits. It
// is an io.WriterAt.
func (m *Memory) WriteAt(p []byte, gpa int64) (int, error) {
	if n, err := m.each(p, gpa, func(_, _ []byte) {}); n < len(p) {
		return 0, err
	}
	return m.each(p, gpa, func(alias, part []byte) { copy(alias, part) })
}

// each calls f with the parts of p and of the alias that belong together.
func (m *Memory) each(p []byte, gpa int64, f func(alias, part []byte)) (int, error) {
	done := 0
	for done < len(p) {
		at := uint64(gpa) + uint64(done)
		page, ok := m.Index(at)
		if !ok {
			return done, fmt.Errorf("guest memory %q: %w at %#x (of %d bytes from %#x)", m.name, ErrNotRAM, at, len(p), gpa)
		}
		w := m.window(page)
		off := uint64(w.first)<<pageShift + (at - w.GPA)
		n := min(uint64(len(p)-done), w.GPA+w.Size-at)
		f(m.alias[off:off+n], p[done:done+int(n)])
		done += int(n)
	}
	return done, nil
}

// window returns the window that holds page.
func (m *Memory) window(page uint32) *placed {
	for i := len(m.windows) - 1; i > 0; i-- {
		if m.windows[i].first <= page {
			return &m.windows[i]
		}
	}
	return &m.windows[0]
}

// Resident returns the bytes of memory that the memfd occupies.
func (m *Memory) Resident() uint64 {
	var st unix.Stat_t
	if err := unix.Fstat(m.fd, &st); err != nil {
		return 0
	}
	return uint64(st.Blocks) * 512
}

// PunchAlias gives the memory of n pages from page on back to the system; they
// read as zero afterwards. It unmaps them from both views but keeps
// write-protection markers in the guest view. It allocates nothing.
func (m *Memory) PunchAlias(page uint32, n int) error {
	if !m.in(page, n) {
		return ErrRange
	}
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	for {
		err := unix.Fallocate(m.fd, mode, int64(page)<<pageShift, int64(n)<<pageShift)
		if err != unix.EINTR {
			return err
		}
	}
}

// PopulateAlias makes sure that the memfd holds a page for each of n pages from
// page on; holes become zero pages. Continue needs that. It allocates nothing.
func (m *Memory) PopulateAlias(page uint32, n int) error {
	if !m.in(page, n) {
		return ErrRange
	}
	for {
		e := madvise(m.aliasAddr()+uintptr(page)<<pageShift, uintptr(n)<<pageShift, unix.MADV_POPULATE_WRITE)
		switch e {
		case 0:
			return nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return e
		}
	}
}

// in reports whether there are n > 0 pages from page on.
func (m *Memory) in(page uint32, n int) bool {
	return n > 0 && n <= m.Pages() && int(page) <= m.Pages()-n
}

// guestRange returns where n pages from page on are in the guest view.
func (m *Memory) guestRange(page uint32, n int) (addr, length uintptr, err error) {
	if !m.in(page, n) {
		return 0, 0, ErrRange
	}
	return m.HVA(page), uintptr(n) << pageShift, nil
}

// Close unmaps both views and frees the memory. Every VM, Uffd and Alias slice
// that uses the memory must be gone before. Calling it again does nothing.
func (m *Memory) Close() error {
	var err error
	m.closeOnce.Do(func() {
		m.alias = nil
		err = errors.Join(m.unmap(), unix.Close(m.fd))
		m.fd = -1
	})
	return err
}
