// Package boot puts a Linux kernel, its initial RAM disk and its command line
// into a guest's memory and says with which register values the first vCPU
// starts. It plays the part of the boot loader; there is no firmware.
//
// Three ways in are known:
//
//   - a bzImage through the 64-bit entry of the Linux/x86 boot protocol, with a
//     zero page;
//   - an ELF64 vmlinux that carries a PVH note, through that note's 32-bit
//     entry, with a start info block (Auto prefers this one);
//   - an ELF64 vmlinux through its own entry in 64-bit mode, with a zero page.
//
// A bzImage has no PVH way in: its note is inside the compressed payload.
//
// Kernels are untrusted input: every header field is checked before it is
// used, nothing is allocated by a size taken from the file, and nothing is
// written outside the RAM that the E820 map declares.
//
// Sources: Documentation/arch/x86/boot.rst and zero-page.rst of Linux, "x86/HVM
// direct boot ABI" (docs/misc/pvh.pandoc) and public/arch-x86/hvm/start_info.h
// of Xen, System V ABI for ELF-64.
package boot
