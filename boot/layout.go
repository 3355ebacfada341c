package boot

// Guest physical addresses of the boot data. All of it lies in conventional
// memory, clear of the real-mode interrupt table and BIOS data area at 0..0x4ff,
// and the kernel takes the room back once it has read it.
const (
	gdtBase = 0x0500 // six descriptors

	startInfoBase = 0x6000 // PVH start info, one module, memory map: up to 0x6d00
	zeroPageBase  = 0x7000 // struct boot_params, one page

	pml4Base  = 0x9000  // one page
	pdptBase  = 0xa000  // one page
	pdBase    = 0xb000  // four pages: 2 MiB entries for [0, 4 GiB)
	tablesEnd = 0xf000  // end of the page tables
	tableSize = 0x1000  // of one page table, in bytes
	largePage = 2 << 20 // what one page directory entry maps

	cmdlineBase = 0x20000
	cmdlineRoom = 0x10000 // with the terminator

	// LowEnd ends the memory that Load uses for boot data: [0, LowEnd) must be RAM.
	LowEnd = 0x90000

	// highBase is the lowest address for kernels and initrds.
	highBase = 1 << 20
)
