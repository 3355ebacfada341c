package boot

import "encoding/binary"

// Offsets into struct boot_params, the zero page (zero-page.rst).
const (
	bpRSDP        = 0x070 // acpi_rsdp_addr, 8 bytes
	bpE820Entries = 0x1e8 // 1 byte
	bpSetup       = 0x1f1 // struct setup_header
	bpE820        = 0x2d0 // 128 entries of 20 bytes
	bpE820Entry   = 20
	zeroPageSize  = 4096
)

// loaderUndefined is the type_of_loader of a loader without a number of its own.
const loaderUndefined = 0xff

// zeroPage builds struct boot_params. setup is the kernel's own setup header
// from offset bpSetup on, which boot.rst wants copied into an empty page.
func (l *loader) zeroPage(setup []byte, initrd span) []byte {
	z := make([]byte, zeroPageSize)
	le := binary.LittleEndian

	copy(z[bpSetup:], setup)
	z[offTypeOfLoader] = loaderUndefined
	le.PutUint32(z[offRamdiskImage:], uint32(initrd.base))
	le.PutUint32(z[offRamdiskSize:], uint32(initrd.end-initrd.base))
	le.PutUint32(z[offCmdLinePtr:], cmdlineBase)

	le.PutUint64(z[bpRSDP:], l.params.RSDP)
	z[bpE820Entries] = uint8(len(l.memory.regions))
	for i, r := range l.memory.regions {
		e := z[bpE820+i*bpE820Entry:]
		le.PutUint64(e[0:], r.Base)
		le.PutUint64(e[8:], r.Length)
		le.PutUint32(e[16:], uint32(r.Kind))
	}
	return z
}
