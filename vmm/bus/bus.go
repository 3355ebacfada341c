// Package bus connects the guest's port and memory-mapped accesses to devices.
//
// A Bus is an address space: one for I/O ports, one for MMIO. Devices claim
// ranges of it; a vCPU thread that leaves the guest for an access calls Read or
// Write, which find the device and run it on the caller's thread. The access
// path takes no lock of the bus and allocates nothing.
package bus

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// Device answers the accesses to a range. off counts bytes from the range's
// base, and off+len(data) lies within the range; data is 1, 2, 4 or 8 bytes,
// little endian, and valid only during the call. Several vCPU threads may call
// at once: a device locks itself. What it does must be bounded in time, since a
// vCPU waits for it.
type Device interface {
	// Read fills data, all of it.
	Read(off uint64, data []byte)
	Write(off uint64, data []byte)
}

// ErrOverlap is what Register wraps when a range is taken.
var ErrOverlap = errors.New("range is taken")

// Bus is an address space with devices. Its methods may be called from any
// goroutine.
type Bus struct {
	name string
	last uint64 // highest address

	// ranges is sorted by base and never changed in place.
	ranges atomic.Pointer[[]*claim]

	registering sync.Mutex // held while ranges is replaced

	unclaimed unclaimedLog
}

// claim is a range with its device.
type claim struct {
	name       string
	base, last uint64 // inclusive
	dev        Device

	reads, writes atomic.Uint64
}

// NewPorts returns the address space of the 65,536 I/O ports.
func NewPorts() *Bus { return newBus("port", math.MaxUint16) }

// NewMMIO returns the address space of guest physical addresses.
func NewMMIO() *Bus { return newBus("mmio", math.MaxUint64) }

func newBus(name string, last uint64) *Bus {
	b := &Bus{name: name, last: last}
	b.ranges.Store(new([]*claim))
	return b
}

// Register gives [base, base+length) to dev under a name for diagnostics. It
// fails when the range is empty, reaches beyond the bus, or overlaps another,
// the last with ErrOverlap.
func (b *Bus) Register(name string, base, length uint64, dev Device) error {
	last := base + length - 1
	if length == 0 || last < base || last > b.last {
		return fmt.Errorf("register %s at %s %#x: length %#x does not fit the bus", name, b.name, base, length)
	}
	b.registering.Lock()
	defer b.registering.Unlock()
	old := *b.ranges.Load()
	i, _ := slices.BinarySearchFunc(old, base, func(c *claim, a uint64) int { return cmp.Compare(c.last, a) })
	if i < len(old) && old[i].base <= last {
		return fmt.Errorf("register %s at %s %#x..%#x: %w by %s at %#x..%#x", name, b.name, base, last, ErrOverlap, old[i].name, old[i].base, old[i].last)
	}
	ranges := slices.Insert(slices.Clone(old), i, &claim{name: name, base: base, last: last, dev: dev})
	b.ranges.Store(&ranges)
	return nil
}

// find returns the claim that holds all of [addr, addr+n), or nil. An access
// that crosses the edge of a range is nobody's: no guest does that on purpose,
// and a part of it could be a register with side effects.
func (b *Bus) find(addr uint64, n int) *claim {
	ranges := *b.ranges.Load()
	lo, hi := 0, len(ranges)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if ranges[mid].last < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(ranges) {
		return nil
	}
	c := ranges[lo]
	if addr < c.base || uint64(n)-1 > c.last-addr {
		return nil
	}
	return c
}

// Read fills data from the device at addr, with ones where there is none, as a
// floating bus reads.
func (b *Bus) Read(addr uint64, data []byte) {
	if len(data) == 0 {
		return
	}
	if c := b.find(addr, len(data)); c != nil {
		c.reads.Add(1)
		c.dev.Read(addr-c.base, data)
		return
	}
	b.unclaimed.count(addr, false)
	for i := range data {
		data[i] = 0xff
	}
}

// Write passes data to the device at addr; without one nothing happens.
func (b *Bus) Write(addr uint64, data []byte) {
	if len(data) == 0 {
		return
	}
	if c := b.find(addr, len(data)); c != nil {
		c.writes.Add(1)
		c.dev.Write(addr-c.base, data)
		return
	}
	b.unclaimed.count(addr, true)
}
