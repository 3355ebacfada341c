package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// checkGolden compares b, as a hex dump, with a file in testdata.
func checkGolden(t *testing.T, name string, b []byte) {
	t.Helper()
	var d strings.Builder
	zeros := true
	for i := 0; i < len(b); i += 16 {
		row := b[i:min(i+16, len(b))]
		if bytes.Count(row, []byte{0}) == len(row) {
			zeros = true
			continue
		}
		if zeros && i > 0 {
			d.WriteString("*\n")
		}
		zeros = false
		fmt.Fprintf(&d, "%04x  %s\n", i, hex.EncodeToString(row))
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(d.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d.String() != string(want) {
		t.Errorf("%s differs from its golden file; have:\n%s", name, d.String())
	}
}

func TestLoadBzImage(t *testing.T) {
	const version = "6.12.1-test (builder@host) #1 SMP"
	kernel := bzImage(bzOptions{version: version, payload: 300 << 10})
	initrd := pattern(5000, 99)
	mem := newRAM(64 * mib)
	e, err := load(t, mem, kernel, initrd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != Linux64 || e.RIP != 16*mib+0x200 || e.RSI != zeroPageBase || e.RFLAGS != 2 {
		t.Errorf("entry is %+v", e)
	}
	if e.KernelVersion != version {
		t.Errorf("version is %q", e.KernelVersion)
	}
	if !bytes.Equal(mem.at(16*mib, 300<<10), pattern(300<<10, 1)) {
		t.Error("protected-mode code differs in memory")
	}
	if want := uint64(64*mib - 2*pageSize); e.InitrdBase != want || e.InitrdSize != 5000 {
		t.Errorf("initrd at %#x+%d, want %#x", e.InitrdBase, e.InitrdSize, want)
	}
	if !bytes.Equal(mem.at(e.InitrdBase, 5000), initrd) {
		t.Error("initrd differs in memory")
	}
	if got := mem.at(cmdlineBase, 20); string(got) != "console=ttyS0 quiet\x00" {
		t.Errorf("command line is %q", got)
	}
	checkGolden(t, "zeropage.golden", mem.at(zeroPageBase, zeroPageSize))
	checkGolden(t, "gdt64.golden", mem.at(gdtBase, gdtSize))
}

// TestIdentityTables walks the entry page tables as the CPU would.
func TestIdentityTables(t *testing.T) {
	mem := newRAM(64 * mib)
	e, err := load(t, mem, bzImage(bzOptions{}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	const addr = 0x000ffffffffff000
	read := func(table uint64, index uint64) uint64 {
		return binary.LittleEndian.Uint64(mem.at(table+8*(index&511), 8))
	}
	for _, va := range []uint64{0, 0x7000, mib, 2*mib - 1, 16 * mib, 0x3fffffff, 0x40000000, 0xbfffffff, 0xfec00000, 0xffffffff} {
		p4 := read(e.CR3, va>>39)
		p3 := read(p4&addr, va>>30)
		p2 := read(p3&addr, va>>21)
		if p4&3 != 3 || p3&3 != 3 || p2&0x83 != 0x83 {
			t.Fatalf("%#x is not mapped: %#x %#x %#x", va, p4, p3, p2)
		}
		if got := p2&addr&^(largePage-1) | va&(largePage-1); got != va {
			t.Errorf("%#x is mapped to %#x", va, got)
		}
	}
	if read(e.CR3, 1) != 0 || read(read(e.CR3, 0)&addr, 4) != 0 {
		t.Error("something above 4 GiB is mapped")
	}
}

func TestLoadPVH(t *testing.T) {
	code := pattern(9000, 3)
	kernel := elfKernel(elfOptions{
		entry:    16 * mib,
		segments: []segment{{paddr: 16 * mib, data: code}, {paddr: 20 * mib, data: pattern(100, 4), memsz: 2 * mib}},
		notes:    pvhNote(16*mib + 0x1230),
	})
	initrd := pattern(pageSize, 5)
	mem := newRAM(64 * mib)
	for i := range mem.bytes[20*mib : 22*mib] {
		mem.bytes[20*mib+i] = 0xaa // what an earlier boot left
	}
	e, err := load(t, mem, kernel, initrd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.Mode != PVH || e.RIP != 16*mib+0x1230 || e.RBX != startInfoBase || e.CR0&(1<<31) != 0 || e.EFER != 0 || e.CR4 != 0 || !e.CS.DB || e.CS.L {
		t.Errorf("entry is %+v", e)
	}
	if !bytes.Equal(mem.at(16*mib, len(code)), code) {
		t.Error("first segment differs in memory")
	}
	if bss := mem.at(20*mib+100, 2*mib-100); bytes.Count(bss, []byte{0}) != len(bss) {
		t.Error("bss is not clear")
	}
	if e.InitrdBase != 64*mib-pageSize || e.InitrdSize != pageSize || !bytes.Equal(mem.at(e.InitrdBase, pageSize), initrd) {
		t.Errorf("initrd at %#x+%#x", e.InitrdBase, e.InitrdSize)
	}
	if e.KernelBase != 16*mib || e.KernelSize != 6*mib {
		t.Errorf("kernel at %#x+%#x", e.KernelBase, e.KernelSize)
	}
	checkGolden(t, "startinfo.golden", mem.at(startInfoBase, zeroPageBase-startInfoBase))
	checkGolden(t, "gdt32.golden", mem.at(gdtBase, gdtSize))
}

func TestLoadELFThroughItsEntry(t *testing.T) {
	for _, tc := range []struct {
		name  string
		mode  Mode
		notes []byte
	}{
		{"no note", Auto, nil},
		{"other notes only", Auto, note("GNU", xenNoteEntry, []byte{1, 2, 3, 4})},
		{"asked for", Linux64, pvhNote(16 * mib)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			kernel := elfKernel(elfOptions{entry: 16*mib + 8, segments: []segment{{paddr: 16 * mib, data: pattern(64, 1)}}, notes: tc.notes})
			mem := newRAM(32 * mib)
			e, err := load(t, mem, kernel, nil, func(p *Params) { p.Mode = tc.mode })
			if err != nil {
				t.Fatal(err)
			}
			if e.Mode != Linux64 || e.RIP != 16*mib+8 || e.RSI != zeroPageBase || !e.CS.L || e.InitrdSize != 0 {
				t.Errorf("entry is %+v", e)
			}
			checkGolden(t, "zeropage-elf.golden", mem.at(zeroPageBase, zeroPageSize))
		})
	}
}

// TestPlacement checks where kernel and initrd go in memory of different shapes.
func TestPlacement(t *testing.T) {
	low := Region{0, 0xa0000, RAM}
	for _, tc := range []struct {
		name           string
		regions        []Region
		pref           uint64
		initrd         int
		kernel, initAt uint64
	}{
		{"plain", []Region{low, {mib, 127 * mib, RAM}}, 16 * mib, 100, 16 * mib, 128*mib - pageSize},
		{"unsorted, split in touching entries", []Region{{64 * mib, 64 * mib, RAM}, low, {17 * mib, 47 * mib, RAM}, {mib, 16 * mib, RAM}}, 16 * mib, 100, 16 * mib, 128*mib - pageSize},
		{"hole at the preferred address", []Region{low, {mib, 16 * mib, RAM}, {32*mib + pageSize, 32 * mib, RAM}}, 16 * mib, 100, 34 * mib, 64 * mib},
		{"initrd below the kernel", []Region{low, {mib, 20 * mib, RAM}}, 16 * mib, 2 * mib, 16 * mib, 14 * mib},
		{"preferred address not aligned", []Region{low, {mib, 63 * mib, RAM}}, 15 * mib, 100, 16 * mib, 64*mib - pageSize},
		{"beyond initrd_addr_max", []Region{low, {mib, 3<<30 - mib, RAM}, {4 << 30, 1 << 30, RAM}}, 16 * mib, 100, 16 * mib, 0x80000000 - pageSize},
		{"end of memory not page aligned", []Region{low, {mib, 63*mib - 100, RAM}}, 16 * mib, pageSize, 16 * mib, 64*mib - 2*pageSize},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem := &ram{regions: tc.regions}
			e, err := load(t, mem, bzImage(bzOptions{prefAddress: tc.pref}), make([]byte, tc.initrd), nil)
			if err != nil {
				t.Fatal(err)
			}
			if e.KernelBase != tc.kernel || e.InitrdBase != tc.initAt {
				t.Errorf("kernel at %#x, initrd at %#x; want %#x and %#x", e.KernelBase, e.InitrdBase, tc.kernel, tc.initAt)
			}
		})
	}
}

// TestRefusals checks that bad input gives the right error, in words a user can
// act on, and writes nothing outside RAM.
func TestRefusals(t *testing.T) {
	put16 := func(off int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[off:], v); return b }
	}
	put32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	put64 := func(off int, v uint64) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint64(b[off:], v); return b }
	}
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	bz := func(edit func([]byte) []byte) []byte { return bzImage(bzOptions{edit: edit}) }
	vmlinux := func(edit func([]byte) []byte) []byte {
		return elfKernel(elfOptions{entry: 16 * mib, segments: []segment{{paddr: 16 * mib, data: pattern(4096, 1)}, {paddr: 17 * mib, data: pattern(64, 1)}}, edit: edit})
	}
	const ph0, ph1 = 64, 64 + 56 // program headers in vmlinux
	for _, tc := range []struct {
		name   string
		kernel []byte
		change func(*Params)
		is     error
		says   string
	}{
		{"empty", nil, nil, ErrNotKernel, "empty"},
		{"text", []byte("#!/bin/sh\nexit 0\n"), nil, ErrNotKernel, "neither a bzImage nor an ELF"},
		{"gzip", append([]byte{0x1f, 0x8b}, make([]byte, 4096)...), nil, ErrNotKernel, "neither"},
		{"no boot flag", bz(put16(offBootFlag, 0)), nil, ErrNotKernel, "neither"},
		{"old protocol", bz(put16(offVersion, 0x020b)), nil, ErrUnsupported, "boot protocol 2.11"},
		{"zImage", bz(func(b []byte) []byte { b[offLoadflags] = 0; return b }), nil, ErrUnsupported, "zImage"},
		{"32-bit", bz(put16(offXloadflags, 0)), nil, ErrUnsupported, "no 64-bit entry"},
		{"cut in header", bz(cut(0x230)), nil, ErrTruncated, "inside its header"},
		{"cut at header's end", bz(cut(0x26a)), nil, ErrTruncated, "inside its header"},
		{"cut in setup", bz(cut(0x400)), nil, ErrTruncated, "has 1024 of"},
		{"cut in code", bz(cut(4*sectorSize + 4000)), nil, ErrTruncated, "has 6048 of 7056 bytes"},
		{"cut while read", bz(nil), func(p *Params) { p.Kernel = bytes.NewReader(bz(cut(3000))) }, ErrTruncated, "ends at byte 3000"},
		{"header too short", bz(func(b []byte) []byte { b[offHeaderLength] = 0x10; return b }), nil, ErrNotKernel, "own length"},
		{"header too long", bz(func(b []byte) []byte { b[offHeaderLength] = 0xff; return b }), nil, ErrNotKernel, "own length"},
		{"no code", bz(put32(offSyssize, 0)), nil, ErrNotKernel, "code size"},
		{"no 64-bit entry in code", bz(put32(offSyssize, 32)), nil, ErrNotKernel, "code size"},
		{"code size absurd", bz(put32(offSyssize, 0xffffffff)), nil, ErrTruncated, "of 68719478768 bytes"},
		{"init_size too small", bz(put32(offInitSize, 100)), nil, ErrNotKernel, "init_size"},
		{"init_size absurd", bz(put32(offInitSize, 0xffffffff)), nil, ErrNoRoom, "needs 4112 MiB of guest memory, the guest has 64 MiB"},
		{"preferred address low", bz(put64(offPrefAddress, 0x1000)), nil, ErrNotKernel, "preferred address"},
		{"preferred address absurd", bz(put64(offPrefAddress, 1<<63)), nil, ErrNotKernel, "preferred address"},
		{"alignment not a power of two", bz(put32(offAlignment, 3*mib)), nil, ErrNotKernel, "alignment"},
		{"alignment 0", bz(put32(offAlignment, 0)), nil, ErrNotKernel, "alignment"},
		{"initrd_addr_max 0", bz(put32(offInitrdAddrMax, 0)), nil, ErrNotKernel, "initrd address"},
		{"memory too small", bz(put32(offInitSize, 49*mib)), nil, ErrNoRoom, "kernel needs 65 MiB of guest memory, the guest has 64 MiB"},
		{"fixed kernel in a hole", bz(func(b []byte) []byte { b[offRelocatable] = 0; return put64(offPrefAddress, 128*mib)(b) }), nil, ErrNoRoom, "needs 132 MiB"},
		{"bzImage by PVH", bz(nil), func(p *Params) { p.Mode = PVH }, ErrUnsupported, "no PVH entry"},
		{"command line too long", bz(nil), func(p *Params) { p.Cmdline = strings.Repeat("x", 2048) }, ErrCmdlineTooLong, "2048 bytes is too long: this kernel takes 2047"},
		{"command line beyond our room", bz(put32(offCmdlineSize, 1<<31)), func(p *Params) { p.Cmdline = strings.Repeat("x", cmdlineRoom) }, ErrCmdlineTooLong, "takes 65535"},
		{"command line with NUL", bz(nil), func(p *Params) { p.Cmdline = "a\x00b" }, nil, "NUL at byte 1"},
		{"initrd too large", bz(nil), func(p *Params) { p.Initrd, p.InitrdSize = zeros{}, 45*mib }, ErrInitrdTooLarge, "initrd of 45 MiB is too large: guest memory has room for 44 MiB"},
		{"initrd absurd", bz(nil), func(p *Params) { p.Initrd, p.InitrdSize = zeros{}, 1<<63-1 }, ErrInitrdTooLarge, "too large"},
		{"initrd shrinks", bz(nil), func(p *Params) { p.Initrd, p.InitrdSize = bytes.NewReader(make([]byte, 10)), 20 }, ErrTruncated, "initrd file is truncated: it ends at byte 10"},
		{"kernel unreadable", bz(nil), func(p *Params) { p.Kernel = failing{} }, iotest.ErrTimeout, "read kernel"},
		{"initrd unreadable", bz(nil), func(p *Params) { p.Initrd, p.InitrdSize = failing{}, 5 }, iotest.ErrTimeout, "read initrd"},
		{"size without file", nil, func(p *Params) { p.Kernel = nil }, nil, "without a file"},
		{"unknown mode", bz(nil), func(p *Params) { p.Mode = 9 }, nil, "unknown boot mode"},

		{"ELF header cut", vmlinux(cut(50)), nil, ErrTruncated, "ELF header"},
		{"ELF for another machine", vmlinux(put16(18, 183)), nil, ErrNotKernel, "not for x86-64"},
		{"ELF 32-bit", vmlinux(func(b []byte) []byte { b[4] = 1; return b }), nil, ErrNotKernel, "not for x86-64"},
		{"ELF object", vmlinux(put16(16, 1)), nil, ErrNotKernel, "ET_REL"},
		{"ELF without program headers", vmlinux(put16(56, 0)), nil, ErrNotKernel, "without program headers"},
		{"ELF with too many program headers", vmlinux(put16(56, 0xffff)), nil, ErrNotKernel, "65535 program headers"},
		{"ELF with odd program headers", vmlinux(put16(54, 55)), nil, ErrNotKernel, "of 55 bytes"},
		{"ELF program headers outside", vmlinux(put64(32, 1<<63)), nil, ErrTruncated, "program headers"},
		{"ELF segment outside the file", vmlinux(put64(ph0+8, 4090)), nil, ErrTruncated, "program header 0"},
		{"ELF segment absurd", vmlinux(put64(ph0+32, 1<<63)), nil, ErrTruncated, "program header 0"},
		{"ELF segment smaller in memory", vmlinux(put64(ph0+40, 1)), nil, ErrNotKernel, "more bytes in the file"},
		{"ELF segment low", vmlinux(put64(ph0+24, 0x1000)), nil, ErrNotKernel, "outside 1 MiB"},
		{"ELF segment wraps", vmlinux(put64(ph0+24, ^uint64(0)-10)), nil, ErrNotKernel, "outside 1 MiB"},
		{"ELF segment beyond memory", vmlinux(put64(ph0+40, 60*mib)), nil, ErrNoRoom, "needs 76 MiB"},
		{"ELF segments overlap", vmlinux(put64(ph1+24, 16*mib+4095)), nil, ErrNotKernel, "overlaps"},
		{"ELF entry nowhere", vmlinux(put64(24, 48*mib)), nil, ErrNotKernel, "entry 0x3000000"},
		{"ELF with nothing to load", vmlinux(func(b []byte) []byte { return put32(ph1, 7)(put32(ph0, 7)(b)) }), nil, ErrNotKernel, "nothing to load"},
		{"ELF by PVH without note", vmlinux(nil), func(p *Params) { p.Mode = PVH }, ErrUnsupported, "no PVH note"},
		{"PVH note of odd size", elfKernel(elfOptions{entry: 16 * mib, segments: []segment{{paddr: 16 * mib, data: pattern(64, 1)}}, notes: note("Xen", xenNoteEntry, []byte{1, 2, 3})}), nil, ErrNotKernel, "PVH note has 3 bytes"},
		{"PVH entry nowhere", elfKernel(elfOptions{entry: 16 * mib, segments: []segment{{paddr: 16 * mib, data: pattern(64, 1)}}, notes: pvhNote(1 << 40)}), nil, ErrNotKernel, "entry 0x10000000000"},

		{"no memory map", bz(nil), func(p *Params) { p.E820 = nil }, nil, "memory map is empty"},
		{"too many entries", bz(nil), func(p *Params) { p.E820 = make([]Region, 129) }, nil, "129 entries"},
		{"map overlaps", bz(nil), func(p *Params) { p.E820 = append(testMap(64*mib), Region{63 * mib, mib + 1, Reserved}) }, nil, "overlap at 0x3f00000"},
		{"map wraps", bz(nil), func(p *Params) { p.E820 = append(testMap(64*mib), Region{1 << 63, 1 << 63, RAM}) }, nil, "length"},
		{"map entry empty", bz(nil), func(p *Params) { p.E820 = append(testMap(64*mib), Region{1 << 32, 0, RAM}) }, nil, "length 0x0"},
		{"no low memory", bz(nil), func(p *Params) { p.E820 = []Region{{mib, 63 * mib, RAM}} }, nil, "no RAM at 0..0x90000"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem := newRAM(64 * mib)
			e, err := load(t, mem, tc.kernel, nil, tc.change)
			if err == nil {
				t.Fatalf("loaded: %+v", e)
			}
			if tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %q is not %q", err, tc.is)
			}
			if !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error is %q, want it to say %q", err, tc.says)
			}
		})
	}
}

