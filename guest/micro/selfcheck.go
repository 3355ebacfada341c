package micro

// SelfCheck's data, by offset from its base address.
const (
	checkCounter  = 0x00 // passes completed
	checkFailed   = 0x08 // what was found wrong, a Check* number, 0 if nothing
	checkTicks    = 0x10 // timer interrupts taken
	checkTSC      = 0x18 // last time seen
	checkRounds   = 0x20
	checkFlagsGot = 0x28
	checkFlags    = 0x30
	checkMXCSR    = 0x38 // expected; the one found is 4 bytes on
	checkX87Got   = 0x58
	checkRegs     = 0x80  // 16 quadwords by Reg
	checkVectors  = 0x100 // 32 of 64 bytes
	checkMasks    = 0x900 // 8 quadwords
	checkEnd      = 0x940
	checkSaved    = 0xa00 // like checkVectors to checkEnd, as stored
	checkStack    = 0x1800

	// SelfCheckSize is how many bytes SelfCheck uses from its data address.
	SelfCheckSize = 0x2000
)

// What SelfCheck can find wrong; general registers are CheckRegister + Reg.
const (
	CheckRegister = 1
	CheckFlags    = 0x20
	CheckVector   = 0x21 // a vector or mask register
	CheckX87      = 0x22
	CheckMXCSR    = 0x23
	CheckTSC      = 0x24 // time ran backwards
	CheckPort     = 0x25 // IN gave something other than Answer
	CheckMMIO     = 0x26
)

// Vectors says which vector registers SelfCheck uses.
type Vectors int

const (
	SSE    Vectors = iota // XMM0 to XMM15
	AVX                   // YMM0 to YMM15
	AVX512                // ZMM0 to ZMM31 and K0 to K7
)

func (v Vectors) String() string { return [...]string{"SSE", "AVX", "AVX-512"}[v] }

// XCR0 is the feature mask the registers need.
func (v Vectors) XCR0() uint64 { return [...]uint64{0, 0x7, 0xe7}[v] }

// SelfCheckOptions describes a SelfCheck program.
type SelfCheckOptions struct {
	Code    uint64 // address of the code
	Data    uint64 // address of SelfCheckSize bytes, zeroed
	VCPU    int
	Vectors Vectors
	Rounds  uint32 // checks of the general registers per pass
	// Timer, if not 0, is the period in ns of an APIC timer interrupt that
	// TimerVector's handler counts.
	Timer       uint32
	TimerVector uint8
	IO          bool // do a port and an MMIO access in each pass
}

// SelfCheck installs a program that starts in ring 0, goes to ring 3 and there
// fills every general, vector and x87 register, MXCSR and the flags with
// values derived from a counter, checks them Rounds times, checks that time
// went on, increments the counter, and so on for ever. Wherever it is stopped,
// nearly every register holds something that will be checked. What is wrong is
// written to the data (see SelfCheckStatus) and to PortFail, and ends it.
func SelfCheck(m *Machine, o SelfCheckOptions) error {
	a := NewAsm(o.Code)
	p := &selfCheck{Asm: a, o: o}
	ring3, handler := a.Label(), a.Label()
	if o.Timer != 0 {
		a.EnableAPIC()
		a.StartTimer(o.TimerVector, o.Timer)
	}
	a.EnterRing3(o.VCPU, ring3)
	a.Bind(handler)
	a.CountingHandler(o.Data + checkTicks)
	a.Bind(ring3)
	p.pass()
	handlers := map[uint8]Label{}
	if o.Timer != 0 {
		handlers[o.TimerVector] = handler
	}
	return a.Install(m, o.Code, handlers)
}

// Status is what a SelfCheck program has to say.
type Status struct {
	Passes uint64 // completed
	Failed uint64 // what was found wrong, a Check* number; 0 if nothing
	Ticks  uint64 // timer interrupts taken
	Rounds uint64 // checks of the general registers left in this pass
}

// SelfCheckStatus reads the status from the program's data, which may be
// running: read word by word with the given function.
func SelfCheckStatus(data uint64, load func(gpa uint64) uint64) Status {
	return Status{
		Passes: load(data + checkCounter), Failed: load(data + checkFailed),
		Ticks: load(data + checkTicks), Rounds: load(data + checkRounds),
	}
}

