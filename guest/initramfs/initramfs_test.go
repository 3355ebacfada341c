package initramfs

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// build builds an archive and returns its records in order, by name.
func build(t *testing.T, path string, opts Options) (order []string, records map[string]cpio.Record) {
	t.Helper()
	archive, err := Build(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() != archive.Size || archive.Path != path {
		t.Fatalf("reported %+v, found %v %v", archive, fi, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	all, err := cpio.ReadAllRecords(cpio.Newc.Reader(f))
	if err != nil {
		t.Fatal(err)
	}
	records = make(map[string]cpio.Record)
	for _, r := range all {
		order = append(order, r.Name)
		records[r.Name] = r
	}
	return order, records
}

func data(t *testing.T, r cpio.Record) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(r, 0, int64(r.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkProgram checks that a record is a program that needs no library.
func checkProgram(t *testing.T, r cpio.Record) {
	t.Helper()
	if r.Mode != cpio.S_IFREG|0o755 {
		t.Errorf("%s has mode %#o", r.Name, r.Mode)
	}
	f, err := elf.NewFile(bytes.NewReader(data(t, r)))
	if err != nil {
		t.Fatalf("%s: %v", r.Name, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Errorf("%s is not static", r.Name)
		}
	}
	if f.Machine != elf.EM_X86_64 {
		t.Errorf("%s is for %v", r.Name, f.Machine)
	}
}

func checkDevice(t *testing.T, r cpio.Record, major, minor uint64) {
	t.Helper()
	if r.Mode&cpio.S_IFMT != cpio.S_IFCHR || r.Rmajor != major || r.Rminor != minor {
		t.Errorf("%s: mode %#o, device %d:%d, want %d:%d", r.Name, r.Mode, r.Rmajor, r.Rminor, major, minor)
	}
}

// checkOrder checks that each folder is there before what is in it, as the kernel needs it.
func checkOrder(t *testing.T, order []string, records map[string]cpio.Record) {
	t.Helper()
	seen := map[string]bool{".": true}
	for _, name := range order {
		if !seen[filepath.Dir(name)] {
			t.Errorf("%s comes before its folder", name)
		}
		seen[name] = records[name].Mode&cpio.S_IFMT == cpio.S_IFDIR
		if r := records[name]; r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s depends on who built it, and when: %v", name, r.Info)
		}
	}
}

// TestTiny follows one archive: what is in it, that the same inputs do not make it anew, that a damaged one is made
// again with the same bytes, and that other inputs make another.
func TestTiny(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiny.cpio")
	order, records := build(t, path, Options{Tiny: true})
	want := "bin bin/check dev dev/console dev/null etc init lib lib/modules proc root run sys tmp"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("contents:\n got %s\nwant %s", got, want)
	}
	checkOrder(t, order, records)
	checkProgram(t, records["init"])
	checkProgram(t, records["bin/check"])
	checkDevice(t, records["dev/console"], 5, 1)
	checkDevice(t, records["dev/null"], 1, 3)
	if size := len(data(t, records["init"])); size > 2<<20 {
		t.Errorf("init has %d bytes: it has come to import something heavy", size)
	}

	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Build(t.Context(), path, Options{Tiny: true}); err != nil || again.Built {
		t.Errorf("built twice from the same inputs (%v)", err)
	}
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if repaired, err := Build(t.Context(), path, Options{Tiny: true}); err != nil || !repaired.Built {
		t.Errorf("a damaged archive was taken as good (%v)", err)
	}
	if second, err := os.ReadFile(path); err != nil || !bytes.Equal(first, second) {
		t.Errorf("two builds from the same inputs differ (%v)", err)
	}

	dir := t.TempDir()
	writeModule(t, dir, "b.ko", "license=GPL\x00depends=\x00")
	writeModule(t, dir, "a.ko", "license=GPL\x00depends=b\x00")
	order, records = build(t, path, Options{Tiny: true, ModuleDir: dir, Modules: []string{"a"}})
	checkOrder(t, order, records)
	if got := string(data(t, records["lib/modules/list"])); got != "b.ko\na.ko\n" {
		t.Errorf("the list of modules is %q", got)
	}
	if len(data(t, records["lib/modules/a.ko"])) == 0 {
		t.Error("a module is empty")
	}
}

func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "full.cpio")
	order, records := build(t, path, Options{})
	checkOrder(t, order, records)
	checkProgram(t, records["bin/bb"])
	for link, target := range map[string]string{"bin/sh": "bb", "bin/gosh": "bb", "bin/ls": "bb"} {
		if got := string(data(t, records[link])); got != target {
			t.Errorf("%s links to %q, want %q", link, got, target)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > 10<<20 {
		t.Errorf("the archive has %d bytes, want 10 MiB at most (%v)", fi.Size(), err)
	}
}

func TestModules(t *testing.T) {
	dir := t.TempDir()
	writeModule(t, dir, "pvpanic.ko", "depends=\x00name=pvpanic\x00")
	writeModule(t, dir, "pvpanic-mmio.ko", "license=GPL\x00depends=pvpanic\x00")
	writeModule(t, dir, "virtio_mmio.ko", "depends=\x00")
	writeModule(t, dir, "needy.ko", "depends=pvpanic_mmio,absent\x00")
	if err := os.WriteFile(filepath.Join(dir, "broken.ko"), []byte("\xfd7zXZ"), 0o644); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		modules []string
		want    string // their files, or a part of the error
		failure bool
	}{
		{"default", nil, "virtio_mmio.ko pvpanic.ko pvpanic-mmio.ko", false},
		{"either spelling, once", []string{"pvpanic_mmio", "pvpanic", "virtio-mmio"}, "pvpanic.ko pvpanic-mmio.ko virtio_mmio.ko", false},
		{"none", []string{}, "", false},
		{"missing", []string{"zfs"}, "zfs is not in", true},
		{"missing dependency", []string{"needy"}, "module needy: no such kernel module: absent", true},
		{"compressed", []string{"broken"}, "a compressed one?", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			modules, err := resolveModules(Options{ModuleDir: dir, Modules: tt.modules})
			var files []string
			for _, m := range modules {
				files = append(files, m.file)
			}
			got := strings.Join(files, " ")
			if tt.failure {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("error %v, want one with %q", err, tt.want)
				}
			} else if err != nil || got != tt.want {
				t.Errorf("got %s, %v, want %s", got, err, tt.want)
			}
		})
	}
	if _, err := resolveModules(Options{Modules: []string{"a"}}); err == nil {
		t.Error("modules without a folder were taken")
	}
	if _, err := resolveModules(Options{ModuleDir: dir, Modules: []string{"zfs"}}); !errors.Is(err, errNoModule) {
		t.Errorf("a missing module is reported as %v", err)
	}
	if _, err := resolveModules(Options{ModuleDir: filepath.Join(dir, "none")}); err == nil || !strings.Contains(err.Error(), "scripts/kernel") {
		t.Errorf("a missing folder is reported as %v", err)
	}
}

// writeModule writes an ELF file whose only content is a section .modinfo.
func writeModule(t *testing.T, dir, name, modinfo string) {
	t.Helper()
	const names = "\x00.modinfo\x00.shstrtab\x00"
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2, Shoff: uint64(64 + len(modinfo) + len(names)),
	}
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: 64, Size: uint64(len(modinfo))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(64 + len(modinfo)), Size: uint64(len(names))},
	}
	var b bytes.Buffer
	for _, part := range []any{header, []byte(modinfo), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
