package tests

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/product"
)

// TestShadowPaging: both roles refuse a host where KVM walks guest page tables itself, with one line, and no other host.
// Elsewhere than in the testbed a host without nested paging is `modprobe kvm_amd npt=0`; there, --param kvm_amd:npt=0.
func TestShadowPaging(t *testing.T) {
	p := newPlace(t)
	k := script(t, "up\n", bare.PowerOff)
	lend := []string{"lend", "--listen", p.ip + ":" + product.Port}
	run := []string{"run", "--kernel", k, "--memory", "64M", p.borrow("cpus=1")}
	start := func(h *lab.Host, args []string) *lab.Process {
		t.Helper()
		c, err := h.Start(lab.Command{Name: args[0], Path: files.Program, Args: args})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	found := shadow()
	if found == nil {
		needSpan(t)
		l := start(p.lender, lend)
		await(t, l.Stderr, shortly, "lending")
		e := exit(t, start(p.client, run), shortly, 0)
		saw(t, "nested paging: both roles take part, %v", e)
		l.Signal(unix.SIGINT)
		exit(t, l, shortly, 0)
		return
	}
	for _, args := range [][]string{lend, run} {
		c := start(p.client, args)
		e := exit(t, c, shortly, 1)
		saw(t, "after %v: %s", e.Ran.Round(time.Millisecond), complaint(t, c, "several hosts", found.Measured, found.Mend))
		if out := c.Stdout.String(); out != "" {
			t.Errorf("%s: standard output: %q", args[0], out)
		}
	}
	// A guest of this host alone is nobody else's concern.
	needGuest(t)
	c := start(p.client, run[:len(run)-1])
	exit(t, c, shortly, 0)
	if strings.Contains(c.Stderr.String(), "shadow paging") {
		t.Errorf("a guest on one host: %s", c.Stderr.Tail(5))
	}
}