// selfCheck generates the program's ring 3 part.
type selfCheck struct {
	*Asm
	o SelfCheckOptions
}

func (p *selfCheck) at(offset uint64) uint64 { return p.o.Data + offset }

func (p *selfCheck) pass() {
	top := p.Here()
	p.generate()
	p.loadVectors()
	p.roundsOfGeneral()
	p.checkVectors()
	p.checkTime()
	if p.o.IO {
		p.checkIO()
	}
	p.IncMem(p.at(checkCounter))
	p.Jmp(top)
}

// expect makes the program fail with the given number unless the last
// comparison has found its operands equal.
func (p *selfCheck) expect(number int32) { p.failIf(NotEqual, number) }

func (p *selfCheck) failIf(c Cond, number int32) {
	bad, good := p.Label(), p.Label()
	p.Jcc(c, bad)
	p.Jmp(good)
	p.Bind(bad)
	p.MovMem(p.at(checkFailed), number)
	p.Out8(PortFail, uint8(number))
	stop := p.Here()
	p.Pause()
	p.Jmp(stop)
	p.Bind(good)
}

// generate fills the tables with values that depend on the counter (a linear
// congruential generator, Knuth's MMIX constants).
func (p *selfCheck) generate() {
	p.Load(RAX, p.at(checkCounter))
	p.MovImm(RDX, 6364136223846793005)
	p.MovImm(RBX, 1442695040888963407)
	p.MovImm(RDI, p.at(checkRegs))
	p.MovImm(RCX, (checkEnd-checkRegs)/8)
	next := p.Here()
	p.Imul(RAX, RDX)
	p.Add(RAX, RBX)
	p.StoreAt(RDI, RAX)
	p.AddImm(RDI, 8)
	p.Dec(RCX)
	p.Jcc(NotEqual, next)

	// RSP must be a stack: one of 16 places, by the counter.
	p.Mov(RSI, RAX)
	p.AndImm(RSI, 0xf0)
	p.AddImm(RSI, int32(p.at(checkStack)))
	p.Store(p.at(checkRegs+8*uint64(RSP)), RSI)

	// CF, PF, AF, ZF, SF, DF and OF by the counter; interrupts stay on.
	p.Mov(RSI, RAX)
	p.ShrImm(RSI, 20)
	p.AndImm(RSI, 0xcd5)
	p.OrImm(RSI, flagFixed|flagIF)
	p.Store(p.at(checkFlags), RSI)

	// MXCSR: the default with a rounding mode and flush-to-zero by the counter.
	p.Mov(RSI, RAX)
	p.ShrImm(RSI, 32)
	p.AndImm(RSI, 0xe000)
	p.OrImm(RSI, 0x1f80)
	p.Store(p.at(checkMXCSR), RSI)
}

// count is how many vector registers there are.
func (p *selfCheck) count() uint8 {
	if p.o.Vectors == AVX512 {
		return 32
	}
	return 16
}

func (p *selfCheck) loadVectors() {
	for i := range p.count() {
		p.moveVector(i, p.at(checkVectors+64*uint64(i)), false)
	}
	if p.o.Vectors == AVX512 {
		for i := range uint8(8) {
			p.Bytes(0xc4, 0xe1, 0xf8, 0x90) // kmovq k, [addr]
			p.abs(i, p.at(checkMasks+8*uint64(i)))
		}
	}
	p.Bytes(0x0f, 0xae) // ldmxcsr
	p.abs(2, p.at(checkMXCSR))
	p.Bytes(0xdb, 0xe3) // fninit
	p.Bytes(0xdf)       // fild qword
	p.abs(5, p.at(checkRegs))
}

// moveVector loads or stores one whole vector register, unaligned.
func (p *selfCheck) moveVector(i uint8, addr uint64, store bool) {
	op := byte(0x6f)
	if store {
		op = 0x7f
	}
	switch p.o.Vectors {
	case SSE: // movdqu
		p.Bytes(0xf3)
		if i >= 8 {
			p.Bytes(0x44)
		}
		p.Bytes(0x0f, op)
	case AVX: // vmovdqu ymm: two-byte VEX, R inverted, L=1, pp=F3
		vex := byte(0xfe)
		if i >= 8 {
			vex = 0x7e
		}
		p.Bytes(0xc5, vex, op)
	case AVX512: // vmovdqu64 zmm: EVEX with R and R' inverted, W=1, pp=F3
		p0 := byte(0xf1)
		if i&8 != 0 {
			p0 &^= 0x80
		}
		if i&16 != 0 {
			p0 &^= 0x10
		}
		p.Bytes(0x62, p0, 0xfe, 0x48, op)
	}
	p.abs(i, addr)
}