// TestShortLastParagraph accepts a file whose last 16-byte unit is not full.
func TestShortLastParagraph(t *testing.T) {
	mem := newRAM(64 * mib)
	if _, err := load(t, mem, bzImage(bzOptions{payload: 5001}), nil, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem.at(16*mib, 5001), pattern(5001, 1)) {
		t.Error("code differs in memory")
	}
}

func TestMemoryErrorIsPassedOn(t *testing.T) {
	mem := &ram{} // no RAM: every write fails
	_, err := load(t, mem, bzImage(bzOptions{}), nil, func(p *Params) { p.E820 = testMap(64 * mib) })
	if err == nil || !strings.Contains(err.Error(), "write kernel at guest address 0x1000000") {
		t.Errorf("error is %v", err)
	}
}

// TestRealKernel loads the distribution's kernel, packed and unpacked, where the
// build has fetched it.
func TestRealKernel(t *testing.T) {
	for _, tc := range []struct {
		name    string
		mode    Mode
		version string
	}{
		{"vmlinuz", Linux64, "6."},
		{"vmlinux", PVH, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join("..", "build", "kernel", tc.name)
			f, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) {
				t.Logf("%s is not there; the synthetic kernels of the other tests stand for it", path)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			st, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			mem := newRAM(256 * mib)
			e, err := load(t, mem, nil, pattern(3*mib, 7), func(p *Params) { p.Kernel, p.KernelSize = f, st.Size() })
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%v, version %q, at %#x+%#x, entry %#x", e.Mode, e.KernelVersion, e.KernelBase, e.KernelSize, e.RIP)
			if e.Mode != tc.mode || e.InitrdBase != 253*mib || !strings.HasPrefix(e.KernelVersion, tc.version) {
				t.Errorf("entry is %+v", e)
			}
			if code := mem.at(e.RIP, 16); bytes.Count(code, []byte{0}) == len(code) {
				t.Error("there is no code at the entry")
			}

			mem = newRAM(24 * mib)
			_, err = load(t, mem, nil, nil, func(p *Params) { p.Kernel, p.KernelSize = f, st.Size() })
			if !errors.Is(err, ErrNoRoom) {
				t.Errorf("in 24 MiB: %v", err)
			}
		})
	}
}

// zeros is an endless file.
type zeros struct{}

func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// failing is a file on a broken disk.
type failing struct{}

func (failing) ReadAt([]byte, int64) (int, error) { return 0, iotest.ErrTimeout }
