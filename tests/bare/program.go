package bare

import (
	"debug/elf"

	"coalesce/guest/micro"
)

// System calls of x86-64 (asm/unistd_64.h) and what they are called with.
const (
	sysWrite  = 1
	sysOpen   = 2
	sysReboot = 169

	openWriteOnly = 1
	rebootMagic1  = 0xfee1dead // linux/reboot.h
	rebootMagic2  = 672274793
	rebootRestart = 0x01234567

	userBase = 0x400000
)

// Restart returns a program for Linux that asks the kernel to restart the machine. It must run as root.
func Restart() ([]byte, error) {
	a := micro.NewAsm(userBase)
	call(a, sysReboot, rebootMagic1, rebootMagic2, rebootRestart)
	a.Ud2()
	return program(a)
}

// Crash returns a program for Linux that makes the kernel panic, by way of /proc/sysrq-trigger. It must run as root.
func Crash() ([]byte, error) {
	a := micro.NewAsm(userBase)
	after := a.Label()
	a.Jmp(after)
	path := a.PC()
	a.Bytes([]byte("/proc/sysrq-trigger\x00")...)
	command := a.PC()
	a.Bytes('c')
	a.Bind(after)
	call(a, sysOpen, path, openWriteOnly, 0)
	a.Mov(micro.RDI, micro.RAX)
	a.MovImm(micro.RSI, command)
	a.MovImm(micro.RDX, 1)
	a.MovImm(micro.RAX, sysWrite)
	a.Bytes(0x0f, 0x05)
	a.Ud2()
	return program(a)
}

// call is a system call with three arguments.
func call(a *micro.Asm, number, arg1, arg2, arg3 uint64) {
	a.MovImm(micro.RDI, arg1)
	a.MovImm(micro.RSI, arg2)
	a.MovImm(micro.RDX, arg3)
	a.MovImm(micro.RAX, number)
	a.Bytes(0x0f, 0x05) // syscall
}

// program wraps code in an ELF file for Linux.
func program(a *micro.Asm) ([]byte, error) {
	return image(a, userBase, elf.PF_R|elf.PF_X)
}
