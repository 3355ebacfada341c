package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the program that the tests run on hosts.
func TestMain(m *testing.M) {
	switch os.Getenv("LAB_TEST_ROLE") {
	case "":
		os.Exit(m.Run())
	case "listen": // answers each connection with its peer's address
		ln, err := net.Listen("tcp", os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("listening on", ln.Addr())
		for {
			c, err := ln.Accept()
			if err != nil {
				os.Exit(1)
			}
			fmt.Fprintln(c, c.RemoteAddr())
			c.Close()
		}
	case "wait": // until it is told to end
		fmt.Println("waiting")
		time.Sleep(time.Hour)
	case "owner": // a program with a lab and a process in it, to be killed
		l := New(nil)
		h, err := l.AddHost("one")
		if err == nil {
			var p *Process
			if p, err = h.Start(Command{Name: "sleeper", Path: "/proc/self/exe", Env: []string{"LAB_TEST_ROLE=wait"}}); err == nil {
				fmt.Println("owns", p.Pid, h.link)
				time.Sleep(time.Hour)
			}
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// self is a Command that runs this test binary in a role.
func self(role string, args ...string) Command {
	return Command{Name: role, Path: "/proc/self/exe", Args: args, Env: []string{"LAB_TEST_ROLE=" + role}}
}

func timeout(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// newLab returns a lab with two hosts on a cable.
func newLab(t *testing.T, out io.Writer) (l *Lab, a, b *Host, w *Wire) {
	t.Helper()
	l = New(out)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	a, errA := l.AddHost("a")
	if errors.Is(errA, ErrNotSupported) {
		t.Skip(errA)
	}
	b, errB := l.AddHost("b")
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	w, err := l.Join(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return l, a, b, w
}

// ask connects from a host and returns what the listener says.
func ask(h *Host, addr string, limit time.Duration) (answer string, err error) {
	err = h.Do(func() error {
		c, err := net.DialTimeout("tcp", addr, limit)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		answer = string(b)
		return err
	})
	return answer, err
}

func TestHostsReachEachOtherOnlyByCable(t *testing.T) {
	_, a, b, w := newLab(t, nil)
	p, err := b.Start(self("listen", net.JoinHostPort(w.Addr(b).String(), "7000")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdout.Await(timeout(t), "listening"); err != nil {
		t.Fatal(err)
	}
	addr := w.Addr(b).String() + ":7000"
	answer, err := ask(a, addr, 5*time.Second)
	if err != nil || !strings.HasPrefix(answer, w.Addr(a).String()+":") {
		t.Fatalf("by cable: %q, %v", answer, err)
	}
	if err := w.Cut(); err != nil {
		t.Fatal(err)
	}
	if answer, err := ask(a, addr, 200*time.Millisecond); err == nil {
		t.Errorf("with the cable cut: %q", answer)
	}
	if err := w.Restore(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(a, addr, 5*time.Second); err != nil {
		t.Errorf("with the cable mended: %v", err)
	}
}

func TestShape(t *testing.T) {
	_, a, b, w := newLab(t, nil)
	if err := w.Shape(Shape{Rate: 10 << 20}); errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	err := w.Shape(Shape{Delay: 20 * time.Millisecond, Rate: 10 << 20})
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Start(self("listen", w.Addr(b).String()+":7000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdout.Await(timeout(t), "listening"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := ask(a, w.Addr(b).String()+":7000", 5*time.Second); err != nil {
		t.Fatal(err)
	}
	// Two round trips: the handshake, and the answer behind the request to end.
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("with 20 ms of delay each way an answer came after %v", took)
	}
	if err := w.Shape(Shape{}); err != nil {
		t.Error(err)
	}
}

func TestProcess(t *testing.T) {
	var seen bytes.Buffer
	l, a, _, _ := newLab(t, &seen)
	tests := []struct {
		name    string
		command Command
		signal  syscall.Signal
		status  int
		out     string
	}{
		{"status", Command{Path: "/bin/sh", Args: []string{"-c", "echo one; echo two >&2; exit 7"}}, 0, 7, "one\n"},
		{"signal", self("wait"), unix.SIGTERM, 128 + 15, "waiting\n"},
		{"no input", Command{Path: "/bin/sh", Args: []string{"-c", "cat; echo end"}}, 0, 0, "end\n"},
		{"no descriptor 0", Command{Path: "/bin/sh", Args: []string{"-c", "test -e /proc/self/fd/0 || echo none"}, NoStdin: true}, 0, 0, "none\n"},
		{"user", Command{Path: "/bin/sh", Args: []string{"-c", "id -u; id -G"}, User: 65534}, 0, 0, "65534\n65534\n"},
		{"unended line", Command{Path: "/bin/sh", Args: []string{"-c", "printf 'a\\r\\nb'"}}, 0, 0, "a\nb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.command.Name = tt.name
			p, err := a.Start(tt.command)
			if err != nil {
				t.Fatal(err)
			}
			if tt.signal != 0 {
				if _, err := p.Stdout.Await(timeout(t), "waiting"); err != nil {
					t.Fatal(err)
				}
				p.Signal(tt.signal)
			}
			exit, err := p.Wait(timeout(t))
			if err != nil || exit.Status != tt.status || exit.Signal != tt.signal || p.Stdout.String() != tt.out {
				t.Errorf("%v, %q, %v; want status %d and %q", exit, p.Stdout, err, tt.status, tt.out)
			}
			if p.Running() {
				t.Error("it is said to run")
			}
		})
	}
	if _, err := a.Start(Command{Name: "nothing", Path: "/nonexistent"}); err == nil {
		t.Error("a program that does not exist was started")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"status | one\n", "status | two\n", "unended line | b\n"} {
		if !strings.Contains(seen.String(), want) {
			t.Errorf("the lab's output lacks %q:\n%s", want, seen.String())
		}
	}
	if _, err := a.Start(self("wait")); err == nil {
		t.Error("a closed lab started a process")
	}
}

func TestAwait(t *testing.T) {
	_, a, _, _ := newLab(t, nil)
	p, err := a.Start(Command{Name: "speaker", Path: "/bin/sh", Args: []string{"-c", "echo word 1; echo word 2; exit 3"}})
	if err != nil {
		t.Fatal(err)
	}
	line, err := p.Stdout.Await(timeout(t), "word")
	if err != nil || line != "word 1" {
		t.Errorf("%q, %v", line, err)
	}
	line, err = p.Stdout.AwaitFrom(timeout(t), len("word 1\n"), "word")
	if err != nil || line != "word 2" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := p.Stdout.Await(timeout(t), "word 3"); err == nil || !strings.Contains(err.Error(), "word 2") {
		t.Errorf("at the stream's end: %v", err)
	}
	q, err := a.Start(self("wait"))
	if err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := q.Stdout.Await(late, "nothing"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after the timeout: %v", err)
	}
}

func TestUsage(t *testing.T) {
	_, a, _, _ := newLab(t, nil)
	p, err := a.Start(self("listen", "127.0.0.1:7000"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdout.Await(timeout(t), "listening"); err != nil {
		t.Fatal(err)
	}
	u, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	text := u.Resident(func(m *Mapping) bool { return strings.HasSuffix(m.Name, ".test") })
	if u.Threads < 2 || u.Count("socket") != 1 || u.Count("pipe") < 2 || text == 0 {
		t.Errorf("%d threads, files %q, %d bytes of the program", u.Threads, u.Files, text)
	}
	if n := u.Resident((*Mapping).Memfd); n != 0 {
		t.Errorf("%d bytes in memfds", n)
	}
}

// TestOwnerKilled kills a program with a lab: its processes and hosts must go with it.
func TestOwnerKilled(t *testing.T) {
	for _, sig := range []syscall.Signal{unix.SIGKILL, unix.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			_, a, _, _ := newLab(t, nil)
			p, err := a.Start(self("owner"))
			if err != nil {
				t.Fatal(err)
			}
			line, err := p.Stdout.Await(timeout(t), "owns")
			if err != nil {
				t.Fatal(err)
			}
			var pid int
			var link string
			if _, err := fmt.Sscanf(line, "owns %d %s", &pid, &link); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			pidfd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(pidfd)
			p.Signal(sig)
			fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
			if n, err := unix.Poll(fds, 10000); n != 1 {
				t.Fatalf("process %d still runs: %v", pid, err)
			}
			if left := (&Host{link: link}).inhabitants(); len(left) > 0 {
				t.Errorf("%s still has %q", link, left)
			}
		})
	}
}

// TestClose kills what runs and says so if something got away.
func TestClose(t *testing.T) {
	l, a, _, _ := newLab(t, nil)
	p, err := a.Start(self("wait"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Stdout.Await(timeout(t), "waiting"); err != nil {
		t.Fatal(err)
	}
	// A process that the lab did not start.
	stray := exec.Command("/proc/self/exe")
	stray.Env = append(os.Environ(), "LAB_TEST_ROLE=wait")
	if err := a.Do(stray.Start); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stray.Process.Kill()
		_ = stray.Wait()
	}()
	if err := l.Close(); err == nil || !strings.Contains(err.Error(), strconv.Itoa(stray.Process.Pid)) {
		t.Errorf("closed with %v, want process %d in it", err, stray.Process.Pid)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.Pid))); err == nil {
		t.Errorf("process %d is still there", p.Pid)
	}
}
