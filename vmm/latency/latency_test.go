package latency

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestHold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	if _, err := hold(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a device: %v", err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xff}, 4), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := hold(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, make([]byte, 4)) {
		t.Errorf("written: %x, %v", got, err)
	}
	if _, err := hold("/dev/full"); err == nil {
		t.Error("a device that takes nothing is held")
	}
}
