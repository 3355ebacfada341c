package control

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const suffix = ".sock"

// rootDir is where root's sockets are, and those of users without a session.
const rootDir = "/run/coalesce"

// Dir returns the folder of this user's sockets, which may not exist. A runtime
// folder that is another user's, as sudo may leave it in the environment, is not
// taken.
func Dir() string {
	var st unix.Stat_t
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if filepath.IsAbs(dir) && unix.Stat(dir, &st) == nil && st.Uid == uint32(os.Geteuid()) {
		return filepath.Join(dir, "coalesce")
	}
	return rootDir
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// CheckName says what is wrong with the name of an instance.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf("%q is no name: up to 64 letters, digits, dots, dashes and underscores", name)
	}
	return nil
}

// List returns the names of the running instances in dir, in order. A folder that
// does not exist holds none.
func List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for control sockets: %w", err)
	}
	var names []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || CheckName(name) != nil || !alive(filepath.Join(dir, e.Name())) {
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// dialTimeout bounds the wait for a process that is there to take a connection.
const dialTimeout = 5 * time.Second

// alive tells whether somebody listens on a socket, also if its queue is full or
// it may not be opened.
func alive(path string) bool {
	c, err := net.DialTimeout("unix", path, dialTimeout)
	if err != nil {
		return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, os.ErrNotExist)
	}
	_ = c.Close()
	return true
}

// listen makes the socket name in dir, which is made if it does not exist.
func listen(dir, name string) (*net.UnixListener, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of control sockets: %w", err)
	}
	// Two that start at once look for a stale socket one after the other: or the
	// second would remove what the first has just made.
	lock, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open the folder of control sockets: %w", err)
	}
	defer lock.Close()
	if err := checkDir(lock); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	path := filepath.Join(dir, name+suffix)
	if len(path) >= maxPath {
		return nil, fmt.Errorf("the control socket's path %s is too long: at most %d bytes", path, maxPath-1)
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s is in the way: not a socket", path)
		}
		return nil, fmt.Errorf("another coalesce is called %s (choose another --name)", name)
	}
	return listenPrivate(path)
}

// sweep removes the sockets that killed processes left in dir, which is locked.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("look for control sockets: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type() != os.ModeSocket || !strings.HasSuffix(e.Name(), suffix) || alive(path) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove a socket left behind: %w", err)
		}
	}
	return nil
}

// maxPath is the size of a socket's path in struct sockaddr_un.
const maxPath = 108

// checkDir makes sure that nobody but us and root can put a socket into dir.
func checkDir(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", dir.Name(), err)
	}
	if st.Uid != uint32(os.Geteuid()) && st.Uid != 0 || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s may be written by others (mode %#o, owner %d): remove it or set XDG_RUNTIME_DIR", dir.Name(), st.Mode&0o777, st.Uid)
	}
	return nil
}
