package kvm

import "unsafe"

// Compile-time size assertions: each pair fails to build when the size is
// larger or smaller than the kernel's.
var (
	_ [unsafe.Sizeof(Regs{}) - 0x90]byte
	_ [0x90 - unsafe.Sizeof(Regs{})]byte
	_ [unsafe.Sizeof(Segment{}) - 24]byte
	_ [24 - unsafe.Sizeof(Segment{})]byte
	_ [unsafe.Sizeof(DTable{}) - 16]byte
	_ [16 - unsafe.Sizeof(DTable{})]byte
	_ [unsafe.Sizeof(Sregs{}) - 0x138]byte
	_ [0x138 - unsafe.Sizeof(Sregs{})]byte
	_ [unsafe.Sizeof(XCRs{}) - 0x188]byte
	_ [0x188 - unsafe.Sizeof(XCRs{})]byte
	_ [unsafe.Sizeof(DebugRegs{}) - 0x80]byte
	_ [0x80 - unsafe.Sizeof(DebugRegs{})]byte
	_ [unsafe.Sizeof(VCPUEvents{}) - 0x40]byte
	_ [0x40 - unsafe.Sizeof(VCPUEvents{})]byte
	_ [unsafe.Sizeof(MSR{}) - 16]byte
	_ [16 - unsafe.Sizeof(MSR{})]byte
	_ [unsafe.Sizeof(CPUIDEntry{}) - 40]byte
	_ [40 - unsafe.Sizeof(CPUIDEntry{})]byte
	_ [unsafe.Sizeof(userspaceMemoryRegion{}) - 0x20]byte
	_ [0x20 - unsafe.Sizeof(userspaceMemoryRegion{})]byte
	_ [unsafe.Sizeof(enableCapArg{}) - 0x68]byte
	_ [0x68 - unsafe.Sizeof(enableCapArg{})]byte
	_ [unsafe.Sizeof(deviceAttrArg{}) - 0x18]byte
	_ [0x18 - unsafe.Sizeof(deviceAttrArg{})]byte
	_ [unsafe.Sizeof(signalMask{}) - 12]byte
	_ [12 - unsafe.Sizeof(signalMask{})]byte
	_ [unsafe.Sizeof(runPage{}) - 2352]byte
	_ [2352 - unsafe.Sizeof(runPage{})]byte
	_ [unsafe.Offsetof(runPage{}.exit) - 32]byte
	_ [32 - unsafe.Offsetof(runPage{}.exit)]byte
	_ [unsafe.Offsetof(runMMIO{}.len) - 16]byte
	_ [16 - unsafe.Offsetof(runMMIO{}.len)]byte
	_ [unsafe.Offsetof(runMSR{}.data) - 16]byte
	_ [16 - unsafe.Offsetof(runMSR{}.data)]byte
)
