// Package tests has the tests of the whole: the built program, as a user starts it, on hosts that are network
// namespaces.
//
//	usage_test.go    command lines and files that cannot work
//	peer_test.go     peers that are not what they should be, and what comes from the network
//	session_test.go  the life of a guest on two hosts: killed, interrupted, cut off; nothing is left
//	local_test.go    the life of a guest on one host
//	see_test.go      what status, top, traces and metrics tell of a running guest
//	shadow_test.go   hosts whose processors do not walk guest page tables
//	linux_test.go    Linux as the guest, on one host and on two
//
// Most use the kernels of package bare, which run wherever there is a KVM. Linux needs hardware, or the testbed.
package tests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/labtest"
	"coalesce/tests/product"
	"coalesce/vcpu/kvm"
	"coalesce/vmm/doctor"
)

// Time limits. They bound hangs and nothing else: an emulated machine on a busy host is a hundred times slower than a
// real one.
const (
	shortly = 60 * time.Second  // what a program does by itself, or with a bare kernel
	booting = 600 * time.Second // what needs Linux to boot
)

var files product.Files

var saw, within = labtest.Saw, labtest.Within

func TestMain(m *testing.M) {
	os.Exit(func() int {
		// Where the programs put their control sockets.
		runtime, err := os.MkdirTemp("", "coalesce-tests-")
		if err == nil {
			defer os.RemoveAll(runtime)
			err = os.Setenv("XDG_RUNTIME_DIR", runtime)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if files, err = product.Find(); err == nil {
			if err = files.Build(context.Background()); err == nil {
				err = files.Check()
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// place is a lab with the two hosts of most tests.
type place struct {
	*lab.Lab
	client, lender *lab.Host
	wire           *lab.Wire
	ip             string // the lender's address
}

// newPlace returns one that is closed with the test. What its processes said is shown if the test fails.
func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{Lab: lab.New(nil)}
	t.Cleanup(func() {
		processes := p.Processes()
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		for _, c := range processes {
			if t.Failed() {
				t.Logf("%s: coalesce %s\n%s%s", c.Command.Name, strings.Join(c.Command.Args, " "), c.Stdout.Tail(40), c.Stderr.Tail(40))
			}
		}
	})
	var errs [3]error
	p.client, errs[0] = p.AddHost("client")
	if errors.Is(errs[0], lab.ErrNotSupported) {
		t.Skip(errs[0])
	}
	p.lender, errs[1] = p.AddHost("lender")
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	if p.wire, errs[2] = p.Join(p.client, p.lender); errs[2] != nil {
		t.Fatal(errs[2])
	}
	p.ip = p.wire.Addr(p.lender).String()
	return p
}

// run starts a client with these flags.
func (p *place) run(t *testing.T, flags ...string) *lab.Process {
	t.Helper()
	c, err := files.Run(p.client, lab.Command{}, allowed(flags)...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lend starts a lender.
func (p *place) lend(t *testing.T, flags ...string) *product.Lender {
	t.Helper()
	l, err := files.Lend(within(t, shortly), p.lender, p.ip, allowed(flags)...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// borrow is the flag that borrows from the lender.
func (p *place) borrow(what string) string {
	return "--lender=" + p.ip + ":" + product.Port + "," + what
}

// exit waits for a process's end and checks its status.
func exit(t *testing.T, p *lab.Process, limit time.Duration, want int) lab.Exit {
	t.Helper()
	e, err := p.Wait(within(t, limit))
	if err != nil {
		t.Fatal(err)
	}
	if e.Status != want {
		t.Errorf("%s ended with %v, want status %d:\n%s", p.Command.Name, e, want, p.Stderr.Tail(10))
	}
	return e
}

// await waits for a line.
func await(t *testing.T, o *lab.Output, limit time.Duration, text string) string {
	t.Helper()
	return awaitFrom(t, o, 0, limit, text)
}

func awaitFrom(t *testing.T, o *lab.Output, from int, limit time.Duration, text string) string {
	t.Helper()
	line, err := o.AwaitFrom(within(t, limit), from, text)
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// complaint checks that a program which failed said so in one line, with all of want in it, and nothing that is for its
// programmers only. Lines of its log may come before. It returns the line.
func complaint(t *testing.T, p *lab.Process, want ...string) string {
	t.Helper()
	var found []string
	for line := range strings.Lines(p.Stderr.String()) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(line, "coalesce: "):
			found = append(found, line)
		case logLine(line):
		default:
			t.Errorf("a line that is neither the complaint nor of the log: %q", line)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d lines of complaint, want 1: %q", len(found), p.Stderr)
	}
	for _, w := range want {
		if !strings.Contains(found[0], w) {
			t.Errorf("%q does not name %q", found[0], w)
		}
	}
	for _, bad := range []string{"panic:", "goroutine ", ".go:", "0x0000", "%!"} {
		if strings.Contains(found[0], bad) {
			t.Errorf("%q is not for users", found[0])
		}
	}
	return found[0]
}

// logLine recognises "15:04:05 INF text".
func logLine(line string) bool {
	_, err := time.Parse(time.TimeOnly, line[:min(len(line), len(time.TimeOnly))])
	return err == nil
}

// kernel writes a bare kernel to a file of the test.
func kernel(t *testing.T, image []byte, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "kernel", image)
}

// file writes a file of the test.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// script is a file with a bare.Script.
func script(t *testing.T, text string, end bare.End) string {
	t.Helper()
	image, err := bare.Script(text, end)
	return kernel(t, image, err)
}

// pair is a file with bare.Pair.
func pair(t *testing.T) string {
	t.Helper()
	image, err := bare.Pair()
	return kernel(t, image, err)
}

// verdict is what the doctor thinks of this host.
var verdict = sync.OnceValue(func() doctor.Verdict { return doctor.Run(context.Background(), kvm.Device).Verdict })

// needLinux skips a test on a host where Linux does not run as a guest.
func needLinux(t *testing.T) {
	t.Helper()
	if v := verdict(); !v.CanRunLinux {
		skip(t, &kvm.FeatureError{Feature: "a Linux guest", Err: errors.New(v.RunLinuxReason)})
	}
}

// needLinuxSpan skips a test on a host that cannot take part in a Linux guest on several.
func needLinuxSpan(t *testing.T) {
	t.Helper()
	if v := verdict(); !v.CanSpanHosts {
		skip(t, &kvm.FeatureError{Feature: "a Linux guest on several hosts", Err: errors.New(v.SpanHostsReason)})
	}
}

// shadow is what the doctor says where KVM uses shadow paging; nil elsewhere, and where there is no KVM.
var shadow = sync.OnceValue(func() *doctor.ShadowPagingError {
	sys, err := kvm.Open(kvm.Device)
	if err != nil {
		return nil
	}
	defer sys.Close()
	var found *doctor.ShadowPagingError
	errors.As(doctor.NestedPaging(sys), &found)
	return found
})

// allowed adds the flag without which a host with shadow paging refuses to take part in a guest on several. The bare
// kernels do not mind: they leave their page tables as they find them.
func allowed(flags []string) []string {
	if shadow() == nil {
		return flags
	}
	return append(slices.Clone(flags), "--allow-shadow-paging")
}

// tried runs a bare guest once and returns what it complained of if this host lacks something for it.
func tried(t *testing.T, flags ...string) error {
	t.Helper()
	p := newPlace(t)
	p.lend(t, "--cpus", "1")
	c := p.run(t, append(flags, "--kernel", script(t, "hello\n", bare.PowerOff), "--memory", "64M")...)
	if _, err := c.Wait(within(t, shortly)); err != nil {
		t.Fatal(err)
	}
	if text := c.Stderr.Tail(1); strings.Contains(text, kvm.ErrNotSupported.Error()) {
		return &kvm.FeatureError{Feature: "a bare guest", Err: errors.New(text)}
	}
	return nil
}

// What tried has found, by its flags.
var trials sync.Map

// needGuest skips a test on a host where not even a bare guest runs.
func needGuest(t *testing.T) {
	t.Helper()
	need(t)
}

// needSpan skips a test on a host that cannot take part in a guest on two hosts.
func needSpan(t *testing.T) {
	t.Helper()
	need(t, "--lender=10.77.1.2:"+product.Port+",cpus=1")
}

func need(t *testing.T, flags ...string) {
	t.Helper()
	key := strings.Join(flags, " ")
	found, known := trials.Load(key)
	if !known {
		found = &trial{tried(t, flags...)}
		trials.Store(key, found)
	}
	if err := found.(*trial).err; err != nil {
		skip(t, err)
	}
}

type trial struct{ err error }

// skip ends a test because of an error that Is kvm.ErrNotSupported.
func skip(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, kvm.ErrNotSupported) {
		t.Fatal(err)
	}
	saw(t, "skipped: %v", err)
	t.Skip(err)
}
