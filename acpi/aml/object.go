package aml

// ACPI 6.5, 20.2.5.1 and 20.2.5.2. Two-byte opcodes begin with extPrefix.
const (
	extPrefix   = 0x5B
	opName      = 0x08
	opScope     = 0x10
	opMethod    = 0x14
	extMutex    = 0x01
	extOpRegion = 0x80
	extField    = 0x81
	extDevice   = 0x82
)

// term makes a Term of a function.
type term func(e *encoder)

func (t term) encode(e *encoder) { t(e) }

// Scope opens an existing object to put more into it.
func Scope(path Path, terms ...Term) Term {
	return container([]byte{opScope}, path, terms)
}

// Device defines a device and what it holds.
func Device(path Path, terms ...Term) Term {
	return container([]byte{extPrefix, extDevice}, path, terms)
}

func container(opcode []byte, path Path, terms []Term) Term {
	return term(func(e *encoder) {
		e.pkg(opcode, func(e *encoder) {
			path.encode(e)
			e.terms(terms)
		})
	})
}

// Name defines a named data object.
func Name(path Path, d Data) Term {
	return term(func(e *encoder) {
		e.bytes(opName)
		path.encode(e)
		d.encode(e)
	})
}

// Method defines a control method of args (0..7) arguments. It is serialized:
// one thread at a time runs it, which a method that makes names or drives a
// register block needs.
func Method(path Path, args int, terms ...Term) Term {
	const serialized = 1 << 3
	return term(func(e *encoder) {
		if args < 0 || args > 7 {
			e.fail("method %s with %d arguments", path, args)
			return
		}
		e.pkg([]byte{opMethod}, func(e *encoder) {
			path.encode(e)
			e.bytes(byte(args) | serialized)
			e.terms(terms)
		})
	})
}

// Mutex defines a mutex of sync level 0.
func Mutex(path Path) Term {
	return term(func(e *encoder) {
		e.bytes(extPrefix, extMutex)
		path.encode(e)
		e.bytes(0)
	})
}

// Space is the address space of an operation region.
type Space uint8

// Address spaces (ACPI 6.5, 20.2.5.2).
const (
	SystemMemory Space = 0
	SystemIO     Space = 1
)

// OpRegion names length bytes of an address space from offset on.
func OpRegion(path Path, space Space, offset, length Int) Term {
	return term(func(e *encoder) {
		e.bytes(extPrefix, extOpRegion)
		path.encode(e)
		e.bytes(byte(space))
		offset.encode(e)
		length.encode(e)
	})
}

// Access is the width with which a field's region is read and written.
type Access uint8

// Access widths (ACPI 6.5, 20.2.5.2).
const (
	ByteAcc  Access = 1
	WordAcc  Access = 2
	DWordAcc Access = 3
	QWordAcc Access = 4
)

// Update says what is written to the bits of an access unit that lie outside
// the field being written.
type Update uint8

// Update rules (ACPI 6.5, 20.2.5.2).
const (
	Preserve      Update = 0 << 5
	WriteAsOnes   Update = 1 << 5
	WriteAsZeroes Update = 2 << 5
)

// FieldUnit is one element of a field list.
type FieldUnit struct {
	Name Path // one segment; empty for bits nobody names
	Bits int
}

// Field gives names to bits of an operation region, in order from bit 0.
// Accesses do not take the global lock.
func Field(region Path, access Access, update Update, units ...FieldUnit) Term {
	return term(func(e *encoder) {
		e.pkg([]byte{extPrefix, extField}, func(e *encoder) {
			region.encode(e)
			e.bytes(byte(access) | byte(update))
			for _, u := range units {
				u.encode(e)
			}
		})
	})
}

func (u FieldUnit) encode(e *encoder) {
	const reservedField = 0x00
	switch {
	case u.Name == "":
		e.bytes(reservedField)
	case validSeg(string(u.Name)):
		nameSeg(e, string(u.Name))
	default:
		e.fail("field name %q is not a single segment", string(u.Name))
	}
	buf, err := appendPkgBits(e.buf, u.Bits)
	if err != nil {
		e.fail("field %q: %w", string(u.Name), err)
	}
	e.buf = buf
}
