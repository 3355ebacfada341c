package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"coalesce/scripts/testbedctl/pty"
)

// TestWatchDisplay checks that Bochs may draw as much as it likes on the terminal it names, and that what it says is
// kept.
func TestWatchDisplay(t *testing.T) {
	screen, err := pty.Open(25, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	name, err := screen.PeerName()
	if err != nil {
		t.Fatal(err)
	}
	said := tail{limit: 1 << 10}
	text := fmt.Sprintf("\nBochs connected to screen \"%s\"\nNext at t=0\n", name)
	watchDisplay(strings.NewReader(text), &said)
	if err := screen.SetWriteDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20 // the kernel keeps some KiB
	if n, err := io.Copy(screen, io.LimitReader(zeros{}, size)); n != size || err != nil {
		t.Errorf("drew %d of %d bytes: %v", n, size, err)
	}
	if got := string(said.bytes()); got != text {
		t.Errorf("kept %q, want %q", got, text)
	}
}

// zeros is an endless file of them.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
