package micro

import (
	"encoding/binary"
	"fmt"
)

// x2APIC registers that the programs use, and a vector of theirs.
const (
	msrEOI          = 0x80b
	msrSVR          = 0x80f
	msrLVTTimer     = 0x832
	msrInitialCount = 0x838
	msrDivide       = 0x83e

	svrEnable     = 0x1ff
	timerPeriodic = 1 << 17
	divideBy1     = 0xb
)

// Spin increments the quadword at counter for ever, in either ring.
func Spin(base, counter uint64) ([]byte, error) {
	a := NewAsm(base)
	top := a.Here()
	a.IncMem(counter)
	a.Jmp(top)
	return a.Code()
}

// EnableAPIC software-enables the local APIC, in ring 0. It uses RAX, RCX and
// RDX.
func (a *Asm) EnableAPIC() { a.WriteMSR(msrSVR, svrEnable) }

// StartTimer makes the local APIC's timer send vector every period ns, in ring
// 0. It uses RAX, RCX and RDX.
func (a *Asm) StartTimer(vector uint8, period uint32) {
	a.WriteMSR(msrDivide, divideBy1)
	a.WriteMSR(msrLVTTimer, timerPeriodic|uint64(vector))
	a.WriteMSR(msrInitialCount, uint64(period))
}

// CountingHandler is an interrupt handler that increments the quadword at
// counter and ends the interrupt. It changes no register.
func (a *Asm) CountingHandler(counter uint64) {
	a.Push(RAX)
	a.Push(RCX)
	a.Push(RDX)
	a.IncMem(counter)
	a.WriteMSR(msrEOI, 0)
	a.Pop(RDX)
	a.Pop(RCX)
	a.Pop(RAX)
	a.Iretq()
}

// HaltLoop is ring 0 code that halts for ever; each interrupt with vector
// increments the quadword at counter. install enters it and its handler.
func HaltLoop(m *Machine, base uint64, vector uint8, counter uint64) error {
	a := NewAsm(base)
	a.EnableAPIC()
	a.Sti()
	top := a.Here()
	a.Hlt()
	a.Jmp(top)
	handler := a.Here()
	a.CountingHandler(counter)
	return a.Install(m, base, map[uint8]Label{vector: handler})
}

// Install writes the code to base and makes gates of its handlers.
func (a *Asm) Install(m *Machine, base uint64, handlers map[uint8]Label) error {
	code, err := a.Code()
	if err != nil {
		return err
	}
	for vector, l := range handlers {
		if err := m.SetGate(vector, a.Address(l)); err != nil {
			return err
		}
	}
	return m.Write(int64(base), code)
}

// EnterRing3 leaves ring 0 for code at target with the vCPU's ring 3 stack in a
// machine at address 0 and interrupts enabled. It uses RAX.
func (a *Asm) EnterRing3(vcpu int, target Label) { a.enterRing3(stack3Top(vcpu), target) }

// EnterRing3 is the same for a machine anywhere.
func (m *Machine) EnterRing3(a *Asm, vcpu int, target Label) {
	a.enterRing3(m.base+stack3Top(vcpu), target)
}

func (a *Asm) enterRing3(stack uint64, target Label) {
	a.MovImm(RAX, selData3)
	a.Push(RAX)
	a.MovImm(RAX, stack)
	a.Push(RAX)
	a.MovImm(RAX, flagFixed|flagIF|flagIOPL3)
	a.Push(RAX)
	a.MovImm(RAX, selCode3)
	a.Push(RAX)
	a.LeaLabel(RAX, target)
	a.Push(RAX)
	a.Iretq()
}

