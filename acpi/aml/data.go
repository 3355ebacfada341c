package aml

import (
	"encoding/binary"
	"math"
	"strconv"
)

// ACPI 6.5, 20.2.3.
const (
	opZero        = 0x00
	opOne         = 0x01
	opBytePrefix  = 0x0A
	opWordPrefix  = 0x0B
	opDWordPrefix = 0x0C
	opString      = 0x0D
	opQWordPrefix = 0x0E
	opBuffer      = 0x11
	opPackage     = 0x12
)

// Int is an integer, encoded in the fewest bytes.
type Int uint64

func (Int) value() {}
func (Int) data()  {}

func (v Int) encode(e *encoder) {
	switch {
	case v == 0:
		e.bytes(opZero)
	case v == 1:
		e.bytes(opOne)
	case v <= math.MaxUint8:
		e.bytes(opBytePrefix, byte(v))
	case v <= math.MaxUint16:
		e.bytes(opWordPrefix)
		e.u16(uint16(v))
	case v <= math.MaxUint32:
		e.bytes(opDWordPrefix)
		e.u32(uint32(v))
	default:
		e.bytes(opQWordPrefix)
		e.u64(uint64(v))
	}
}

// String is a string of the characters 0x01..0x7F.
type String string

func (String) value() {}
func (String) data()  {}

func (s String) encode(e *encoder) {
	for _, c := range []byte(s) {
		if c == 0 || c > 0x7F {
			e.fail("character %#02x in string %q", c, string(s))
			return
		}
	}
	e.bytes(opString)
	e.bytes([]byte(s)...)
	e.bytes(0)
}

// Buffer is an array of bytes.
type Buffer []byte

func (Buffer) value() {}
func (Buffer) data()  {}

func (b Buffer) encode(e *encoder) {
	e.pkg([]byte{opBuffer}, func(e *encoder) {
		Int(len(b)).encode(e)
		e.bytes(b...)
	})
}

// Package is an array of at most 255 data objects.
type Package []Data

func (Package) value() {}
func (Package) data()  {}

func (p Package) encode(e *encoder) {
	if len(p) > math.MaxUint8 {
		e.fail("package of %d elements, at most %d fit", len(p), math.MaxUint8)
		return
	}
	e.pkg([]byte{opPackage}, func(e *encoder) {
		e.bytes(byte(len(p)))
		for _, d := range p {
			d.encode(e)
		}
	})
}

// EISAID is a device id such as "PNP0501" (three capital letters, four
// hexadecimal digits) in the compressed numeric form that _HID and _CID take.
type EISAID string

func (EISAID) value() {}
func (EISAID) data()  {}

// encode packs the id: 5 bits for each letter, 4 for each digit, most
// significant first; the result is stored in big-endian order (ACPI 6.5,
// 19.6.38, after the Plug and Play ISA specification).
func (id EISAID) encode(e *encoder) {
	if len(id) != 7 {
		e.fail("EISA id %q is not of seven characters", string(id))
		return
	}
	var v uint32
	for _, c := range []byte(id[:3]) {
		if c < 'A' || c > 'Z' {
			e.fail("EISA id %q does not begin with three capital letters", string(id))
			return
		}
		v = v<<5 | uint32(c-'A'+1)
	}
	digits, err := strconv.ParseUint(string(id[3:]), 16, 16)
	if err != nil {
		e.fail("EISA id %q does not end in four hexadecimal digits", string(id))
		return
	}
	v = v<<16 | uint32(digits)
	var be [4]byte
	binary.BigEndian.PutUint32(be[:], v)
	e.bytes(opDWordPrefix)
	e.bytes(be[:]...)
}
