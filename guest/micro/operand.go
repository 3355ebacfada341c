package micro

// Mem is a memory operand: base + index × scale + disp, or an absolute address
// below 2 GiB.
type Mem struct {
	base, index Reg
	scale       uint8 // 1, 2, 4 or 8; 0 for no index
	disp        uint64
	absolute    bool
}

// At is the operand [base + disp].
func At(base Reg, disp int32) Mem { return Mem{base: base, disp: uint64(int64(disp))} }

// AtIndex is the operand [base + index × scale + disp]. The index is not RSP,
// the scale is 1, 2, 4 or 8.
func AtIndex(base, index Reg, scale uint8, disp int32) Mem {
	return Mem{base: base, index: index, scale: scale, disp: uint64(int64(disp))}
}

// Abs is the operand [addr].
func Abs(addr uint64) Mem { return Mem{disp: addr, absolute: true} }

// operate appends an instruction with a register, or an opcode extension, and a
// memory operand: prefixes, REX, opcode, ModRM, SIB, displacement. wide sets
// REX.W.
func (a *Asm) operate(prefix []byte, wide bool, opcode []byte, reg Reg, m Mem) {
	a.Bytes(prefix...)
	r := byte(reg>>3) << 2
	if wide {
		r |= 8
	}
	if !m.absolute {
		r |= byte(m.base >> 3)
		if m.scale != 0 {
			r |= byte(m.index>>3) << 1
		}
	}
	// A byte register above RBX needs a REX prefix, be it empty.
	if r != 0 || len(opcode) == 1 && opcode[0] == 0x88 {
		a.Bytes(0x40 | r)
	}
	a.Bytes(opcode...)
	if m.absolute {
		a.abs(byte(reg), m.disp)
		return
	}
	const sib, disp32 = 4, 0x80
	modrm := byte(reg&7)<<3 | disp32
	switch {
	case m.scale != 0:
		log, ok := map[uint8]byte{1: 0, 2: 1, 4: 2, 8: 3}[m.scale]
		if !ok || m.index == RSP {
			a.fail("index register %d × %d", m.index, m.scale)
		}
		a.Bytes(modrm|sib, log<<6|byte(m.index&7)<<3|byte(m.base&7))
	case m.base&7 == RSP:
		a.Bytes(modrm|sib, sib<<3|byte(m.base&7))
	default:
		a.Bytes(modrm | byte(m.base&7))
	}
	a.imm32(uint32(m.disp))
}

// Move between a register and memory.
func (a *Asm) LoadM(r Reg, m Mem)      { a.operate(nil, true, []byte{0x8b}, r, m) }
func (a *Asm) Load32M(r Reg, m Mem)    { a.operate(nil, false, []byte{0x8b}, r, m) }
func (a *Asm) LoadByteM(r Reg, m Mem)  { a.operate(nil, true, []byte{0x0f, 0xb6}, r, m) } // zero-extended
func (a *Asm) StoreM(m Mem, r Reg)     { a.operate(nil, true, []byte{0x89}, r, m) }
func (a *Asm) Store32M(m Mem, r Reg)   { a.operate(nil, false, []byte{0x89}, r, m) }
func (a *Asm) StoreByteM(m Mem, r Reg) { a.operate(nil, false, []byte{0x88}, r, m) }
func (a *Asm) Lea(r Reg, m Mem)        { a.operate(nil, true, []byte{0x8d}, r, m) }

// Arithmetic with memory.
func (a *Asm) AddM(r Reg, m Mem)   { a.operate(nil, true, []byte{0x03}, r, m) }
func (a *Asm) AddToM(m Mem, r Reg) { a.operate(nil, true, []byte{0x01}, r, m) }
func (a *Asm) CmpM(r Reg, m Mem)   { a.operate(nil, true, []byte{0x3b}, r, m) }
func (a *Asm) IncM(m Mem)          { a.operate(nil, true, []byte{0xff}, 0, m) }

// XaddM is lock xadd: m += r, and r becomes what m was. XchgM swaps them, which
// needs no prefix.
func (a *Asm) XaddM(m Mem, r Reg) { a.operate([]byte{0xf0}, true, []byte{0x0f, 0xc1}, r, m) }
func (a *Asm) XchgM(m Mem, r Reg) { a.operate(nil, true, []byte{0x87}, r, m) }

// Xadd32M is XaddM of 32 bits.
func (a *Asm) Xadd32M(m Mem, r Reg) { a.operate([]byte{0xf0}, false, []byte{0x0f, 0xc1}, r, m) }

func (a *Asm) Sub(dst, src Reg)         { a.regReg(0x29, dst, src) }
func (a *Asm) Xor(dst, src Reg)         { a.regReg(0x31, dst, src) }
func (a *Asm) And(dst, src Reg)         { a.regReg(0x21, dst, src) }
func (a *Asm) Cmp(x, y Reg)             { a.regReg(0x39, x, y) }
func (a *Asm) Test(x, y Reg)            { a.regReg(0x85, x, y) }
func (a *Asm) Inc(r Reg)                { a.Bytes(rexB(r), 0xff, 0xc0|byte(r&7)) }
func (a *Asm) SubImm(r Reg, v int32)    { a.Bytes(rexB(r), 0x81, 0xe8|byte(r&7)); a.imm32(uint32(v)) }
func (a *Asm) RolImm(r Reg, bits uint8) { a.Bytes(rexB(r), 0xc1, 0xc0|byte(r&7), bits) }

// Cmov is cmovCC dst, src.
func (a *Asm) Cmov(c Cond, dst, src Reg) {
	a.Bytes(rex(dst)|byte(src>>3), 0x0f, 0x40|byte(c), 0xc0|byte(dst&7)<<3|byte(src&7))
}

func (a *Asm) Mfence() { a.Bytes(0x0f, 0xae, 0xf0) }
func (a *Asm) Cpuid()  { a.Bytes(0x0f, 0xa2) }
func (a *Asm) Ret()    { a.Bytes(0xc3) }
func (a *Asm) Movsq()  { a.Bytes(0x48, 0xa5) }

// OutDX is out dx, al.
func (a *Asm) OutDX() { a.Bytes(0xee) }

// Call and CallReg go to code that returns.
func (a *Asm) Call(l Label)  { a.Bytes(0xe8); a.rel(l) }
func (a *Asm) CallReg(r Reg) { a.Bytes(0x40|byte(r>>3), 0xff, 0xd0|byte(r&7)) }

// LeaLabel makes r the address of a label.
func (a *Asm) LeaLabel(r Reg, l Label) {
	a.Bytes(rex(r), 0x8d, 0x05|byte(r&7)<<3)
	a.rel(l)
}
