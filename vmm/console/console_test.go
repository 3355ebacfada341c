package console

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/labtest"
)

// port is a sink with room for a number of bytes.
type port struct {
	mu      sync.Mutex
	room    int
	got     []byte
	cut     bool
	onSpace func()
	change  chan struct{}
}

func newPort(room int) *port { return &port{room: room, change: make(chan struct{}, 1)} }

func (p *port) Enqueue(b []byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := min(len(b), p.room)
	p.got = append(p.got, b[:n]...)
	p.room -= n
	p.cut = n < len(b)
	select {
	case p.change <- struct{}{}:
	default:
	}
	return n
}

func (p *port) OnSpace(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onSpace = f
}

// makeRoom is the guest reading.
func (p *port) makeRoom(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room += n
	if p.cut && p.onSpace != nil {
		p.cut = false
		p.onSpace()
	}
}

// wait waits until the port has got want, and no more.
func (p *port) wait(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(5 * time.Second)
	for {
		p.mu.Lock()
		got := string(p.got)
		p.mu.Unlock()
		if got == want {
			return
		}
		if len(got) > len(want) {
			t.Fatalf("guest got %d bytes, want %d", len(got), len(want))
		}
		select {
		case <-p.change:
		case <-deadline:
			t.Fatalf("guest got %d bytes of %d: %.80q", len(got), len(want), got)
		}
	}
}

func start(t *testing.T, in *os.File, out io.Writer, sink Sink) *Console {
	t.Helper()
	c, err := Start(in, out, sink)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func send(t *testing.T, f *os.File, s string) {
	t.Helper()
	if _, err := f.WriteString(s); err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(5 * time.Second):
		t.Fatalf("%s did not happen", what)
	}
}

func TestEscape(t *testing.T) {
	for _, tc := range []struct {
		typed []string // one call each
		in    string
		quit  bool
		help  bool
	}{
		{[]string{"plain\r\n\x03\x1a"}, "plain\r\n\x03\x1a", false, false},
		{[]string{"a\x01\x01b"}, "a\x01b", false, false},
		{[]string{"\x01a\x01a"}, "\x01\x01", false, false},
		{[]string{"ls\x01xrest"}, "ls", true, false},
		{[]string{"\x01", "x"}, "", true, false},
		{[]string{"\x01h!"}, "!", false, true},
		{[]string{"\x01e"}, "\x01e", false, false},
		{[]string{"\x01", "\x01", "x"}, "\x01x", false, false},
		{[]string{"\x01\x01\x01x"}, "\x01", true, false},
	} {
		var e escape
		var in []byte
		var all command
		for _, s := range tc.typed {
			got, typed := e.filter([]byte(s))
			in = append(in, got...)
			all = command{all.quit || typed.quit, all.help || typed.help}
		}
		if string(in) != tc.in || all != (command{tc.quit, tc.help}) {
			t.Errorf("%q: input %q, %+v", tc.typed, in, all)
		}
	}
}

func TestTerminal(t *testing.T) {
	user, tty := labtest.OpenPTY(t)
	before := labtest.Termios(t, tty)
	p := newPort(1 << 20)
	c := start(t, tty, tty, p)

	raw := labtest.Termios(t, tty)
	if raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 || raw.Iflag&unix.ICRNL != 0 {
		t.Errorf("terminal is not raw: %+v", raw)
	}
	if raw.Oflag&unix.OPOST == 0 {
		t.Error("output processing is off")
	}
	send(t, user, "\x03\x1als\r\x01\x01")
	p.wait(t, "\x03\x1als\r\x01")

	send(t, user, "\x01h")
	got := make([]byte, 0, 1024)
	for !strings.HasSuffix(string(got), "this help\r\r\n") && len(got) < 512 {
		n, err := user.Read(got[len(got):cap(got)])
		if err != nil {
			t.Fatal(err)
		}
		got = got[:len(got)+n]
	}
	if !strings.Contains(string(got), "Ctrl-a x ") {
		t.Errorf("help is %q", got)
	}

	send(t, user, "\x01x")
	waitFor(t, "quit", c.Quit())
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if after := labtest.Termios(t, tty); after != before {
		t.Errorf("terminal is left as %+v, was %+v", after, before)
	}
	if p.onSpace != nil {
		t.Error("the sink still knows the console")
	}
}

