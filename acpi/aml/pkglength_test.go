package aml

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func TestPkgLength(t *testing.T) {
	for _, c := range []struct {
		body int
		want string
	}{
		{0, "01"},
		{62, "3f"},   // 63 fits one byte
		{63, "4104"}, // 65 = 0x041
		{0xFFF - 2, "4fff"},
		{0xFFF - 1, "810001"}, // 0x1001 with the 3 bytes of the length itself
		{0xFFFFF - 3, "8fffff"},
		{0xFFFFF - 2, "c1000001"}, // 0x100001
		{0xFFFFFFF - 4, "cfffffff"},
	} {
		got, err := appendPkgLength(nil, c.body)
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != c.want {
			t.Errorf("body of %#x bytes: %x, want %s", c.body, got, c.want)
		}
	}
	if _, err := appendPkgLength(nil, 0xFFFFFFF-3); err == nil {
		t.Error("a package that is too long has a length")
	}
}

// parsePkgLength is the reader's side of ACPI 6.5, 20.2.4.
func parsePkgLength(t *testing.T, b []byte) (value, width int) {
	t.Helper()
	lead := b[0]
	follow := int(lead >> 6)
	if len(b) != follow+1 {
		t.Fatalf("%x: the first byte says that %d follow", b, follow)
	}
	if follow == 0 {
		return int(lead & 0x3F), 1
	}
	if lead&0x30 != 0 {
		t.Fatalf("%x: bits 5-4 of the first byte are not zero", b)
	}
	value = int(lead & 0xF)
	for i, v := range b[1:] {
		value |= int(v) << (4 + 8*i)
	}
	return value, follow + 1
}

func FuzzPkgLength(f *testing.F) {
	for _, n := range []uint32{0, 1, 62, 63, 64, 4093, 4094, 4096, 1<<20 - 4, 1<<20 - 3, 1<<28 - 5, 1<<28 - 4, 1<<32 - 1} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, n uint32) {
		prefix := []byte("before")
		got, err := appendPkgLength(bytes.Clone(prefix), int(n))
		if fits := n <= 1<<28-1-4; fits != (err == nil) {
			t.Fatalf("body of %d bytes: error %v", n, err)
		}
		if !bytes.HasPrefix(got, prefix) {
			t.Fatalf("bytes before the length changed to %x", got)
		}
		if err == nil {
			v, width := parsePkgLength(t, got[len(prefix):])
			if v != int(n)+width {
				t.Fatalf("body of %d bytes: read back %d with %d bytes of length", n, v, width)
			}
			// No shorter length would have done.
			if width > 1 && int(n)+width-1 <= maxPkgLength[width-2] {
				t.Fatalf("body of %d bytes: %d bytes of length are too many", n, width)
			}
		}

		got, err = appendPkgBits(nil, int(n))
		if fits := n <= 1<<28-1; fits != (err == nil) {
			t.Fatalf("%d bits: error %v", n, err)
		}
		if err == nil {
			if v, _ := parsePkgLength(t, got); v != int(n) {
				t.Fatalf("%d bits: read back %d", n, v)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"", `\`, "^", `\_SB.CPUS.C000`, "^^A.B", "A..B", "abcd", "ABCDE"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		code, err := Encode(Path(s))
		if err != nil {
			return
		}
		// What is encoded reads back as the same name, padding aside.
		back, rest := "", code
		for len(rest) > 0 && (rest[0] == '\\' || rest[0] == '^') {
			back, rest = back+string(rest[:1]), rest[1:]
		}
		n := 1
		switch {
		case len(rest) > 0 && rest[0] == nullName:
			n, rest = 0, rest[1:]
		case len(rest) > 0 && rest[0] == dualNamePrefix:
			n, rest = 2, rest[1:]
		case len(rest) > 1 && rest[0] == multiNamePrefix:
			n, rest = int(rest[1]), rest[2:]
		}
		if len(rest) != 4*n {
			t.Fatalf("%q became %x: %d bytes for %d segments", s, code, len(rest), n)
		}
		for i := range n {
			if i > 0 {
				back += "."
			}
			back += string(rest[4*i : 4*i+4])
		}
		again, err := Encode(Path(back))
		if err != nil || !bytes.Equal(again, code) {
			t.Fatalf("%q became %x, read back as %q, which becomes %x, %v", s, code, back, again, err)
		}
	})
}
