// Package micro builds bare-metal guests: a few hundred bytes of machine code
// with page tables, descriptor tables and registers that start a vCPU in long
// mode, in ring 0 or ring 3. Tests, probes and benchmarks run them where a
// whole kernel would be too slow, too much, or not possible: a KVM without
// hardware virtualisation emulates ring 0 but runs ring 3 at full speed.
//
// A Machine writes the tables into guest memory and says with which registers
// a vCPU starts. Code is made with Asm, an assembler of just the instructions
// that are needed, or taken from the programs here: Spin, HaltLoop, SelfCheck,
// Trampoline. Memory is mapped one to one: a guest-physical address below
// 1 GiB, or from 3 to 4 GiB (devices), is a virtual one too, and ring 3 may
// use all of it.
//
// # Memory map
//
//	0x02000  page tables: PML4, PDPT, PD of [0, 1 GiB), PD of [3, 4 GiB)
//	0x07000  GDT
//	0x08000  Trampoline, where a SIPI with vector 8 starts
//	0x09000  IDT
//	0x0a000  fault stubs
//	0x10000  task state segments, 4 KiB apart, one per vCPU
//	0x20000  ring 0 stacks, 4 KiB each, by vCPU
//	0x30000  ring 3 stacks, 4 KiB each, by vCPU
//	0x40000  end; code and data go anywhere above
//
// An exception that a program has no gate for ends in a stub that writes its
// number to PortFault and halts with interrupts off.
//
// The package imports nothing of this project; coalesce/vcpu/microvm turns an
// Entry into KVM's structures and runs it.
package micro