// TestCloseRestores closes while the goroutine waits for a key, from several
// goroutines at once.
func TestCloseRestores(t *testing.T) {
	_, tty := labtest.OpenPTY(t)
	before := labtest.Termios(t, tty)
	c := start(t, tty, io.Discard, newPort(10))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if after := labtest.Termios(t, tty); after != before {
		t.Errorf("terminal is left as %+v, was %+v", after, before)
	}
}

// TestHungGuest: with a guest that takes nothing, Ctrl-a x still works, and keys
// beyond what is kept ring the bell.
func TestHungGuest(t *testing.T) {
	user, tty := labtest.OpenPTY(t)
	bell := make(chan struct{}, 1)
	c := start(t, tty, writerFunc(func(b []byte) (int, error) {
		if string(b) == "\a" {
			select {
			case bell <- struct{}{}:
			default:
			}
		}
		return len(b), nil
	}), newPort(0))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range pasteRoom/512 + 1 {
			if _, err := user.Write(bytes.Repeat([]byte("x"), 512)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	waitFor(t, "bell", bell)
	waitFor(t, "paste", sent)
	send(t, user, "\x01x")
	waitFor(t, "quit", c.Quit())
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// TestPaste: a terminal's input waits for room.
func TestPaste(t *testing.T) {
	user, tty := labtest.OpenPTY(t)
	p := newPort(10)
	start(t, tty, io.Discard, p)
	want := strings.Repeat("0123456789", 300)
	send(t, user, want)
	for n := 10; n < len(want); n += 50 {
		p.wait(t, want[:n])
		p.makeRoom(50)
	}
	p.wait(t, want)
}

func TestTerminalHangsUp(t *testing.T) {
	user, tty := labtest.OpenPTY(t)
	c := start(t, tty, io.Discard, newPort(10))
	if err := user.Close(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "end of input", c.finished)
	select {
	case <-c.Quit():
		t.Error("a hang-up is not a wish to quit")
	default:
	}
}

// jobVariable tells this test binary which part of TestBackgroundJob it plays.
const jobVariable = "CONSOLE_TEST_JOB"

// TestBackgroundJob: a shell (the leader of a session with a terminal) starts us
// in a group that is not in the foreground. Touching the terminal would stop us.
func TestBackgroundJob(t *testing.T) {
	again := func(part string, attr *syscall.SysProcAttr, in *os.File) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestBackgroundJob$")
		cmd.WaitDelay = time.Second // a job that is stopped keeps our pipe
		cmd.Env = append(os.Environ(), jobVariable+"="+part)
		cmd.Stdin, cmd.SysProcAttr = in, attr
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", part, err, out)
		}
	}
	switch os.Getenv(jobVariable) {
	case "":
		_, tty := labtest.OpenPTY(t)
		again("shell", &syscall.SysProcAttr{Setsid: true, Setctty: true}, tty)
	case "shell":
		again("job", &syscall.SysProcAttr{Setpgid: true}, os.Stdin)
	case "job":
		before := labtest.Termios(t, os.Stdin)
		c := start(t, os.Stdin, io.Discard, newPort(1))
		waitFor(t, "end of input", c.finished)
		if after := labtest.Termios(t, os.Stdin); after != before {
			t.Error("the terminal's mode was changed from the background")
		}
	}
}

// TestPipe: bytes pass unchanged, as fast as the guest takes them.
func TestPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p := newPort(100)
	c := start(t, r, io.Discard, p)
	want := strings.Repeat("\x00\x01x\x01h\xff\n", 1000)
	go func() {
		if _, err := w.WriteString(want); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	for n := 100; n < len(want); n += 100 {
		p.wait(t, want[:n])
		p.makeRoom(100)
	}
	p.wait(t, want)
	waitFor(t, "end of input", c.finished)
}

// TestCloseWithFullSink stops a console that waits for room.
func TestCloseWithFullSink(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	p := newPort(1)
	c := start(t, r, io.Discard, p)
	send(t, w, "abc")
	p.wait(t, "a")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	p.makeRoom(10)
	p.wait(t, "a")
}

func TestNoInput(t *testing.T) {
	empty, err := os.Create(filepath.Join(t.TempDir(), "empty"))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	closed, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, in := range map[string]*os.File{"nil": nil, "closed": closed, "empty file": empty, "/dev/null": null} {
		t.Run(name, func(t *testing.T) {
			c := start(t, in, io.Discard, newPort(1))
			waitFor(t, "end of input", c.finished)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
