package aml

import "strings"

// Path is a name as ASL writes it: segments of one to four letters joined by
// dots, after an optional `\` (the root) or any number of `^` (the parent).
// Used as a term it refers to the object of that name.
type Path string

// ACPI 6.5, 20.2.2.
const (
	nullName        = 0x00
	dualNamePrefix  = 0x2E
	multiNamePrefix = 0x2F
	maxNameSegs     = 255
)

func (Path) value()  {}
func (Path) target() {}

func (p Path) encode(e *encoder) {
	rest := string(p)
	switch {
	case strings.HasPrefix(rest, `\`):
		e.bytes('\\')
		rest = rest[1:]
	default:
		for strings.HasPrefix(rest, "^") {
			e.bytes('^')
			rest = rest[1:]
		}
	}
	if rest == "" {
		if p == "" {
			e.fail("empty name")
			return
		}
		e.bytes(nullName)
		return
	}
	segs := strings.Split(rest, ".")
	switch n := len(segs); {
	case n == 1:
	case n == 2:
		e.bytes(dualNamePrefix)
	case n <= maxNameSegs:
		e.bytes(multiNamePrefix, byte(n))
	default:
		e.fail("name of %d segments, at most %d fit", n, maxNameSegs)
		return
	}
	for _, seg := range segs {
		if !validSeg(seg) {
			e.fail("bad segment %q in name %q", seg, string(p))
			return
		}
		nameSeg(e, seg)
	}
}

// validSeg: a NameSeg is a letter or underscore followed by up to three
// letters, digits or underscores (ACPI 6.5, 20.2.2).
func validSeg(seg string) bool {
	if len(seg) < 1 || len(seg) > 4 {
		return false
	}
	for i, c := range []byte(seg) {
		letter := c >= 'A' && c <= 'Z' || c == '_'
		digit := c >= '0' && c <= '9'
		if !letter && (i == 0 || !digit) {
			return false
		}
	}
	return true
}

// nameSeg appends a valid segment, padded with trailing underscores.
func nameSeg(e *encoder, seg string) {
	e.bytes([]byte(seg)...)
	for i := len(seg); i < 4; i++ {
		e.bytes('_')
	}
}
