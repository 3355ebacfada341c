package aml

// ACPI 6.5, 20.2.5.3 and 20.2.5.4.
const (
	opLocal0   = 0x60
	opArg0     = 0x68
	opStore    = 0x70
	opAnd      = 0x7B
	opNotify   = 0x86
	opLEqual   = 0x93
	opIf       = 0xA0
	opElse     = 0xA1
	opWhile    = 0xA2
	opReturn   = 0xA4
	extAcquire = 0x23
	extRelease = 0x27
)

// Arg is the method argument of that number, 0..6.
type Arg uint8

func (Arg) value()  {}
func (Arg) target() {}

func (a Arg) encode(e *encoder) {
	if a > 6 {
		e.fail("there is no Arg%d", a)
		return
	}
	e.bytes(opArg0 + byte(a))
}

// Local is the local variable of that number, 0..7.
type Local uint8

func (Local) value()  {}
func (Local) target() {}

func (l Local) encode(e *encoder) {
	if l > 7 {
		e.fail("there is no Local%d", l)
		return
	}
	e.bytes(opLocal0 + byte(l))
}

// valueTerm makes a Value of a function.
type valueTerm func(e *encoder)

func (valueTerm) value()              {}
func (v valueTerm) encode(e *encoder) { v(e) }

// Store copies src to dst.
func Store(src Value, dst Target) Value {
	return operator([]byte{opStore}, src, dst)
}

// And is the bitwise conjunction; its value is used, not stored.
func And(a, b Value) Value {
	const nullTarget = Int(0) // ZeroOp stands for "no target"
	return operator([]byte{opAnd}, a, b, nullTarget)
}

// Equal is true when a and b are equal.
func Equal(a, b Value) Value {
	return operator([]byte{opLEqual}, a, b)
}

// Call runs a method. The number of arguments must be that of its definition:
// the byte code does not carry it.
func Call(method Path, args ...Value) Value {
	return valueTerm(func(e *encoder) {
		method.encode(e)
		for _, a := range args {
			a.encode(e)
		}
	})
}

func operator(opcode []byte, operands ...Value) Value {
	return valueTerm(func(e *encoder) {
		e.bytes(opcode...)
		for _, o := range operands {
			o.encode(e)
		}
	})
}

// Notify sends a notification value to a device.
func Notify(device Target, value Value) Term {
	return operator([]byte{opNotify}, device, value)
}

// Return ends a method with a value.
func Return(v Value) Term {
	return operator([]byte{opReturn}, v)
}

// Acquire takes a mutex, waiting as long as it needs.
func Acquire(mutex Target) Term {
	const forever = 0xFFFF
	return term(func(e *encoder) {
		e.bytes(extPrefix, extAcquire)
		mutex.encode(e)
		e.u16(forever)
	})
}

// Release gives a mutex back.
func Release(mutex Target) Term {
	return operator([]byte{extPrefix, extRelease}, mutex)
}

// Conditional is an If, with or without an Else.
type Conditional struct {
	cond      Value
	then, els []Term
}

// If runs terms when cond is not zero.
func If(cond Value, terms ...Term) *Conditional {
	return &Conditional{cond: cond, then: terms}
}

// Else runs terms when the condition is zero.
func (c *Conditional) Else(terms ...Term) *Conditional {
	return &Conditional{cond: c.cond, then: c.then, els: terms}
}

func (c *Conditional) encode(e *encoder) {
	e.pkg([]byte{opIf}, func(e *encoder) {
		c.cond.encode(e)
		e.terms(c.then)
	})
	if len(c.els) > 0 {
		e.pkg([]byte{opElse}, func(e *encoder) { e.terms(c.els) })
	}
}

// While runs terms as long as cond is not zero.
func While(cond Value, terms ...Term) Term {
	return term(func(e *encoder) {
		e.pkg([]byte{opWhile}, func(e *encoder) {
			cond.encode(e)
			e.terms(terms)
		})
	})
}
