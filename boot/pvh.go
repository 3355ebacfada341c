package boot

import "encoding/binary"

// Layout of struct hvm_start_info version 1 and what hangs off it, from Xen's
// public/arch-x86/hvm/start_info.h.
const (
	startInfoMagic   = 0x336ec578
	startInfoVersion = 1

	startInfoSize = 56
	moduleSize    = 32
	memmapSize    = 24 // of one entry

	moduleBase = startInfoBase + 0x40
	memmapBase = startInfoBase + 0x100
)

// The parts do not touch, and a full memory map ends before the zero page.
var (
	_ [moduleBase - (startInfoBase + startInfoSize)]byte
	_ [memmapBase - (moduleBase + moduleSize)]byte
	_ [zeroPageBase - (memmapBase + maxE820*memmapSize)]byte
)

// startInfo builds the PVH start info, the module list with the initrd and the
// memory map, to be written to startInfoBase as one block.
func (l *loader) startInfo(initrd span) []byte {
	le := binary.LittleEndian
	regions := l.memory.regions
	b := make([]byte, memmapBase-startInfoBase+len(regions)*memmapSize)

	le.PutUint32(b[0:], startInfoMagic)
	le.PutUint32(b[4:], startInfoVersion)
	if initrd != (span{}) {
		le.PutUint32(b[12:], 1) // nr_modules
		le.PutUint64(b[16:], moduleBase)
		m := b[moduleBase-startInfoBase:][:moduleSize]
		le.PutUint64(m[0:], initrd.base)
		le.PutUint64(m[8:], initrd.end-initrd.base)
	}
	le.PutUint64(b[24:], cmdlineBase)
	le.PutUint64(b[32:], l.params.RSDP)
	le.PutUint64(b[40:], memmapBase)
	le.PutUint32(b[48:], uint32(len(regions)))

	for i, r := range regions {
		e := b[memmapBase-startInfoBase+i*memmapSize:]
		le.PutUint64(e[0:], r.Base)
		le.PutUint64(e[8:], r.Length)
		le.PutUint32(e[16:], uint32(r.Kind))
	}
	return b
}
