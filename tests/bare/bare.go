// Package bare makes kernels of a few hundred bytes, as ELF files that `coalesce run` boots.
//
// They stand in for Linux where a test is about the machine's life and not about the guest: they start in milliseconds,
// also where a KVM emulates ring 0 and Linux would take hours. What they do is said on the first serial port.
//
//	Script: prints lines, then ends as it is told to: power-off, panic, reset, or never
//	Pair:   starts the vCPU with APIC id 1, on another host if there is one, and shares a page with it for ever
//	Team:   runs a program in ring 3 on several vCPUs at once, each on a host of its own
package bare

import (
	"debug/elf"
	"fmt"

	"coalesce/guest/micro"
)

// The machine's registers that a kernel needs; Linux learns of them from the ACPI tables.
const (
	portSerial  = 0x3f8
	portPVPanic = 0x505
	portSleep   = 0x600
	portReset   = 0x602

	sleepToS5     = 1<<5 | 5<<2 // SLP_EN, SLP_TYP of S5
	panicked      = 1
	resetValue    = 1
	msrICR        = 0x830  // x2APIC's interrupt command
	icrINIT       = 0x4500 // level assert, INIT
	icrSIPI       = 0x4600 // level assert, start-up; the vector is added
	startPage     = 0x60   // where the second vCPU starts, as a SIPI has it; boot leaves it free
	startAddr     = startPage << 12
	sharedAddr    = 0x70000 // the page that the two vCPUs of Pair share
	firstCounter  = sharedAddr
	secondCounter = sharedAddr + 8
	loadAddr      = 0x100000
	pageSize      = PageSize
)

// End is how a Script ends.
type End int

// The ends of a Script.
const (
	PowerOff End = iota // through the ACPI sleep control register
	Panic               // told to the pvpanic device
	Reset               // through the ACPI reset register
	Halt                // never: it halts with interrupts off
	Spin                // never: it keeps its vCPU busy
)

// Script returns a kernel that prints text and ends.
func Script(text string, end End) ([]byte, error) {
	a := micro.NewAsm(loadAddr)
	a.Cli()
	print(a, text)
	switch end {
	case PowerOff:
		out(a, portSleep, sleepToS5)
	case Panic:
		out(a, portPVPanic, panicked)
	case Reset:
		out(a, portReset, resetValue)
	case Spin:
		loop := a.Here()
		a.Jmp(loop)
	}
	halt(a)
	return image(a, loadAddr, elf.PF_R|elf.PF_W|elf.PF_X)
}

// Lines of a Pair.
const (
	PairStarted = "bare: the second vCPU runs" // printed by the second vCPU
	PairUp      = "bare: both vCPUs run"       // the first one has seen the second one's counter move
	PairAlive   = "bare: both vCPUs still run" // again, about every 2^28 cycles
)

// Pair returns a kernel whose two vCPUs increment a counter each, in one page, for ever. The second one is started with
// INIT and SIPI and prints its line itself, over the I/O link if it is on a lender.
func Pair() ([]byte, error) {
	a := micro.NewAsm(loadAddr)
	a.Cli()
	a.Cld()
	second := secondCPU()
	after := a.Label()
	a.Jmp(after)
	code := a.PC()
	a.Bytes(second...)
	a.Bind(after)
	a.MovImm(micro.RSI, code)
	a.MovImm(micro.RDI, startAddr)
	a.MovImm(micro.RCX, uint64(len(second)))
	a.Bytes(0xf3, 0xa4) // rep movsb

	const other = 1 << 32 // the destination's APIC id, in the upper half
	a.WriteMSR(msrICR, other|icrINIT)
	a.WriteMSR(msrICR, other|icrSIPI|startPage)
	wait := a.Here()
	a.Pause()
	a.Load(micro.RSI, secondCounter)
	a.CmpImm(micro.RSI, 100)
	a.Jcc(micro.Below, wait)
	print(a, PairUp+"\n")

	loop := a.Here()
	a.LockIncMem(firstCounter)
	a.Rdtsc()
	a.Bytes(0xc1, 0xe8, 28) // shr eax, 28
	a.Bytes(0x39, 0xd8)     // cmp eax, ebx: the same moment still
	a.Jcc(micro.Equal, loop)
	a.CmpMem(micro.RSI, secondCounter) // it has not moved
	a.Jcc(micro.Equal, loop)
	a.Load(micro.RSI, secondCounter)
	a.Bytes(0x89, 0xc3) // mov ebx, eax
	print(a, PairAlive+"\n")
	a.Jmp(loop)
	return image(a, loadAddr, elf.PF_R|elf.PF_W|elf.PF_X)
}

// secondCPU is what the vCPU that is started runs: real mode, position-independent but for the data it names.
func secondCPU() []byte {
	var c []byte
	c = append(c, 0xfa)                                     // cli
	c = append(c, 0xb8, sharedAddr>>4&0xff, sharedAddr>>12) // mov ax, segment of the page
	c = append(c, 0x8e, 0xd8)                               // mov ds, ax
	for _, b := range []byte(PairStarted + "\n") {
		c = append(c, 0xba, portSerial&0xff, portSerial>>8) // mov dx, port
		c = append(c, 0xb0, b, 0xee)                        // mov al, b; out dx, al
	}
	// lock inc dword [8]; jmp back over its 6 bytes and its own 2
	return append(c, 0xf0, 0x66, 0xff, 0x06, 0x08, 0x00, 0xeb, 0xf8)
}

// print writes text to the serial port.
func print(a *micro.Asm, text string) {
	for _, b := range []byte(text) {
		out(a, portSerial, b)
	}
}

// out is mov dx, port; mov al, v; out dx, al.
func out(a *micro.Asm, port uint16, v byte) {
	a.Bytes(0x66, 0xba, byte(port), byte(port>>8), 0xb0, v, 0xee)
}

func halt(a *micro.Asm) {
	l := a.Here()
	a.Hlt()
	a.Jmp(l)
}

// image wraps code in an ELF file with one segment, which lies at base and is entered at its first instruction.
func image(a *micro.Asm, base uint64, access elf.ProgFlag) ([]byte, error) {
	code, err := a.Code()
	if err != nil {
		return nil, fmt.Errorf("assemble a kernel: %w", err)
	}
	return micro.ELF(code, base, base, access)
}
