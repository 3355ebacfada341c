// Package linktest helps other packages' tests with connections.
package linktest

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"coalesce/link"

	"golang.org/x/sys/unix"
)

// Pipe returns two connections joined by a socket pair, without a handshake;
// node 0's end and node 1's. They are closed when the test ends.
func Pipe(tb testing.TB, class link.Class, optsA, optsB link.Options) (a, b *link.Conn) {
	tb.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		tb.Fatalf("making a socket pair: %v", err)
	}
	session := link.NewSessionID()
	end := func(fd int, from, to link.NodeID, opts link.Options) *link.Conn {
		peer := link.Hello{
			Protocol: link.ProtocolVersion, Build: "linktest", Session: session,
			From: from, To: to, Class: class, PageSize: 4096,
		}
		c, err := link.NewConn(fd, peer, opts)
		if err != nil {
			tb.Fatalf("making a connection: %v", err)
		}
		tb.Cleanup(func() { c.Close() })
		return c
	}
	return end(fds[0], 1, 0, optsA), end(fds[1], 0, 1, optsB)
}

// PipeTCP returns two connections joined by TCP over loopback, after a real
// handshake: the dialling client's end (node 0) and the listening lender's
// (node 1). They are closed when the test ends.
func PipeTCP(tb testing.TB, class link.Class, optsA, optsB link.Options) (a, b *link.Conn) {
	tb.Helper()
	l, err := link.Listen("127.0.0.1:0", optsB)
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	welcomed := make(chan error, 1)
	go func() {
		in, err := l.Accept()
		if err == nil {
			b, err = in.Welcome(link.Hello{Build: "linktest", PageSize: 4096})
		}
		welcomed <- err
	}()
	a, err = link.Dial(context.Background(), l.Addr(), link.Hello{
		Build: "linktest", Session: link.NewSessionID(), From: 0, To: 1, Class: class, PageSize: 4096,
	}, optsA)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { a.Close() })
	if err := <-welcomed; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	return a, b
}

// CheckLeaks fails the test if, once its other cleanups are done, the process
// has more goroutines or open sockets than now. Call it first; not for tests
// that run in parallel with others.
func CheckLeaks(tb testing.TB) {
	tb.Helper()
	goroutines, sockets := runtime.NumGoroutine(), openSockets(tb)
	tb.Cleanup(func() {
		// A goroutine counts until it has returned, a little after it has
		// signalled that it is done: give it until the deadline.
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > goroutines && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			tb.Errorf("%d goroutines left, had %d:\n%s", n, goroutines, stacks)
		}
		if left := openSockets(tb); len(left) > len(sockets) {
			tb.Errorf("sockets left open: %v, had %v", left, sockets)
		}
	})
}

// openSockets lists the process's sockets as "fd: socket:[inode]".
func openSockets(tb testing.TB) []string {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	var sockets []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil && strings.HasPrefix(target, "socket:") {
			sockets = append(sockets, e.Name()+": "+target)
		}
	}
	return sockets
}
