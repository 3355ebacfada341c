package micro

import (
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/arch/x86/x86asm"
)

// memory is guest memory in a slice.
type memory []byte

func (m memory) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[at:], b), nil
}

// Each method makes the instruction that its name says, by a disassembler that
// is not ours.
func TestInstructions(t *testing.T) {
	for _, c := range []struct {
		emit func(a *Asm)
		want string // GNU syntax
	}{
		{func(a *Asm) { a.MovImm(R9, 0x1122334455667788) }, "mov $0x1122334455667788,%r9"},
		{func(a *Asm) { a.Load(RAX, 0x1234) }, "mov 0x1234,%rax"},
		{func(a *Asm) { a.Load(RSP, 0x1234) }, "mov 0x1234,%rsp"},
		{func(a *Asm) { a.Store(0x1234, R15) }, "mov %r15,0x1234"},
		{func(a *Asm) { a.CmpMem(R8, 0x1234) }, "cmp 0x1234,%r8"},
		{func(a *Asm) { a.IncMem(0x1234) }, "incq 0x1234"},
		{func(a *Asm) { a.DecMem(0x1234) }, "decq 0x1234"},
		{func(a *Asm) { a.LockIncMem(0x1234) }, "lock incq 0x1234"},
		{func(a *Asm) { a.PushMem(0x1234) }, "pushq 0x1234"},
		{func(a *Asm) { a.PopMem(0x1234) }, "popq 0x1234"},
		{func(a *Asm) { a.MovMem(0x1234, 5) }, "movq $0x5,0x1234"},
		{func(a *Asm) { a.StoreAt(RDI, R9) }, "mov %r9,(%rdi)"},
		{func(a *Asm) { a.Load32At(RCX, RSI) }, "mov (%rsi),%ecx"},
		{func(a *Asm) { a.Mov(RBX, R14) }, "mov %r14,%rbx"},
		{func(a *Asm) { a.Add(R10, RSI) }, "add %rsi,%r10"},
		{func(a *Asm) { a.Or(RAX, RDX) }, "or %rdx,%rax"},
		{func(a *Asm) { a.AddImm(RDI, 8) }, "add $0x8,%rdi"},
		{func(a *Asm) { a.OrImm(R11, 2) }, "or $0x2,%r11"},
		{func(a *Asm) { a.AndImm(RSI, 0xf0) }, "and $0xf0,%rsi"},
		{func(a *Asm) { a.ShlImm(RDX, 32) }, "shl $0x20,%rdx"},
		{func(a *Asm) { a.ShrImm(R13, 20) }, "shr $0x14,%r13"},
		{func(a *Asm) { a.Dec(RCX) }, "dec %rcx"},
		{func(a *Asm) { a.Imul(RAX, R12) }, "imul %r12,%rax"},
		{func(a *Asm) { a.Push(R12) }, "push %r12"},
		{func(a *Asm) { a.Pop(RBP) }, "pop %rbp"},
		{(*Asm).Pushfq, "pushfq"},
		{(*Asm).Popfq, "popfq"},
		{(*Asm).Cld, "cld"},
		{(*Asm).Cli, "cli"},
		{(*Asm).Sti, "sti"},
		{(*Asm).Hlt, "hlt"},
		{(*Asm).Nop, "nop"},
		{(*Asm).Pause, "pause"},
		{(*Asm).Iretq, "iretq"},
		{(*Asm).Rdtsc, "rdtsc"},
		{(*Asm).Rdmsr, "rdmsr"},
		{(*Asm).Wrmsr, "wrmsr"},
		{(*Asm).Ud2, "ud2"},
		{(*Asm).RepeCmpsq, "rep cmpsq %es:(%rdi),%ds:(%rsi)"},
		{func(a *Asm) { a.Out32(0xe2) }, "out %eax,$0xe2"},
		{func(a *Asm) { a.In32(0xe3) }, "in $0xe3,%eax"},
		{func(a *Asm) { a.LoadM(R9, At(RSI, 8)) }, "mov 0x8(%rsi),%r9"},
		{func(a *Asm) { a.LoadM(RAX, At(R12, -8)) }, "mov 0xfffffff8(%r12,%riz,1),%rax"},
		{func(a *Asm) { a.LoadM(RAX, At(R13, 0)) }, "mov (%r13),%rax"},
		{func(a *Asm) { a.LoadM(RAX, At(RSP, 16)) }, "mov 0x10(%rsp),%rax"},
		{func(a *Asm) { a.LoadM(R8, AtIndex(RBX, R9, 8, 32)) }, "mov 0x20(%rbx,%r9,8),%r8"},
		{func(a *Asm) { a.LoadM(RCX, AtIndex(R13, RAX, 1, 0)) }, "mov (%r13,%rax,1),%rcx"},
		{func(a *Asm) { a.LoadM(RCX, Abs(0x1234)) }, "mov 0x1234,%rcx"},
		{func(a *Asm) { a.Load32M(R9, At(RSI, 4)) }, "mov 0x4(%rsi),%r9d"},
		{func(a *Asm) { a.LoadByteM(RDX, AtIndex(RSI, RCX, 1, 0)) }, "movzbq (%rsi,%rcx,1),%rdx"},
		{func(a *Asm) { a.StoreM(AtIndex(RDI, RSI, 4, 0), R10) }, "mov %r10,(%rdi,%rsi,4)"},
		{func(a *Asm) { a.Store32M(At(R8, 1), RAX) }, "mov %eax,0x1(%r8)"},
		{func(a *Asm) { a.StoreByteM(At(RDI, 0), RSI) }, "mov %sil,(%rdi)"},
		{func(a *Asm) { a.Lea(RBX, At(RAX, 1)) }, "lea 0x1(%rax),%rbx"},
		{func(a *Asm) { a.AddM(R11, At(RSI, 0)) }, "add (%rsi),%r11"},
		{func(a *Asm) { a.AddToM(At(RSI, 0), RBX) }, "add %rbx,(%rsi)"},
		{func(a *Asm) { a.CmpM(RAX, At(RSI, 0)) }, "cmp (%rsi),%rax"},
		{func(a *Asm) { a.IncM(At(R9, 0x40)) }, "incq 0x40(%r9)"},
		{func(a *Asm) { a.XaddM(At(RSI, 0), RAX) }, "lock xadd %rax,(%rsi)"},
		{func(a *Asm) { a.Xadd32M(At(RSI, 0), RDX) }, "lock xadd %edx,(%rsi)"},
		{func(a *Asm) { a.XchgM(At(RSI, 0), RAX) }, "xchg %rax,(%rsi)"},
		{func(a *Asm) { a.Sub(R9, RBX) }, "sub %rbx,%r9"},
		{func(a *Asm) { a.Xor(RAX, R9) }, "xor %r9,%rax"},
		{func(a *Asm) { a.And(RAX, R9) }, "and %r9,%rax"},
		{func(a *Asm) { a.Cmp(RAX, RDX) }, "cmp %rdx,%rax"},
		{func(a *Asm) { a.Test(R9, R9) }, "test %r9,%r9"},
		{func(a *Asm) { a.Inc(R9) }, "inc %r9"},
		{func(a *Asm) { a.SubImm(R9, 5) }, "sub $0x5,%r9"},
		{func(a *Asm) { a.RolImm(R9, 4) }, "rol $0x4,%r9"},
		{func(a *Asm) { a.Cmov(Above, R9, RAX) }, "cmova %rax,%r9"},
		{(*Asm).Mfence, "mfence"},
		{(*Asm).Cpuid, "cpuid"},
		{(*Asm).Ret, "retq"},
		{(*Asm).Movsq, "movsq %ds:(%rsi),%es:(%rdi)"},
		{(*Asm).OutDX, "out %al,(%dx)"},
		{func(a *Asm) { a.CallReg(R9) }, "call *%r9"},
		{func(a *Asm) { a.LeaLabel(R9, a.Here()) }, "lea 0xfffffff9(%rip),%r9"},
		{func(a *Asm) { a.Call(a.Here()) }, "callq .-0x5"},
	} {
		a := NewAsm(0x1000)
		c.emit(a)
		code, err := a.Code()
		if err != nil {
			t.Errorf("%s: %v", c.want, err)
			continue
		}
		inst, err := x86asm.Decode(code, 64)
		if err != nil || inst.Len != len(code) {
			t.Errorf("%s: % x is %d bytes of an instruction: %v", c.want, code, inst.Len, err)
			continue
		}
		if got := x86asm.GNUSyntax(inst, 0, nil); got != c.want {
			t.Errorf("% x is %q, want %q", code, got, c.want)
		}
	}
}

