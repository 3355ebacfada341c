package micro

import (
	"encoding/binary"
	"fmt"
)

// Reg is a 64-bit general register by its encoding.
type Reg uint8

const (
	RAX Reg = iota
	RCX
	RDX
	RBX
	RSP
	RBP
	RSI
	RDI
	R8
	R9
	R10
	R11
	R12
	R13
	R14
	R15
)

// Cond is a condition by its encoding in Jcc.
type Cond uint8

const (
	Below        Cond = 0x2 // unsigned, as the three others of size
	AboveOrEqual Cond = 0x3
	Equal        Cond = 0x4
	NotEqual     Cond = 0x5
	BelowOrEqual Cond = 0x6
	Above        Cond = 0x7
)

// Label is a place in the code, possibly one that is not yet known.
type Label int

// Asm assembles 64-bit code for one address. Memory operands are absolute and
// below 2 GiB. Errors are kept and returned by Code.
type Asm struct {
	base   uint64
	code   []byte
	labels []int // offset by Label, -1 until Bind
	fixups []fixup
	err    error
}

// fixup is a 32-bit displacement to be filled in.
type fixup struct {
	at    int // of the displacement
	label Label
}

// NewAsm starts code that will lie at base.
func NewAsm(base uint64) *Asm { return &Asm{base: base} }

// PC is the address of the next instruction.
func (a *Asm) PC() uint64 { return a.base + uint64(len(a.code)) }

// Label makes a label to be bound later.
func (a *Asm) Label() Label {
	a.labels = append(a.labels, -1)
	return Label(len(a.labels) - 1)
}

// Bind puts a label here.
func (a *Asm) Bind(l Label) { a.labels[l] = len(a.code) }

// Here makes a label for the next instruction.
func (a *Asm) Here() Label {
	l := a.Label()
	a.Bind(l)
	return l
}

// Address is where a bound label lies.
func (a *Asm) Address(l Label) uint64 { return a.base + uint64(a.labels[l]) }

// Code returns the finished code, or the first error.
func (a *Asm) Code() ([]byte, error) {
	for _, f := range a.fixups {
		to := a.labels[f.label]
		if to < 0 {
			a.fail("label %d is not bound", f.label)
			continue
		}
		binary.LittleEndian.PutUint32(a.code[f.at:], uint32(to-(f.at+4)))
	}
	return a.code, a.err
}

func (a *Asm) fail(format string, args ...any) {
	if a.err == nil {
		a.err = fmt.Errorf("assembling at %#x: "+format, append([]any{a.base}, args...)...)
	}
}

// Bytes appends an instruction's own bytes.
func (a *Asm) Bytes(b ...byte) { a.code = append(a.code, b...) }

func (a *Asm) imm32(v uint32) { a.code = binary.LittleEndian.AppendUint32(a.code, v) }
func (a *Asm) imm64(v uint64) { a.code = binary.LittleEndian.AppendUint64(a.code, v) }

// abs appends ModRM, SIB and displacement of the operand [addr] with the given
// register or opcode extension (low three bits).
func (a *Asm) abs(reg uint8, addr uint64) {
	if addr >= 1<<31 {
		a.fail("operand address %#x is not below 2 GiB", addr)
	}
	a.Bytes(0x04|reg&7<<3, 0x25)
	a.imm32(uint32(addr))
}

// rex returns REX.W with R set for a high register.
func rex(r Reg) byte { return 0x48 | byte(r>>3)<<2 }

// rexB returns REX.W with B set for a high register.
func rexB(r Reg) byte { return 0x48 | byte(r>>3) }

func (a *Asm) MovImm(r Reg, v uint64)      { a.Bytes(rexB(r), 0xb8|byte(r&7)); a.imm64(v) }
func (a *Asm) Load(r Reg, addr uint64)     { a.Bytes(rex(r), 0x8b); a.abs(byte(r), addr) }
func (a *Asm) Store(addr uint64, r Reg)    { a.Bytes(rex(r), 0x89); a.abs(byte(r), addr) }
func (a *Asm) CmpMem(r Reg, addr uint64)   { a.Bytes(rex(r), 0x3b); a.abs(byte(r), addr) }
func (a *Asm) IncMem(addr uint64)          { a.Bytes(0x48, 0xff); a.abs(0, addr) }
func (a *Asm) DecMem(addr uint64)          { a.Bytes(0x48, 0xff); a.abs(1, addr) }
func (a *Asm) LockIncMem(addr uint64)      { a.Bytes(0xf0, 0x48, 0xff); a.abs(0, addr) }
func (a *Asm) PushMem(addr uint64)         { a.Bytes(0xff); a.abs(6, addr) }
func (a *Asm) PopMem(addr uint64)          { a.Bytes(0x8f); a.abs(0, addr) }
func (a *Asm) MovMem(addr uint64, v int32) { a.Bytes(0x48, 0xc7); a.abs(0, addr); a.imm32(uint32(v)) }

// StoreAt is mov [base], r; base is none of RSP, RBP, R12, R13, whose
// encodings mean something else.
func (a *Asm) StoreAt(base, r Reg) {
	if base&7 == RSP || base&7 == RBP {
		a.fail("register %d as base", base)
	}
	a.Bytes(rex(r)|byte(base>>3), 0x89, byte(r&7)<<3|byte(base&7))
}