// roundsOfGeneral loads the general registers and compares them with their
// table Rounds times, the flags before them each time.
func (p *selfCheck) roundsOfGeneral() {
	p.MovMem(p.at(checkRounds), int32(p.o.Rounds))
	for r := RAX; r <= R15; r++ {
		p.Load(r, p.at(checkRegs+8*uint64(r)))
	}
	round := p.Here()
	p.PushMem(p.at(checkFlags))
	p.Popfq()
	for range 16 { // time in which only the flags could be lost
		p.Nop()
	}
	p.Pushfq()
	p.PopMem(p.at(checkFlagsGot))
	p.Push(RAX)
	p.Load(RAX, p.at(checkFlagsGot))
	p.AndImm(RAX, ^flagIOPL3) // differs between kinds of KVM
	p.CmpMem(RAX, p.at(checkFlags))
	p.expect(CheckFlags)
	p.Pop(RAX)
	for r := RAX; r <= R15; r++ {
		p.CmpMem(r, p.at(checkRegs+8*uint64(r)))
		p.expect(CheckRegister + int32(r))
	}
	p.DecMem(p.at(checkRounds))
	p.Jcc(NotEqual, round)
	p.Cld()
}

// checkVectors stores what loadVectors loaded and compares.
func (p *selfCheck) checkVectors() {
	for i := range p.count() {
		p.moveVector(i, p.at(checkSaved+64*uint64(i)), true)
	}
	size := uint64(16) // of a register
	switch p.o.Vectors {
	case AVX:
		size = 32
	case AVX512:
		size = 64
		for i := range uint8(8) {
			p.Bytes(0xc4, 0xe1, 0xf8, 0x91) // kmovq [addr], k
			p.abs(i, p.at(checkSaved+checkMasks-checkVectors+8*uint64(i)))
		}
	}
	compare := func(offset, n uint64) {
		p.MovImm(RSI, p.at(offset))
		p.MovImm(RDI, p.at(offset+checkSaved-checkVectors))
		p.MovImm(RCX, n/8)
		p.RepeCmpsq()
		p.expect(CheckVector)
	}
	for i := range uint64(p.count()) {
		compare(checkVectors+64*i, size)
	}
	if p.o.Vectors == AVX512 {
		compare(checkMasks, 64)
	}
	p.Bytes(0x0f, 0xae) // stmxcsr
	p.abs(3, p.at(checkMXCSR+4))
	p.MovImm(RDX, p.at(checkMXCSR))
	p.Load32At(RAX, RDX)
	p.MovImm(RDX, p.at(checkMXCSR+4))
	p.Load32At(RCX, RDX)
	p.Cmp(RAX, RCX)
	p.expect(CheckMXCSR)
	p.Bytes(0xdf) // fistp qword
	p.abs(7, p.at(checkX87Got))
	p.Load(RAX, p.at(checkX87Got))
	p.CmpMem(RAX, p.at(checkRegs))
	p.expect(CheckX87)
}

func (p *selfCheck) checkTime() {
	p.Rdtsc()
	p.ShlImm(RDX, 32)
	p.Or(RAX, RDX)
	p.CmpMem(RAX, p.at(checkTSC))
	p.failIf(Below, CheckTSC)
	p.Store(p.at(checkTSC), RAX)
}

func (p *selfCheck) checkIO() {
	p.MovImm(RDX, Answer)
	p.In32(PortAsk)
	p.MovImm(RCX, 0xffff_ffff)
	p.And(RAX, RCX)
	p.Cmp(RAX, RDX)
	p.expect(CheckPort)
	p.MovImm(RSI, MMIOAsk)
	p.Load32At(RAX, RSI)
	p.Cmp(RAX, RDX)
	p.expect(CheckMMIO)
	p.Out32(PortReport)
}
