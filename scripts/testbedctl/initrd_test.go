package main

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"coalesce/scripts/testbedctl/wire"
)

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestInitrd(t *testing.T) {
	src := t.TempDir()
	write(t, src+"/tree/sub/file", "content")
	if err := os.Symlink("sub/file", src+"/tree/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tree", src+"/way"); err != nil {
		t.Fatal(err)
	}
	i, err := newInitrd()
	if err != nil {
		t.Fatal(err)
	}
	defer i.file.Close()
	if err := i.copyTree(src+"/way", "/a/b"); err != nil { // a link to a folder stands for it
		t.Fatal(err)
	}
	if err := i.copyFile(src+"/tree/link", "/a/plain"); err != nil {
		t.Fatal(err)
	}
	if err := i.finish(wire.Plan{}); err != nil {
		t.Fatal(err)
	}

	got := map[string]string{}
	var order []string
	reader := cpio.Newc.Reader(i.file)
	for {
		record, err := reader.ReadRecord()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(io.NewSectionReader(record, 0, int64(record.FileSize)))
		if err != nil {
			t.Fatal(err)
		}
		got[record.Name] = string(content)
		order = append(order, record.Name)
	}
	if want := []string{"a", "a/b", "a/b/link", "a/b/sub", "a/b/sub/file", "a/plain", "testbed.json"}; !reflect.DeepEqual(order, want) {
		t.Errorf("records are %q, want %q", order, want)
	}
	if got["a/b/link"] != "sub/file" || got["a/b/sub/file"] != "content" || got["a/plain"] != "content" {
		t.Errorf("contents are %q", got)
	}
}

func TestCopyLibraries(t *testing.T) {
	i, err := newInitrd()
	if err != nil {
		t.Fatal(err)
	}
	defer i.file.Close()
	if err := i.copyProgram("/bin/bash", "/bin/bash"); err != nil {
		t.Fatal(err)
	}
	if !i.libs["libc.so.6"] || !i.libs["/lib64/ld-linux-x86-64.so.2"] {
		t.Errorf("bash comes with %v: the C library or the dynamic linker is missing", i.libs)
	}
}

func TestLoadOrder(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/modules.dep", "irqbypass.ko:\nkvm.ko: irqbypass.ko\nkvm-amd.ko: irqbypass.ko kvm.ko\nsch_netem.ko:\n")
	got, err := loadOrder(dir, []string{"kvm_amd", "sch_netem", "kvm"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"irqbypass.ko", "kvm.ko", "kvm-amd.ko", "sch_netem.ko"}; !reflect.DeepEqual(got, want) {
		t.Errorf("order is %q, want %q", got, want)
	}
	if _, err := loadOrder(dir, []string{"veth"}); err == nil {
		t.Error("a missing module is no error")
	}
}
