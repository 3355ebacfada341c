package boot

import (
	"errors"
	"fmt"
)

// Errors of Load that callers tell apart with errors.Is. A caller that knows the
// file's name writes "kernel NAME: " in front.
var (
	// ErrNotKernel: the file is something else, or its headers contradict themselves.
	ErrNotKernel = errors.New("not a Linux kernel")
	// ErrUnsupported: a kernel, but one that cannot be entered in the mode asked for.
	ErrUnsupported = errors.New("kernel not supported")
	// ErrTruncated: the file ends before its headers say.
	ErrTruncated = errors.New("file is truncated")
	// ErrNoRoom: guest memory does not hold the kernel. The error is a *RoomError.
	ErrNoRoom = errors.New("not enough guest memory")
	// ErrInitrdTooLarge: guest memory does not hold the initrd beside the kernel.
	// The error is a *RoomError.
	ErrInitrdTooLarge = errors.New("initrd too large")
	// ErrCmdlineTooLong: the kernel takes fewer bytes. The error is a *CmdlineError.
	ErrCmdlineTooLong = errors.New("command line too long")
)

// RoomError says how much memory was missing.
type RoomError struct {
	// What is "kernel" or "initrd".
	What string
	// Need and Have are in bytes. For a kernel they are the end of the memory it
	// needs and of the RAM below 4 GiB; for an initrd its length and the largest
	// free stretch the kernel would find it in.
	Need, Have uint64
}

// Error returns one sentence with both sizes in MiB.
func (e *RoomError) Error() string {
	const mib = 1 << 20
	need := (e.Need + mib - 1) / mib
	if e.What == "initrd" {
		return fmt.Sprintf("initrd of %d MiB is too large: guest memory has room for %d MiB beside the kernel", need, e.Have/mib)
	}
	return fmt.Sprintf("%s needs %d MiB of guest memory, the guest has %d MiB below 4 GiB", e.What, need, e.Have/mib)
}

// Is makes a RoomError match ErrInitrdTooLarge or ErrNoRoom.
func (e *RoomError) Is(target error) bool {
	if e.What == "initrd" {
		return target == ErrInitrdTooLarge
	}
	return target == ErrNoRoom
}

// CmdlineError says by how much the command line is too long.
type CmdlineError struct {
	Length, Limit int // in bytes, without the terminator
}

// Error returns one sentence with both lengths.
func (e *CmdlineError) Error() string {
	return fmt.Sprintf("command line of %d bytes is too long: this kernel takes %d", e.Length, e.Limit)
}

// Is makes a CmdlineError match ErrCmdlineTooLong.
func (e *CmdlineError) Is(target error) bool { return target == ErrCmdlineTooLong }
