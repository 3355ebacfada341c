package ioapic

// Registers of the MMIO window, each 32 bits wide at a multiple of 16 bytes.
const (
	offSelect = 0x00 // IOREGSEL
	offWindow = 0x10 // IOWIN
	offEOI    = 0x40 // version 0x20: a vector that is ended
)

// Registers behind IOREGSEL.
const (
	regID          = 0x00 // bits 27:24
	regVersion     = 0x01 // ro
	regArbitration = 0x02 // ro: the id
	regEntries     = 0x10 // two for each pin, low half first
)

// version is 0x20, which has an EOI register, and the number of the last pin.
const version = (Pins-1)<<16 | 0x20

// Read reads from the MMIO window. The registers are made for reads of 4 aligned
// bytes; others get the bytes that are there, and 0 beside them.
func (a *IOAPIC) Read(off uint64, data []byte) {
	a.mu.Lock()
	var value uint64
	switch off &^ 0xf {
	case offSelect:
		value = uint64(a.selected)
	case offWindow:
		value = uint64(a.readLocked(a.selected))
	}
	a.mu.Unlock()
	value >>= 8 * (off & 0xf)
	for i := range data {
		data[i] = byte(value)
		value >>= 8
	}
}

func (a *IOAPIC) readLocked(reg uint8) uint32 {
	switch reg {
	case regID, regArbitration:
		return uint32(a.id) << 24
	case regVersion:
		return version
	}
	if pin, high, ok := entryHalf(reg); ok {
		return uint32(a.entries[pin] >> (32 * high))
	}
	return 0
}

// entryHalf tells which half (0 low, 1 high) of which pin's entry a register is.
func entryHalf(reg uint8) (pin int, half uint, ok bool) {
	n := int(reg) - regEntries
	return n / 2, uint(n & 1), n >= 0 && n < 2*Pins
}

// Write writes to the MMIO window. IOREGSEL and EOI take the low byte of a write
// of any size to their address; IOWIN takes 4 bytes, and ignores less rather
// than write a part of an entry.
func (a *IOAPIC) Write(off uint64, data []byte) {
	if len(data) == 0 {
		return
	}
	var out batch
	a.mu.Lock()
	switch {
	case off == offSelect:
		a.selected = data[0]
	case off == offWindow && len(data) >= 4:
		value := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		a.writeLocked(a.selected, value, &out)
	case off == offEOI:
		a.eoiLocked(data[0], &out)
	}
	a.mu.Unlock()
	a.flush(&out)
}

func (a *IOAPIC) writeLocked(reg uint8, value uint32, out *batch) {
	if reg == regID {
		a.id = uint8(value >> 24 & 0xf)
		return
	}
	pin, half, ok := entryHalf(reg)
	if !ok {
		return
	}
	e := &a.entries[pin]
	written := uint64(0xffff_ffff) << (32 * half) & entryWritable
	*e = *e&^written | uint64(value)<<(32*half)&written
	if !isLevel(*e) {
		*e &^= entryRemoteIRR
	}
	a.serviceLocked(pin, out)
}