// UseTables makes a vCPU that came here with other tables, as a loader leaves
// it or by way of a trampoline, use the machine's descriptor tables, its own
// task state segment and ring 0 stack, and the page tables at cr3. Ring 0, with
// the code's own addresses mapped by the old and the new tables; the segment
// registers are next loaded by EnterRing3. It uses RAX.
func (m *Machine) UseTables(a *Asm, vcpu int, cr3 uint64) {
	pointers := a.Label()
	over := a.Label()
	a.Jmp(over)
	a.Bind(pointers)
	a.Bytes(byte(gdtLimit&0xff), byte(gdtLimit>>8))
	a.imm64(m.base + gdtBase)
	a.Bytes(byte(idtLimit&0xff), byte(idtLimit>>8))
	a.imm64(m.base + idtBase)
	a.Bind(over)
	a.MovImm(RAX, cr3)
	a.Bytes(0x0f, 0x22, 0xd8) // mov cr3, rax
	a.LeaLabel(RAX, pointers)
	a.Bytes(0x0f, 0x01, 0x10)      // lgdt [rax]
	a.Bytes(0x0f, 0x01, 0x58, 2+8) // lidt [rax+10]
	a.MovImm(RAX, uint64(selTSS+16*vcpu))
	a.Bytes(0x0f, 0x00, 0xd8) // ltr ax
	a.MovImm(RSP, m.base+stack0Top(vcpu))
}

// Trampoline is what a SIPI with TrampolineVector starts; see
// [Machine.Trampoline].
func Trampoline(m *Machine, vcpu int, entry uint64) error {
	code, err := m.Trampoline(trampolineBase, vcpu, m.base+pml4Base, entry)
	if err != nil {
		return err
	}
	return m.Write(trampolineBase, code)
}

// Trampoline returns what a SIPI starts if it lies in the page at, below 1 MiB:
// 16-bit code that goes straight to long mode, ring 0, with interrupts off and
// the page tables at cr3, and jumps to entry, both below 4 GiB, with the stack
// of the given vCPU.
func (m *Machine) Trampoline(at uint64, vcpu int, cr3, entry uint64) ([]byte, error) {
	// Offsets in the page. The 64-bit part sets up the stack; the far jump
	// leads to it.
	const longMode, gdtPointer = 0x60, 0x80
	if at%pageSize != 0 || at >= 1<<20 || cr3 >= 1<<32 {
		return nil, fmt.Errorf("trampoline at %#x to page tables at %#x", at, cr3)
	}
	var b []byte
	emit := func(x ...byte) { b = append(b, x...) }
	emit32 := func(v uint32) { b = binary.LittleEndian.AppendUint32(b, v) }
	// Operand-size prefixes (0x66) make these 32-bit in 16-bit code.
	emit(0xfa)                           // cli
	emit(0x8c, 0xc8, 0x8e, 0xd8)         // mov ax, cs; mov ds, ax
	emit(0x66, 0x0f, 0x01, 0x16)         // lgdt [gdtPointer]
	emit(gdtPointer&0xff, gdtPointer>>8) //
	emit(0x66, 0xb8)                     // mov eax, cr4Long
	emit32(cr4Long)                      //
	emit(0x0f, 0x22, 0xe0)               // mov cr4, eax
	emit(0x66, 0xb8)                     // mov eax, cr3
	emit32(uint32(cr3))                  //
	emit(0x0f, 0x22, 0xd8)               // mov cr3, eax
	emit(0x66, 0xb9)                     // mov ecx, EFER
	emit32(msrEFER)                      //
	emit(0x66, 0xb8)                     // mov eax, LME
	emit32(eferLME)                      //
	emit(0x66, 0x31, 0xd2)               // xor edx, edx
	emit(0x0f, 0x30)                     // wrmsr
	emit(0x66, 0xb8)                     // mov eax, cr0Long
	emit32(cr0Long)                      //
	emit(0x0f, 0x22, 0xc0)               // mov cr0, eax
	emit(0x66, 0xea)                     // ljmp selCode0:longMode
	emit32(uint32(at) + longMode)        //
	emit(selCode0, 0)                    //
	b = append(b, make([]byte, longMode-len(b))...)
	a := NewAsm(at + longMode)
	a.MovImm(RSP, m.base+stack0Top(vcpu))
	a.MovImm(RAX, entry)
	a.Bytes(0xff, 0xe0) // jmp rax
	long, err := a.Code()
	if err != nil {
		return nil, err
	}
	b = append(b, long...)
	b = append(b, make([]byte, gdtPointer-len(b))...)
	b = binary.LittleEndian.AppendUint16(b, gdtLimit)
	return binary.LittleEndian.AppendUint32(b, uint32(m.base+gdtBase)), nil
}
