package aml

import "math"

// Resource is one descriptor of a resource template (ACPI 6.5, 6.4).
type Resource interface {
	descriptor(e *encoder)
}

// ResourceTemplate is the buffer that _CRS returns.
type ResourceTemplate []Resource

func (ResourceTemplate) value() {}
func (ResourceTemplate) data()  {}

func (t ResourceTemplate) encode(e *encoder) {
	inner := encoder{err: e.err}
	for _, r := range t {
		r.descriptor(&inner)
	}
	// ACPI 6.5, 6.4.2.9, end tag: a checksum of zero counts as a good one.
	inner.bytes(0x79, 0)
	e.err = inner.err
	Buffer(inner.buf).encode(e)
}

// IO is a fixed range of I/O ports, all 16 address bits decoded.
type IO struct {
	Port   uint16
	Length uint8
}

// ACPI 6.5, 6.4.2.5, I/O port descriptor.
func (r IO) descriptor(e *encoder) {
	if int(r.Port)+int(r.Length) > 1<<16 {
		e.fail("I/O ports %#x and %d more pass 0xffff", r.Port, r.Length)
		return
	}
	const decode16, align = 1, 1
	e.bytes(0x47, decode16)
	e.u16(r.Port)
	e.u16(r.Port)
	e.bytes(align, r.Length)
}

// Interrupt is a list of global system interrupts that the device raises. The
// zero value of the flags is an edge-triggered, active-high, exclusive line.
type Interrupt struct {
	GSIs      []uint32
	Level     bool
	ActiveLow bool
	Shared    bool
}

// ACPI 6.5, 6.4.3.6, extended interrupt descriptor.
func (r Interrupt) descriptor(e *encoder) {
	const (
		consumer  = 1 << 0
		edge      = 1 << 1
		activeLow = 1 << 2
		shared    = 1 << 3
	)
	if len(r.GSIs) < 1 || len(r.GSIs) > math.MaxUint8 {
		e.fail("interrupt descriptor with %d interrupts", len(r.GSIs))
		return
	}
	flags := byte(consumer)
	if !r.Level {
		flags |= edge
	}
	if r.ActiveLow {
		flags |= activeLow
	}
	if r.Shared {
		flags |= shared
	}
	e.bytes(0x89)
	e.u16(uint16(2 + 4*len(r.GSIs)))
	e.bytes(flags, byte(len(r.GSIs)))
	for _, gsi := range r.GSIs {
		e.u32(gsi)
	}
}

// Memory32Fixed is a fixed, writable range of memory below 4 GiB.
type Memory32Fixed struct {
	Base, Length uint32
}

// ACPI 6.5, 6.4.3.4, 32-bit fixed memory range descriptor.
func (r Memory32Fixed) descriptor(e *encoder) {
	const writable = 1
	e.bytes(0x86)
	e.u16(9)
	e.bytes(writable)
	e.u32(r.Base)
	e.u32(r.Length)
}

// QWordMemory is a fixed, writable, uncached range of memory anywhere.
type QWordMemory struct {
	Base, Length uint64
}

// ACPI 6.5, 6.4.3.5.1, QWord address space descriptor.
func (r QWordMemory) descriptor(e *encoder) {
	const (
		memoryRange         = 0
		consumer            = 1 << 0
		minFixed, maxFixed  = 1 << 2, 1 << 3
		writable            = 1 << 0
		granularity, offset = 0, 0
	)
	if r.Length == 0 || r.Base+(r.Length-1) < r.Base {
		e.fail("memory at %#x of length %#x", r.Base, r.Length)
		return
	}
	e.bytes(0x8A)
	e.u16(0x2B)
	e.bytes(memoryRange, consumer|minFixed|maxFixed, writable)
	e.u64(granularity)
	e.u64(r.Base)
	e.u64(r.Base + (r.Length - 1))
	e.u64(offset)
	e.u64(r.Length)
}
