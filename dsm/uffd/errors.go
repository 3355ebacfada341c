package uffd

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// ErrNotSupported is matched (errors.Is) by every error that says this kernel or
// this machine cannot do something. A *FeatureError has the details.
var ErrNotSupported = errors.New("not supported")

// FeatureError names a kernel feature that is missing and the first kernel that
// has it.
type FeatureError struct {
	Feature string // as the kernel's header names it
	Kernel  string // first Linux version that has it, as "5.14"
}

func (e *FeatureError) Error() string {
	return fmt.Sprintf("userfaultfd: this kernel lacks %s, first in Linux %s", e.Feature, e.Kernel)
}

// Is makes errors.Is(err, ErrNotSupported) true.
func (e *FeatureError) Is(target error) bool { return target == ErrNotSupported }

// Outcomes of operations on pages. They are compared with == or errors.Is; each
// wraps the errno that it stands for. They are values made once, so that
// returning one allocates nothing.
var (
	// ErrPresent: the page is mapped already. Nobody was woken.
	ErrPresent = fmt.Errorf("uffd: page is mapped already: %w", unix.EEXIST)
	// ErrPartial: the range stopped midway; the pages before the stop are done
	// and woken. Going on with the rest tells why it stopped.
	ErrPartial = fmt.Errorf("uffd: range done in part: %w", unix.EAGAIN)
	// ErrHole: the memfd holds no page there. See Memory.PopulateAlias.
	ErrHole = fmt.Errorf("uffd: no page in the memfd: %w", unix.EFAULT)
	// ErrUnregistered: some page of the range is registered with no Uffd. The
	// kernel does not ask with which: callers keep to their own pages.
	ErrUnregistered = fmt.Errorf("uffd: page is not registered: %w", unix.ENOENT)
	// ErrRange: the pages are not all in the memory. Nothing was done.
	ErrRange = fmt.Errorf("uffd: pages out of range: %w", unix.EINVAL)
	// ErrNotRAM: a guest physical address is in no window.
	ErrNotRAM = errors.New("no RAM")

	// ErrInterrupted: Interrupt ended this Read.
	ErrInterrupted = errors.New("uffd: read interrupted")
	// ErrClosed: the Uffd or Memory is closed.
	ErrClosed = errors.New("uffd: closed")
)

// outcome turns an errno of an operation on pages into an error without
// allocating: errnos below 256 are kept by the runtime as static interface values.
func outcome(e unix.Errno) error {
	switch e {
	case 0:
		return nil
	case unix.EEXIST:
		return ErrPresent
	case unix.EAGAIN:
		return ErrPartial
	case unix.EFAULT:
		return ErrHole
	case unix.ENOENT:
		return ErrUnregistered
	}
	return e
}
