package uffd

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Fault is one message of the kernel: a thread waits for a page.
type Fault struct {
	Page  uint32
	Write bool   // the access is a write
	WP    bool   // the page was mapped and write-protected when the fault was raised
	Minor bool   // the memfd holds the page, only the guest view lacks it
	TID   uint32 // thread id of the waiting thread: a vCPU's, if all is well
}

// Options says how a Uffd is read.
type Options struct {
	// SpinReads is how often Read looks for a message before it sleeps. It burns
	// CPU time for latency: waking a sleeping reader costs more than the rest of
	// a local fault.
	SpinReads int
}

// Uffd resolves the faults of pages registered with it. Several of them may share
// one Memory, each with pages of its own: the kernel serialises the faults of one,
// however many threads fault.
//
// Close order: first the threads that touch the guest view (vCPUs), then Close.
// Closing or unregistering with a thread waiting lets that thread go on with
// whatever the memfd holds.
type Uffd struct {
	mem       *Memory
	spinReads int
	poison    bool

	fd   int // userfaultfd, O_NONBLOCK
	bell int // eventfd that counts (EFD_SEMAPHORE): rung by Interrupt and Close

	// alive is held for reading during every operation and for writing by Close:
	// a file descriptor in use is never closed and so never reused.
	alive  sync.RWMutex
	closed bool // under alive; set by Close, once no operation runs

	vanished  atomic.Uint64 // see Vanished
	closing   atomic.Bool
	bellRings atomic.Int32 // rings of Interrupt that no reader took yet
}

// Open makes a userfaultfd over m's guest view. Pages fault to it from Register
// on. It needs read and write access to /dev/userfaultfd or CAP_SYS_PTRACE
// (errors.Is fs.ErrPermission) and a kernel with the features that Probe asks for
// (ErrNotSupported).
func Open(m *Memory, opts Options) (*Uffd, error) {
	support, err := Probe()
	if err != nil {
		return nil, err
	}
	features := uint64(requiredFeatures)
	poison := support.Features&FeaturePoison != 0
	if poison {
		features |= FeaturePoison
	}
	fd, _, err := newUserfaultfd()
	if err != nil {
		return nil, err
	}
	api := uffdioAPI{api: uffdAPI, features: features}
	if e := api.ioctl(fd); e != 0 {
		unix.Close(fd)
		return nil, fmt.Errorf("userfaultfd: UFFDIO_API with features %#x: %w", features, e)
	}
	bell, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK|unix.EFD_SEMAPHORE)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("userfaultfd: eventfd: %w", err)
	}
	return &Uffd{mem: m, spinReads: opts.SpinReads, poison: poison, fd: fd, bell: bell}, nil
}

// begin checks that the pages exist and holds off Close. end must follow if it
// returns nil.
func (u *Uffd) begin(page uint32, n int) error {
	if !u.mem.in(page, n) {
		return ErrRange
	}
	u.alive.RLock()
	if u.closed {
		u.alive.RUnlock()
		return ErrClosed
	}
	return nil
}

func (u *Uffd) end() { u.alive.RUnlock() }

// pages returns the address range of n pages from page on.
func (u *Uffd) pages(page uint32, n int) uffdioRange {
	return uffdioRange{start: uint64(u.mem.HVA(page)), len: uint64(n) << pageShift}
}

// Register makes n pages from page on fault to u: on any access while they are
// not mapped, on writes while they are write-protected. Pages mapped now stay
// mapped until Zap.
func (u *Uffd) Register(page uint32, n int) error {
	if err := u.begin(page, n); err != nil {
		return err
	}
	defer u.end()
	a := uffdioRegister{uffdioRange: u.pages(page, n), mode: registerMissing | registerMinor | registerWP}
	if e := a.ioctl(u.fd); e != 0 {
		return fmt.Errorf("userfaultfd: register %d pages from %d: %w", n, page, e)
	}
	const need = canWake | canWriteProtect | canContinue
	if a.ioctls&need != need {
		return fmt.Errorf("userfaultfd: registered memory lacks operations (has %#x, needs %#x): %w", a.ioctls, need, ErrNotSupported)
	}
	return nil
}

// Unregister undoes Register for n pages from page on: threads that wait are
// woken, write protection goes, and from now on pages that are not mapped get
// what the memfd holds, or zero.
func (u *Uffd) Unregister(page uint32, n int) error {
	if err := u.begin(page, n); err != nil {
		return err
	}
	defer u.end()
	a := u.pages(page, n)
	if e := a.ioctl(u.fd, ioctlUnregister); e != 0 {
		return fmt.Errorf("userfaultfd: unregister %d pages from %d: %w", n, page, e)
	}
	return nil
}

