package boot

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"testing"
)

const mib = 1 << 20

// ram is guest memory for tests. It keeps only what lies below its length and
// refuses writes outside the RAM of its map.
type ram struct {
	bytes   []byte
	regions []Region
	extents []span // of all writes
}

func newRAM(size int) *ram {
	return &ram{bytes: make([]byte, size), regions: testMap(uint64(size))}
}

func (r *ram) WriteAt(p []byte, gpa int64) (int, error) {
	s := span{uint64(gpa), uint64(gpa) + uint64(len(p))}
	for _, e := range r.regions {
		if e.Kind == RAM && s.base >= e.Base && s.end <= e.Base+e.Length {
			r.extents = append(r.extents, s)
			if s.base < uint64(len(r.bytes)) {
				copy(r.bytes[s.base:], p)
			}
			return len(p), nil
		}
	}
	return 0, fmt.Errorf("write to %#x..%#x, which is not RAM", s.base, s.end)
}

// at returns n bytes of memory at gpa.
func (r *ram) at(gpa uint64, n int) []byte { return r.bytes[gpa : gpa+uint64(n)] }

// testMap is the map of a guest with size bytes of low memory.
func testMap(size uint64) []Region {
	return []Region{
		{Base: 0, Length: 0xa0000, Kind: RAM},
		{Base: 0xe0000, Length: 0x20000, Kind: Reserved},
		{Base: mib, Length: size - mib, Kind: RAM},
	}
}

// bzOptions describes a synthetic bzImage; the zero value of a field takes what
// Debian's kernels have.
type bzOptions struct {
	payload     int // bytes of protected-mode code
	version     string
	protocol    uint16
	prefAddress uint64
	initSize    uint32
	cmdlineSize uint32
	edit        func(file []byte) []byte
}

// bzImage builds a bzImage whose protected-mode code is a pattern.
func bzImage(o bzOptions) []byte {
	const sects = 3
	def := func(v *uint32, d uint32) {
		if *v == 0 {
			*v = d
		}
	}
	if o.payload == 0 {
		o.payload = 5000
	}
	if o.protocol == 0 {
		o.protocol = 0x020f
	}
	if o.prefAddress == 0 {
		o.prefAddress = 16 * mib
	}
	def(&o.initSize, 4*mib)
	def(&o.cmdlineSize, 2047)
	le := binary.LittleEndian
	b := make([]byte, (sects+1)*sectorSize)
	b[offSetupSects] = sects
	le.PutUint32(b[offSyssize:], uint32(o.payload+paragraph-1)/paragraph)
	le.PutUint16(b[offBootFlag:], bootFlag)
	b[offHeaderLength-1] = 0xeb
	b[offHeaderLength] = 0x6a // ends at 0x26c, like protocol 2.15
	copy(b[offHeader:], headerMagic)
	le.PutUint16(b[offVersion:], o.protocol)
	if o.version != "" {
		le.PutUint16(b[offKernelVersion:], 0x300)
		copy(b[0x500:], o.version+"\x00")
	}
	b[offLoadflags] = loadedHigh
	le.PutUint32(b[offInitrdAddrMax:], 0x7fffffff)
	le.PutUint32(b[offAlignment:], 2*mib)
	b[offRelocatable] = 1
	le.PutUint16(b[offXloadflags:], xlfKernel64|0x3e)
	le.PutUint32(b[offCmdlineSize:], o.cmdlineSize)
	le.PutUint64(b[offPrefAddress:], o.prefAddress)
	le.PutUint32(b[offInitSize:], o.initSize)
	le.PutUint32(b[0x268:], 0x11223344) // kernel_info_offset
	b = append(b, pattern(o.payload, 1)...)
	if o.edit != nil {
		b = o.edit(b)
	}
	return b
}

// segment is a PT_LOAD of a synthetic vmlinux.
type segment struct {
	paddr uint64
	data  []byte
	memsz uint64 // len(data) if 0
}

// elfOptions describes a synthetic vmlinux.
type elfOptions struct {
	entry    uint64
	segments []segment
	notes    []byte
	edit     func(file []byte) []byte
}

// elfKernel builds a vmlinux.
func elfKernel(o elfOptions) []byte {
	n := len(o.segments)
	if o.notes != nil {
		n++
	}
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: o.entry,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(n),
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var head, body bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&head, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put(h)
	at := uint64(64 + 56*n)
	for _, s := range o.segments {
		put(elf.Prog64{Type: uint32(elf.PT_LOAD), Off: at + uint64(body.Len()), Paddr: s.paddr, Vaddr: s.paddr + 0xffffffff80000000,
			Filesz: uint64(len(s.data)), Memsz: max(s.memsz, uint64(len(s.data))), Align: 0x200000})
		body.Write(s.data)
	}
	if o.notes != nil {
		put(elf.Prog64{Type: uint32(elf.PT_NOTE), Off: at + uint64(body.Len()), Filesz: uint64(len(o.notes)), Align: 4})
		body.Write(o.notes)
	}
	b := append(head.Bytes(), body.Bytes()...)
	if o.edit != nil {
		b = o.edit(b)
	}
	return b
}

// note builds one ELF note with 4-byte alignment.
func note(name string, kind uint32, desc []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	b = pad(append(append(b, name...), 0))
	return pad(append(b, desc...))
}

// pvhNote is a vmlinux's note segment: another note before the PVH one.
func pvhNote(entry uint64) []byte {
	return append(note("GNU", 3, []byte("build id 12345")), note("Xen", xenNoteEntry, binary.LittleEndian.AppendUint64(nil, entry))...)
}

// pattern is n bytes that tell their position.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8)*31 + byte(i)*7 + seed
	}
	return b
}

// load runs Load on a kernel in memory.
func load(t testing.TB, mem *ram, kernel, initrd []byte, change func(*Params)) (*Entry, error) {
	t.Helper()
	p := Params{
		Kernel: bytes.NewReader(kernel), KernelSize: int64(len(kernel)),
		Cmdline: "console=ttyS0 quiet", E820: mem.regions, RSDP: 0xe0000,
	}
	if initrd != nil {
		p.Initrd, p.InitrdSize = bytes.NewReader(initrd), int64(len(initrd))
	}
	if change != nil {
		change(&p)
	}
	return Load(mem, p)
}