func (a *Asm) regReg(op byte, dst, src Reg) {
	a.Bytes(rex(src)|byte(dst>>3), op, 0xc0|byte(src&7)<<3|byte(dst&7))
}

func (a *Asm) Mov(dst, src Reg)         { a.regReg(0x89, dst, src) }
func (a *Asm) Add(dst, src Reg)         { a.regReg(0x01, dst, src) }
func (a *Asm) Or(dst, src Reg)          { a.regReg(0x09, dst, src) }
func (a *Asm) AddImm(r Reg, v int32)    { a.Bytes(rexB(r), 0x81, 0xc0|byte(r&7)); a.imm32(uint32(v)) }
func (a *Asm) OrImm(r Reg, v int32)     { a.Bytes(rexB(r), 0x81, 0xc8|byte(r&7)); a.imm32(uint32(v)) }
func (a *Asm) AndImm(r Reg, v int32)    { a.Bytes(rexB(r), 0x81, 0xe0|byte(r&7)); a.imm32(uint32(v)) }
func (a *Asm) CmpImm(r Reg, v int32)    { a.Bytes(rexB(r), 0x81, 0xf8|byte(r&7)); a.imm32(uint32(v)) }
func (a *Asm) ShlImm(r Reg, bits uint8) { a.Bytes(rexB(r), 0xc1, 0xe0|byte(r&7), bits) }
func (a *Asm) ShrImm(r Reg, bits uint8) { a.Bytes(rexB(r), 0xc1, 0xe8|byte(r&7), bits) }
func (a *Asm) Dec(r Reg)                { a.Bytes(rexB(r), 0xff, 0xc8|byte(r&7)) }

// Imul is dst *= src.
func (a *Asm) Imul(dst, src Reg) {
	a.Bytes(rex(dst)|byte(src>>3), 0x0f, 0xaf, 0xc0|byte(dst&7)<<3|byte(src&7))
}

func (a *Asm) Push(r Reg) { a.stack(0x50, r) }
func (a *Asm) Pop(r Reg)  { a.stack(0x58, r) }
func (a *Asm) Pushfq()    { a.Bytes(0x9c) }
func (a *Asm) Popfq()     { a.Bytes(0x9d) }
func (a *Asm) Cld()       { a.Bytes(0xfc) }
func (a *Asm) Cli()       { a.Bytes(0xfa) }
func (a *Asm) Sti()       { a.Bytes(0xfb) }
func (a *Asm) Hlt()       { a.Bytes(0xf4) }
func (a *Asm) Nop()       { a.Bytes(0x90) }
func (a *Asm) Pause()     { a.Bytes(0xf3, 0x90) }
func (a *Asm) Iretq()     { a.Bytes(0x48, 0xcf) }
func (a *Asm) Rdtsc()     { a.Bytes(0x0f, 0x31) }
func (a *Asm) Rdmsr()     { a.Bytes(0x0f, 0x32) }
func (a *Asm) Wrmsr()     { a.Bytes(0x0f, 0x30) }
func (a *Asm) Ud2()       { a.Bytes(0x0f, 0x0b) }

func (a *Asm) stack(op byte, r Reg) {
	if r >= R8 {
		a.Bytes(0x41)
	}
	a.Bytes(op | byte(r&7))
}

// RepeCmpsq compares RCX quadwords at RSI and RDI.
func (a *Asm) RepeCmpsq() { a.Bytes(0xf3, 0x48, 0xa7) }

// Jmp and Jcc go to a label.
func (a *Asm) Jmp(l Label)         { a.Bytes(0xe9); a.rel(l) }
func (a *Asm) Jcc(c Cond, l Label) { a.Bytes(0x0f, 0x80|byte(c)); a.rel(l) }

func (a *Asm) rel(l Label) {
	a.fixups = append(a.fixups, fixup{at: len(a.code), label: l})
	a.imm32(0)
}

// Out8 is mov al, v; out port, al.
func (a *Asm) Out8(port, v uint8) { a.Bytes(0xb0, v, 0xe6, port) }

// Out32 is out port, eax.
func (a *Asm) Out32(port uint8) { a.Bytes(0xe7, port) }

// In32 is in eax, port.
func (a *Asm) In32(port uint8) { a.Bytes(0xe5, port) }

// WriteMSR sets ECX, EDX and EAX and executes WRMSR.
func (a *Asm) WriteMSR(msr uint32, v uint64) {
	a.MovImm(RCX, uint64(msr))
	a.MovImm(RAX, v&0xffff_ffff)
	a.MovImm(RDX, v>>32)
	a.Wrmsr()
}

// Load32At is mov r32, [base] with low registers, base none of RSP, RBP.
func (a *Asm) Load32At(r, base Reg) {
	if r >= R8 || base >= R8 || base == RSP || base == RBP {
		a.fail("Load32At of register %d from register %d", r, base)
	}
	a.Bytes(0x8b, byte(r)<<3|byte(base))
}
