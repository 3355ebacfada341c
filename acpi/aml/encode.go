package aml

import (
	"encoding/binary"
	"fmt"
)

// Term is a node that may stand in a TermList (ACPI 6.5, 20.2.5).
type Term interface {
	encode(e *encoder)
}

// Value is a term that yields a value: a TermArg (ACPI 6.5, 20.2.5).
type Value interface {
	Term
	value()
}

// Target is a value that names a place: a SuperName (ACPI 6.5, 20.2.2).
type Target interface {
	Value
	target()
}

// Data is a value known when the table is built: a DataRefObject
// (ACPI 6.5, 20.2.3).
type Data interface {
	Value
	data()
}

// Encode returns the byte code of terms, one after the other. The error names
// the first node that cannot be encoded.
func Encode(terms ...Term) ([]byte, error) {
	var e encoder
	e.terms(terms)
	return e.buf, e.err
}

// encoder collects byte code. The first error sticks; what is appended after
// it is of no interest.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf("aml: "+format, args...)
	}
}

func (e *encoder) bytes(b ...byte) { e.buf = append(e.buf, b...) }
func (e *encoder) u16(v uint16)    { e.buf = binary.LittleEndian.AppendUint16(e.buf, v) }
func (e *encoder) u32(v uint32)    { e.buf = binary.LittleEndian.AppendUint32(e.buf, v) }
func (e *encoder) u64(v uint64)    { e.buf = binary.LittleEndian.AppendUint64(e.buf, v) }

func (e *encoder) terms(terms []Term) {
	for _, t := range terms {
		t.encode(e)
	}
}

// pkg appends the opcode, the package length and what body writes.
func (e *encoder) pkg(opcode []byte, body func(e *encoder)) {
	inner := encoder{err: e.err}
	body(&inner)
	if e.err = inner.err; e.err != nil {
		return
	}
	e.bytes(opcode...)
	buf, err := appendPkgLength(e.buf, len(inner.buf))
	if err != nil {
		e.err = err
		return
	}
	e.buf = append(buf, inner.buf...)
}

// maxPkgLength[n-1] is the largest value that a PkgLength of n bytes holds.
//
// ACPI 6.5, 20.2.4: the high 2 bits of the first byte give the number of bytes
// that follow. If there is none, bits 5-0 are the length; otherwise bits 3-0
// are its least significant nibble, bits 5-4 are zero, and the following bytes
// hold the rest, least significant first.
var maxPkgLength = [4]int{1<<6 - 1, 1<<12 - 1, 1<<20 - 1, 1<<28 - 1}

// appendPkgLength appends the PkgLength of a package whose content is body
// bytes long. The length it encodes includes its own bytes, never the opcode
// before it (ACPI 6.5, 20.2.4).
func appendPkgLength(dst []byte, body int) ([]byte, error) {
	for n := 1; n <= len(maxPkgLength); n++ {
		if body+n <= maxPkgLength[n-1] {
			return appendPkgValue(dst, body+n, n), nil
		}
	}
	return dst, fmt.Errorf("aml: a package of %d bytes exceeds the largest, %d", body, maxPkgLength[3])
}

// appendPkgBits appends a number of bits in the form of a PkgLength, as a
// FieldList wants it: unlike a package's, it does not count its own bytes
// (ACPI 6.5, 20.2.5.2).
func appendPkgBits(dst []byte, bits int) ([]byte, error) {
	for n := 1; n <= len(maxPkgLength); n++ {
		if bits >= 0 && bits <= maxPkgLength[n-1] {
			return appendPkgValue(dst, bits, n), nil
		}
	}
	return dst, fmt.Errorf("aml: a field of %d bits is not in 0..%d", bits, maxPkgLength[3])
}

// appendPkgValue appends v in n bytes; v is at most maxPkgLength[n-1].
func appendPkgValue(dst []byte, v, n int) []byte {
	if n == 1 {
		return append(dst, byte(v))
	}
	dst = append(dst, byte((n-1)<<6|v&0xf))
	for v >>= 4; n > 1; n-- {
		dst = append(dst, byte(v))
		v >>= 8
	}
	return dst
}
