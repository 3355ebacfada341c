package tests

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/labtest"
	"coalesce/tests/product"
	"coalesce/vcpu/kvm"
	"coalesce/vmm"
	"coalesce/vmm/latency"
)

// TestEnds: how a guest ends decides the exit status.
func TestEnds(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	tests := []struct {
		name    string
		end     bare.End
		flags   []string
		status  int
		outcome vmm.Outcome
		want    string // in the complaint; "" for none
	}{
		{"power-off", bare.PowerOff, nil, 0, vmm.PoweredOff, ""},
		{"power-off with 4 vCPUs", bare.PowerOff, []string{"--cpus", "4"}, 0, vmm.PoweredOff, ""},
		{"panic", bare.Panic, nil, 3, vmm.Panicked, "panicked"},
		{"reset", bare.Reset, []string{"--no-reboot"}, 4, vmm.WasReset, "reset"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			flags := append(tt.flags, "--kernel", script(t, "this is "+tt.name+"\n", tt.end), "--memory", "64M", "--json")
			c := p.run(t, flags...)
			exit(t, c, shortly, tt.status)
			if out := c.Stdout.String(); out != "this is "+tt.name+"\n" {
				t.Errorf("console: %q", out)
			}
			r, err := product.Report(c)
			if err != nil {
				t.Fatal(err)
			}
			if r.Outcome != tt.outcome || len(r.Nodes) != 1 {
				t.Errorf("reported: %+v", r)
			}
			if complains := strings.Contains(c.Stderr.String(), "coalesce: "); complains != (tt.want != "") {
				t.Errorf("standard error: %q", c.Stderr)
			}
			saw(t, "exit status %d, %q after %v", tt.status, r.Outcome, r.Ran)
		})
	}
}

// TestReboot: without --no-reboot a reset boots the guest again, as often as it happens, until the user ends it.
func TestReboot(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	c := p.run(t, "--kernel", script(t, "booted\n", bare.Reset), "--memory", "64M")
	from := 0
	for range 5 {
		awaitFrom(t, c.Stdout, from, shortly, "booted")
		from += len("booted\n")
	}
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	saw(t, "booted %d times", strings.Count(c.Stdout.String(), "booted"))
}

// TestNoInput: a guest runs with its standard input closed, at its end, or a pipe that nothing comes from.
func TestNoInput(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	silent, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer writer.Close()
	k := script(t, "hello\n", bare.PowerOff)
	for name, c := range map[string]lab.Command{
		"closed": {NoStdin: true}, "at its end": {}, "a silent pipe": {Stdin: silent},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := files.Run(p.client, c, "--kernel", k, "--memory", "64M")
			if err != nil {
				t.Fatal(err)
			}
			exit(t, c, shortly, 0)
			if out := c.Stdout.String(); out != "hello\n" {
				t.Errorf("console: %q", out)
			}
		})
	}
	saw(t, "standard input closed, at its end, a silent pipe: exit status 0")
}

// TestNoOutput: a guest whose console goes nowhere any more still ends.
func TestNoOutput(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	c, err := p.client.Start(lab.Command{Name: "client", Path: "/bin/sh", Args: []string{"-c", `exec "$0" "$@" >&-`,
		files.Program, "run", "--kernel", script(t, strings.Repeat("hello\n", 1000), bare.PowerOff), "--memory", "64M"}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Wait(within(t, shortly))
	if err != nil {
		t.Fatal(err)
	}
	saw(t, "with standard output closed: %v", e)
	if strings.Contains(c.Stderr.String(), "goroutine ") {
		t.Errorf("standard error: %q", c.Stderr)
	}
}

// TestReaderGone: a guest whose console's reader has gone goes on to its end, its program says what was lost, and the
// terminal is as it was.
func TestReaderGone(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	_, tty := labtest.OpenPTY(t)
	before := labtest.Termios(t, tty)
	c, err := p.client.Start(lab.Command{Name: "client", Path: "/bin/sh", Stdin: tty, Args: []string{"-c", `{ "$0" "$@"; echo "its status: $?" >&2; } | true`,
		files.Program, "run", "--kernel", script(t, strings.Repeat("hello\n", 1000), bare.PowerOff), "--memory", "64M"}})
	if err != nil {
		t.Fatal(err)
	}
	exit(t, c, shortly, 0)
	saw(t, "console piped into true: %s", c.Stderr.Tail(1))
	if said := c.Stderr.String(); !strings.HasSuffix(said, "its status: 1\n") || strings.Count(said, "broken pipe") != 1 {
		t.Errorf("standard error: %q", said)
	}
	if after := labtest.Termios(t, tty); after != before {
		t.Errorf("the terminal was %+v, and is %+v", before, after)
	}
}

// TestLocalGuestPaysNothing: a guest on one host has no userfaultfd, on any part of its memory.
func TestLocalGuestPaysNothing(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	c := p.run(t, "--kernel", pair(t), "--cpus", "2", "--memory", "256M")
	await(t, c.Stdout, shortly, bare.PairAlive)
	checkLocal(t, c)
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
}

// TestFixedTSC: where KVM cannot set a guest's TSC, a guest of this host runs all the same, and the log says so to who
// asks.
func TestFixedTSC(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	fixed := errors.Is(sys.ProbeTSCOffset(), kvm.ErrNotSupported)
	for _, level := range []string{"debug", "info"} {
		c := p.run(t, "--kernel", script(t, "hello\n", bare.PowerOff), "--memory", "64M", "--log-level", level)
		exit(t, c, shortly, 0)
		if said := strings.Contains(c.Stderr.String(), "TSC offset"); said != (fixed && level == "debug") {
			t.Errorf("--log-level %s, fixed TSC %v: %s", level, fixed, c.Stderr)
		}
	}
	saw(t, "a TSC that KVM cannot set: %v", fixed)
}

// checkLocal checks a running client whose guest has no lender.
func checkLocal(t *testing.T, c *lab.Process) {
	t.Helper()
	u, err := c.Usage()
	if err != nil {
		t.Fatal(err)
	}
	memory := uint64(0)
	for _, m := range u.Mappings {
		if m.Memfd() {
			memory += m.Size
		}
		if m.Userfault {
			t.Errorf("userfaultfd is registered on %s, %d MiB", m.Name, m.Size>>20)
		}
	}
	if n := u.Count("anon_inode:[userfaultfd]"); n != 0 || memory == 0 {
		t.Errorf("%d userfaultfd descriptors, %d MiB mapped of memfds; files %q", n, memory>>20, u.Files)
	}
	if n := u.Count(latency.Device); n != 0 {
		t.Errorf("%s is open", latency.Device)
	}
	rest := u.Resident(func(m *lab.Mapping) bool { return !m.Memfd() })
	saw(t, "no userfaultfd; %d threads, %d descriptors, %.1f MiB resident beside the guest's memory",
		u.Threads, len(u.Files), float64(rest)/(1<<20))
}

// TestInterrupt: Ctrl-C ends a guest on one host at once, also one that never leaves its loop.
func TestInterrupt(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	for name, end := range map[string]bare.End{"spinning": bare.Spin, "halted": bare.Halt} {
		for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
			c := p.run(t, "--kernel", script(t, "up\n", end), "--memory", "64M")
			await(t, c.Stdout, shortly, "up")
			start := time.Now()
			c.Signal(sig)
			exit(t, c, shortly, 1)
			saw(t, "%s, %s: %q after %v", name, unix.SignalName(sig), complaint(t, c), time.Since(start).Round(time.Millisecond))
		}
	}
}
