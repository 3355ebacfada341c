package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestModeString(t *testing.T) {
	for mode, want := range map[uint32]string{
		unix.S_IFCHR | 0o660: "crw-rw----",
		unix.S_IFCHR | 0o601: "crw------x",
		unix.S_IFREG | 0o666: "?rw-rw-rw-",
	} {
		if got := modeString(mode); got != want {
			t.Errorf("%o is %s, want %s", mode, got, want)
		}
	}
}

// TestDeviceAccess: there is advice even for a device that cannot be looked at.
func TestDeviceAccess(t *testing.T) {
	for _, advice := range []string{DeviceAccess("/dev/null"), DeviceAccess(filepath.Join(t.TempDir(), "none")), UserfaultfdAccess()} {
		if !strings.Contains(advice, "root") {
			t.Errorf("advice: %q", advice)
		}
	}
}
