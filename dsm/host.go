package dsm

import (
	"coalesce/link"
)

// Host is what an engine needs of the machine it runs on: the two views of the
// guest's memory, a clock and an alarm. There are two: the kernel, and the
// virtual machine of package sim, on which the same engine runs without threads.
//
// An operation on pages is what package uffd's method of that name is, errors
// included. None waits for another node, and none allocates.
type Host interface {
	// The memory and its alias: uffd.Memory.
	Pages() int
	Index(gpa uint64) (page uint32, ok bool)
	GPA(page uint32) uint64
	Alias(page uint32, n int) []byte
	PopulateAlias(page uint32, n int) error

	// The guest view: uffd.Uffd.
	Register(page uint32, n int) error
	Continue(page uint32, n int, wp bool) (mapped int, err error)
	WriteProtect(page uint32, n int) error
	Unprotect(page uint32, n int) error
	Zap(page uint32, n int) error
	Wake(page uint32, n int) error
	Vanished() uint64
	// Breathe stops the calling thread for a moment: uffd.Breathe.
	Breathe()

	// Now returns the time in monotonic ns.
	Now() int64
	// CPUTime returns how much processor time a thread has used, in ns; 0 once
	// it is gone.
	CPUTime(tid uint32) uint64
	// SetAlarm has the engine look at its holds in ns from now, at least 1; it
	// replaces the alarm set before.
	SetAlarm(in int64)

	// Close gives up the guest view, whose waiters wake. The memory stays.
	Close() error
}

// Link carries frames to one peer and keeps their order. A *link.Conn is one.
type Link interface {
	// Send may not block and does not keep the payload.
	Send(h link.Header, payload ...[]byte) error
	// Abort ends the link and tells the peer why.
	Abort(err error)
	Stats() link.Stats
	Close() error
}