func TestLabels(t *testing.T) {
	a := NewAsm(0x1000)
	forward := a.Label()
	back := a.Here()
	a.Jmp(forward)
	a.Jcc(Equal, back)
	a.Bind(forward)
	a.Nop()
	code, err := a.Code()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for pc := uint64(0x1000); len(code) > 0; {
		inst, err := x86asm.Decode(code, 64)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, x86asm.GNUSyntax(inst, pc, nil))
		pc += uint64(inst.Len)
		code = code[inst.Len:]
	}
	if s := strings.Join(got, "; "); s != "jmpq 0x100b; je 0x1000; nop" {
		t.Error(s)
	}
	if a.Address(forward) != 0x100b || a.PC() != 0x100c {
		t.Errorf("label at %#x, end %#x", a.Address(forward), a.PC())
	}
}

func TestAssemblyErrors(t *testing.T) {
	for name, emit := range map[string]func(a *Asm){
		"unbound label":   func(a *Asm) { a.Jmp(a.Label()) },
		"address too big": func(a *Asm) { a.IncMem(1 << 31) },
		"base rsp":        func(a *Asm) { a.StoreAt(RSP, RAX) },
		"base r13":        func(a *Asm) { a.StoreAt(R13, RAX) },
		"index rsp":       func(a *Asm) { a.LoadM(RAX, AtIndex(RAX, RSP, 1, 0)) },
		"scale 3":         func(a *Asm) { a.LoadM(RAX, AtIndex(RAX, RCX, 3, 0)) },
		"high register":   func(a *Asm) { a.Load32At(R8, RAX) },
	} {
		a := NewAsm(0x1000)
		emit(a)
		if _, err := a.Code(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestMachine(t *testing.T) {
	if _, err := NewMachine(make(memory, 0x3000)); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("too little memory: %v", err)
	}
	m, err := NewMachine(make(memory, FreeBase))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{VCPU: -1}, {VCPU: MaxVCPUs}, {Ring: 1}} {
		if _, err := m.Entry(o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	e, err := m.Entry(Options{VCPU: 2, Ring: 3, RIP: FreeBase, XCR0: 7})
	if err != nil {
		t.Fatal(err)
	}
	if e.CS.DPL != 3 || e.CS.Selector&3 != 3 || e.RSP != stack3Top(2) || e.RFLAGS&flagIF == 0 || e.CR4&cr4OSXSAVE == 0 {
		t.Errorf("%+v", e)
	}
	if e, err = m.Entry(Options{RIP: FreeBase}); err != nil || e.CS.DPL != 0 || e.RSP != stack0Top(0) || e.RFLAGS != flagFixed {
		t.Errorf("%+v, %v", e, err)
	}
}

// Programs are made of instructions, and stay below their data.
func TestSelfCheckDecodes(t *testing.T) {
	const code, data = 0x5_0000, 0x6_0000
	mem := make(memory, data+SelfCheckSize)
	m, err := NewMachine(mem)
	if err != nil {
		t.Fatal(err)
	}
	if err := SelfCheck(m, SelfCheckOptions{Code: code, Data: data, Rounds: 1, Timer: 1, TimerVector: 0x40, IO: true}); err != nil {
		t.Fatal(err)
	}
	var n int
	for b := mem[code:data]; b[0] != 0; n++ {
		inst, err := x86asm.Decode(b, 64)
		if err != nil {
			t.Fatalf("instruction %d: % x: %v", n, b[:15], err)
		}
		b = b[inst.Len:]
	}
	if n < 200 {
		t.Errorf("%d instructions", n)
	}
}
