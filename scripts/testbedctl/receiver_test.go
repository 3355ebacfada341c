package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// archive returns a tar stream with one entry each.
func archive(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag == tar.TypeReg {
			e.Size = 4
		}
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if e.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("data")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// receive feeds a stream to a receiver in small pieces and returns the folder and how it ended.
func receive(t *testing.T, stream []byte, end bool) (string, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "out")
	r, err := newReceiver(dir)
	if err != nil {
		t.Fatal(err)
	}
	for len(stream) > 0 {
		n := min(700, len(stream))
		if err := r.take(stream[:n]); err != nil {
			break // close says the same
		}
		stream = stream[n:]
	}
	if end {
		if err := r.take(nil); err != nil {
			t.Fatal(err)
		}
	}
	return dir, r.close()
}

func TestReceive(t *testing.T) {
	dir, err := receive(t, archive(t,
		tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o755},
		tar.Header{Name: "a/b", Typeflag: tar.TypeReg, Mode: 0o755},
		tar.Header{Name: "c/d", Typeflag: tar.TypeReg, Mode: 0o644},
	), true)
	if err != nil {
		t.Fatal(err)
	}
	for name, perm := range map[string]os.FileMode{"a/b": 0o755, "c/d": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() != 4 || info.Mode().Perm() != perm {
			t.Errorf("%s has %d bytes and mode %v, want 4 and %v", name, info.Size(), info.Mode(), perm)
		}
	}
}

func TestReceiveRefuses(t *testing.T) {
	whole := archive(t, tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644})
	for name, c := range map[string]struct {
		stream []byte
		end    bool
	}{
		"a way out":   {archive(t, tar.Header{Name: "../a", Typeflag: tar.TypeReg, Mode: 0o644}), true},
		"an absolute": {archive(t, tar.Header{Name: "/a", Typeflag: tar.TypeReg, Mode: 0o644}), true},
		"a link":      {archive(t, tar.Header{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}), true},
		"a cut file":  {whole[:514], true},
		"no end":      {whole, false},
		"no archive":  {bytes.Repeat([]byte("x"), 2048), true},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := receive(t, c.stream, c.end)
			if err == nil {
				t.Error("taken without an error")
			}
			if _, err := os.Lstat(filepath.Join(filepath.Dir(dir), "a")); err == nil {
				t.Error("a file was written outside the folder")
			}
		})
	}
}
