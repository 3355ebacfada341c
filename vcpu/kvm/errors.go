package kvm

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNotSupported matches, with errors.Is, every error that says that this
// host lacks something, as opposed to having failed at it.
var ErrNotSupported = errors.New("not supported by this host")

// FeatureError says which feature this host lacks.
type FeatureError struct {
	Feature string // as the kernel's documentation calls it
	Since   string // first kernel that has it, "" when that is not the question
	Err     error  // what using it said; may be nil
}

func (e *FeatureError) Error() string {
	s := e.Feature + " is not supported by this host"
	if e.Since != "" {
		s += " (Linux " + e.Since + " and newer have it)"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is makes errors.Is(err, ErrNotSupported) hold.
func (e *FeatureError) Is(target error) bool { return target == ErrNotSupported }

func (e *FeatureError) Unwrap() error { return e.Err }

// ioctlError names the request that failed.
func ioctlError(request string, errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", request, errno)
}

// unsupported turns the errnos with which KVM answers an unknown request into
// a FeatureError and leaves the rest alone.
func unsupported(feature, since string, errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case unix.ENOTTY, unix.ENXIO, unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS:
		return &FeatureError{Feature: feature, Since: since, Err: errno}
	}
	return fmt.Errorf("%s: %w", feature, errno)
}
