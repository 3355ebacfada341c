package bare

import (
	"fmt"

	"coalesce/guest/micro"
)

// What a Team says on the serial port: lines of a name, a space and a number in hexadecimal.
const (
	// TeamDone is the last line's name, its number 1.
	TeamDone = "done"
	// TeamFault is the name of lines about an exception, after which the machine panics: its vector; CR2; what the
	// processor has pushed, four words; the vCPU.
	TeamFault = "fault"
)

// expectWords is what is kept of the first failure of Expect on each vCPU: its kind, where, want, got.
const expectWords = 4

// subroutines emits them. They change RAX, RCX, RDX, RSI and R8.
func (t *Team) subroutines() {
	t.print, t.number, t.barrier = t.Label(), t.Label(), t.Label()

	// The text at RSI, up to a zero.
	t.Bind(t.print)
	t.MovImm(micro.RDX, portSerial)
	next, end := t.Here(), t.Label()
	t.LoadByteM(micro.RAX, micro.At(micro.RSI, 0))
	t.Test(micro.RAX, micro.RAX)
	t.Jcc(micro.Equal, end)
	t.OutDX()
	t.Inc(micro.RSI)
	t.Jmp(next)
	t.Bind(end)
	t.Ret()

	// The number in RAX, then a line feed. R8 tells that a digit other than 0 has come.
	t.Bind(t.number)
	t.MovImm(micro.RDX, portSerial)
	t.Mov(micro.RSI, micro.RAX)
	t.MovImm(micro.RCX, 16)
	t.Xor(micro.R8, micro.R8)
	digit, show, decimal, skip := t.Here(), t.Label(), t.Label(), t.Label()
	t.RolImm(micro.RSI, 4)
	t.Mov(micro.RAX, micro.RSI)
	t.AndImm(micro.RAX, 15)
	t.Or(micro.R8, micro.RAX)
	t.Test(micro.R8, micro.R8)
	t.Jcc(micro.NotEqual, show)
	t.CmpImm(micro.RCX, 1) // the last one shows even if it is 0
	t.Jcc(micro.NotEqual, skip)
	t.Bind(show)
	t.CmpImm(micro.RAX, 10)
	t.Jcc(micro.Below, decimal)
	t.AddImm(micro.RAX, 'a'-'0'-10)
	t.Bind(decimal)
	t.AddImm(micro.RAX, '0')
	t.OutDX()
	t.Bind(skip)
	t.Dec(micro.RCX)
	t.Jcc(micro.NotEqual, digit)
	t.MovImm(micro.RAX, '\n')
	t.OutDX()
	t.Ret()

	// All vCPUs meet. The arrivals are counted from the start; the last one of a round lets the others go.
	t.Bind(t.barrier)
	t.IncMem(t.passed)
	t.Load(micro.RCX, t.passed)
	t.MovImm(micro.RDX, uint64(t.n))
	t.Imul(micro.RDX, micro.RCX)
	t.MovImm(micro.RAX, 1)
	t.XaddM(micro.Abs(t.arrivals), micro.RAX)
	t.Inc(micro.RAX)
	t.Cmp(micro.RAX, micro.RDX)
	wait, on := t.Label(), t.Label()
	t.Jcc(micro.NotEqual, wait)
	t.Now()
	t.Store(t.metAt, micro.RAX)
	t.Store(t.reached, micro.RCX)
	t.Ret()
	t.Bind(wait)
	t.CmpMem(micro.RCX, t.reached)
	t.Jcc(micro.BelowOrEqual, on)
	t.Pause()
	t.Jmp(wait)
	t.Bind(on)
	t.Ret()
}

// handlers makes every exception end the guest with lines that say what it was.
func (t *Team) handlers() {
	const exceptions = 32
	common := t.Label()
	for v := range uint8(exceptions) {
		if err := t.machine.SetGate(v, t.PC()); err != nil {
			t.fail("exception %d: %w", v, err)
		}
		t.MovImm(micro.RBX, uint64(v))
		t.Jmp(common)
	}
	t.Bind(common)
	t.Mov(micro.RAX, micro.RBX)
	t.Report(TeamFault + ".vector")
	t.Bytes(0x0f, 0x20, 0xd0) // mov rax, cr2
	t.Report(TeamFault + ".cr2")
	for i := range int32(4) {
		t.LoadM(micro.RAX, micro.At(micro.RSP, 8*i))
		t.Report(fmt.Sprintf("%s.stack.%d", TeamFault, i))
	}
	t.Mov(micro.RAX, micro.R15)
	t.Report(TeamFault + ".cpu")
	out(t.Asm, portPVPanic, panicked)
	halt(t.Asm)
}

// Barrier makes all vCPUs meet. It changes RAX, RCX and RDX.
func (t *Team) Barrier() { t.Call(t.barrier) }

// LoadMetAt makes r the TSC at which the last vCPU came to the last barrier.
func (t *Team) LoadMetAt(r micro.Reg) { t.Load(r, t.metAt) }

// Leader has the first vCPU alone run what body emits.
func (t *Team) Leader(body func()) {
	others := t.Label()
	t.Test(micro.R15, micro.R15)
	t.Jcc(micro.NotEqual, others)
	body()
	t.Bind(others)
}

// Report prints RAX under a name. It changes RAX, RCX, RDX, RSI and R8.
func (t *Team) Report(name string) {
	text, over := t.Label(), t.Label()
	t.Jmp(over)
	t.Bind(text)
	t.Asm.Bytes([]byte(name + " \x00")...)
	t.Bind(over)
	t.Push(micro.RAX)
	t.LeaLabel(micro.RSI, text)
	t.Call(t.print)
	t.Pop(micro.RAX)
	t.Call(t.number)
}

// Expect counts an error unless the last comparison ended as c says, and keeps the first one's kind and what is in the
// three registers, of which none is RSP. It changes the flags.
func (t *Team) Expect(c micro.Cond, kind int32, where, want, got micro.Reg) {
	good, known := t.Label(), t.Label()
	t.Jcc(c, good)
	t.IncMem(t.errors)
	t.Push(micro.RAX)
	t.Load(micro.RAX, t.first)
	t.Test(micro.RAX, micro.RAX)
	t.Pop(micro.RAX)
	t.Jcc(micro.NotEqual, known)
	t.MovMem(t.first, kind)
	t.Store(t.first+8, where)
	t.Store(t.first+16, want)
	t.Store(t.first+24, got)
	t.Bind(known)
	t.Bind(good)
}

// Random makes r a random number of 47 bits (xorshift64, without the low bits).
func (t *Team) Random(r micro.Reg) {
	for _, step := range []struct {
		left bool
		bits uint8
	}{{true, 13}, {false, 7}, {true, 17}} {
		t.Mov(r, micro.R14)
		if step.left {
			t.ShlImm(r, step.bits)
		} else {
			t.ShrImm(r, step.bits)
		}
		t.Xor(micro.R14, r)
	}
	t.Mov(r, micro.R14)
	t.ShrImm(r, 17)
}

// Now makes RAX the time stamp counter. It changes RDX.
func (t *Team) Now() {
	t.Rdtsc()
	t.ShlImm(micro.RDX, 32)
	t.Or(micro.RAX, micro.RDX)
}