// Continue maps n pages from page on as the memfd holds them, write-protected if
// wp, and wakes their waiters. It returns how many pages it mapped. With an error
// those are the first ones, and they are woken. Errors: ErrPresent, ErrPartial,
// ErrHole, ErrUnregistered, ErrRange, ErrClosed, or an errno.
func (u *Uffd) Continue(page uint32, n int, wp bool) (mapped int, err error) {
	return u.mapPages(page, n, wpMode(wp))
}

// ContinueNoWake is Continue that wakes nobody: Wake must follow.
func (u *Uffd) ContinueNoWake(page uint32, n int, wp bool) (mapped int, err error) {
	return u.mapPages(page, n, wpMode(wp)|continueDontWake)
}

func wpMode(wp bool) uint64 {
	if wp {
		return continueWP
	}
	return 0
}

func (u *Uffd) mapPages(page uint32, n int, mode uint64) (int, error) {
	if err := u.begin(page, n); err != nil {
		return 0, err
	}
	defer u.end()
	a := uffdioContinue{uffdioRange: u.pages(page, n), mode: mode}
	e := a.ioctl(u.fd, ioctlContinue)
	return pagesDone(a.done), outcome(e)
}

// pagesDone reads the count of struct uffdio_continue: an errno below zero if nothing was done.
func pagesDone(done int64) int {
	if done < 0 {
		return 0
	}
	return int(done >> pageShift)
}

// WriteProtect makes the next write to each of n pages from page on a fault. When
// it returns, no CPU can write them any more. Pages that are not mapped stay so.
func (u *Uffd) WriteProtect(page uint32, n int) error {
	return u.protect(page, n, writeProtectWP)
}

// Unprotect lifts WriteProtect and wakes the waiters of the n pages. A page that is
// not mapped does not become mapped.
func (u *Uffd) Unprotect(page uint32, n int) error {
	return u.protect(page, n, 0)
}

func (u *Uffd) protect(page uint32, n int, mode uint64) error {
	if err := u.begin(page, n); err != nil {
		return err
	}
	defer u.end()
	a := uffdioWriteProtect{uffdioRange: u.pages(page, n), mode: mode}
	return outcome(a.ioctl(u.fd))
}

// Zap unmaps n pages from page on in the guest view. When it returns, no CPU can
// access them any more; the memfd keeps what they held.
func (u *Uffd) Zap(page uint32, n int) error {
	if err := u.begin(page, n); err != nil {
		return err
	}
	defer u.end()
	a := u.pages(page, n)
	for {
		e := madvise(uintptr(a.start), uintptr(a.len), unix.MADV_DONTNEED)
		switch e {
		case 0:
			return nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return e
		}
	}
}

// Wake lets the threads that wait for n pages from page on try again.
func (u *Uffd) Wake(page uint32, n int) error {
	if err := u.begin(page, n); err != nil {
		return err
	}
	defer u.end()
	a := u.pages(page, n)
	return outcome(a.ioctl(u.fd, ioctlWake))
}

// Poison makes any access to n pages from page on fail, as on broken memory: KVM_RUN
// returns EHWPOISON or EFAULT, a user-mode access is SIGBUS. It is for pages that are
// lost for good. Zap and Continue undo it. Pages that are mapped must be zapped
// first (ErrPresent). Before Linux 6.6 it is a FeatureError.
func (u *Uffd) Poison(page uint32, n int) (poisoned int, err error) {
	if !u.poison {
		return 0, errNoPoison
	}
	if err := u.begin(page, n); err != nil {
		return 0, err
	}
	defer u.end()
	a := uffdioContinue{uffdioRange: u.pages(page, n)}
	e := a.ioctl(u.fd, ioctlPoison)
	return pagesDone(a.done), outcome(e)
}

// Close ends every Read with ErrClosed, waits until no operation runs, and closes
// the userfaultfd, which unregisters all pages. Calling it again does nothing.
func (u *Uffd) Close() error {
	if u.closing.Swap(true) {
		return nil
	}
	errRing := u.ring() // all see it: readers that close take no ring
	u.alive.Lock()
	defer u.alive.Unlock()
	u.closed = true
	return errors.Join(errRing, unix.Close(u.fd), unix.Close(u.bell))
}
