package link_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"coalesce/link"
)

func TestLost(t *testing.T) {
	for _, tt := range []struct {
		err  error
		lost bool
	}{
		{io.EOF, true},
		{io.ErrUnexpectedEOF, true},
		{fmt.Errorf("receiving: %w for 2s: %w", link.ErrVanished, unix.ETIMEDOUT), true},
		{unix.ECONNRESET, true},
		{link.ErrClosed, true},
		{link.ErrBacklog, true},
		{&link.AbortError{Reason: "malformed"}, true},
		{&link.PeerError{Node: 1, Class: link.Page, Err: io.EOF}, true},
		{&link.FrameError{Class: link.Page, Reason: "no such frame"}, false},
		{&link.PeerError{Node: 1, Class: link.Page, Err: link.ErrTooLong}, false},
		{errors.New("malformed page message"), false},
	} {
		if got := link.Lost(tt.err); got != tt.lost {
			t.Errorf("%v: lost %v, want %v", tt.err, got, tt.lost)
		}
	}
}

// TestVersionError: it says which side is behind.
func TestVersionError(t *testing.T) {
	for _, tt := range []struct {
		err  *link.VersionError
		want string
	}{
		{&link.VersionError{Ours: 1, Theirs: 2}, "upgrade this side"},
		{&link.VersionError{Ours: 3, Theirs: 2}, "upgrade the peer"},
	} {
		if text := tt.err.Error(); !strings.HasSuffix(text, tt.want) {
			t.Errorf("%q does not say: %s", text, tt.want)
		}
	}
}
