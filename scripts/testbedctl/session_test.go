package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestTelling(t *testing.T) {
	lines := func(n int) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strconv.Itoa(i) + "\r\n")
		}
		return b.String()
	}
	for name, c := range map[string]struct{ in, want string }{
		"empty":     {"", ""},
		"the last":  {lines(5), "2\n3\n4"},
		"a panic":   {lines(5) + "Kernel panic - not syncing\n" + lines(9), "Kernel panic - not syncing\n0\n1"},
		"a remark":  {"a\nqemu: warning: TCG doesn't support requested feature: x\nb\n", "a\nb"},
		"a control": {"\x1b[2Ja\x07\n", "[2Ja"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := telling([]byte(c.in), 3); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTail(t *testing.T) {
	keep := tail{limit: 10}
	for i := range 100 {
		if _, err := keep.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	got := keep.bytes()
	if len(got) < 10 || len(got) > 20 || got[len(got)-1] != 99 {
		t.Errorf("kept %v", got)
	}
	for i := 1; i < len(got); i++ {
		if got[i] != got[i-1]+1 {
			t.Errorf("kept %v: a gap", got)
		}
	}
}

func TestPruneLogs(t *testing.T) {
	dir := t.TempDir()
	for i := range 30 {
		write(t, filepath.Join(dir, "20260101-0000"+strconv.Itoa(10+i)+"-1.log"), "")
	}
	write(t, filepath.Join(dir, "other"), "")
	pruneLogs(dir)
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 20 || names[0].Name() != "20260101-000021-1.log" {
		t.Errorf("%d files are left, the first is %s", len(names), names[0].Name())
	}
}
