package micro

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

// ELF makes an ELF file with one segment, which lies at base, virtual address and
// physical, and is entered at entry.
func ELF(content []byte, base, entry uint64, access elf.ProgFlag) ([]byte, error) {
	header := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Entry: entry, Phnum: 1}
	segment := elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(access), Off: pageSize, Vaddr: base, Paddr: base,
		Filesz: uint64(len(content)), Memsz: uint64(len(content)), Align: pageSize}
	header.Ehsize, header.Phentsize = uint16(binary.Size(header)), uint16(binary.Size(segment))
	header.Phoff = uint64(header.Ehsize)
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB)
	header.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	var b bytes.Buffer
	for _, part := range []any{&header, &segment, make([]byte, pageSize-int(header.Ehsize)-int(header.Phentsize)), content} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("write an ELF file: %w", err)
		}
	}
	return b.Bytes(), nil
}
