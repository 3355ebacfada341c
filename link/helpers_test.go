package link

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files in testdata anew")

// golden compares got with testdata/name, kept as lines of 16 bytes in hexadecimal.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	var text strings.Builder
	for i := 0; i < len(got); i += 16 {
		text.WriteString(hex.EncodeToString(got[i:min(i+16, len(got))]) + "\n")
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if text.String() != string(want) {
		t.Errorf("%s: the wire format has changed: raise ProtocolVersion, then run with -update.\ngot:\n%swant:\n%s", path, &text, want)
	}
}

// rawPipe returns a Conn and the bare other end of its socket pair.
func rawPipe(tb testing.TB, class Class, opts Options) (*Conn, int) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := NewConn(fds[0], Hello{Class: class, From: 1}, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		c.Close()
		unix.Close(fds[1])
	})
	return c, fds[1]
}

// put writes all of b to a raw end.
func put(tb testing.TB, fd int, b []byte) {
	tb.Helper()
	for len(b) > 0 {
		n, err := writeBlocking(fd, b)
		if err != nil {
			tb.Fatalf("writing to the raw end: %v", err)
		}
		b = b[n:]
	}
}

// frame returns a whole frame as it stands on the wire.
func frame(h Header, payload string) []byte {
	h.Len = uint32(len(payload))
	return append(AppendHeader(nil, &h), payload...)
}
