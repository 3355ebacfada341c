package tests

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"golang.org/x/sys/unix"

	"coalesce/guest/check"
	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/product"
	"coalesce/vmm"
)

// Lines of the guest's init.
const (
	guestUp   = "coalesce-guest: up"
	guestExit = "coalesce-guest: exit "
)

// linux starts a client with the stock kernel, our initramfs and these words on the kernel's command line.
func (p *place) linux(t *testing.T, words string, flags ...string) *lab.Process {
	t.Helper()
	return p.run(t, append([]string{"--kernel", files.Kernel, "--initrd", files.Initrd, "--append", "quiet " + words}, flags...)...)
}

// checks returns what the coherence check has found, by test, and fails t for each that has not passed.
func checks(t *testing.T, c *lab.Process) map[string]check.Result {
	t.Helper()
	results := map[string]check.Result{}
	for line := range strings.Lines(c.Stdout.String()) {
		if r, ok := check.ParseResult(line); ok {
			results[r.Test] = r
			if r.Verdict != check.OK && r.Verdict != check.Skipped {
				t.Errorf("%s: %s: %s", r.Test, r.Verdict, r.Error)
			}
		}
	}
	return results
}

// powersOff waits for a guest's power-off in order, after its init has reported status 0.
func powersOff(t *testing.T, c *lab.Process) lab.Exit {
	t.Helper()
	e := exit(t, c, booting, 0)
	if !strings.Contains(c.Stdout.String(), guestExit+"0\n") {
		t.Errorf("the guest's init did not end with status 0:\n%s", c.Stdout.Tail(20))
	}
	return e
}

// TestLinux: the stock kernel on one host, with one vCPU, and with two that share their memory as hardware would.
func TestLinux(t *testing.T) {
	needLinux(t)
	p := newPlace(t)
	// What the README's first guest shows its user: a shell that does what is typed.
	t.Run("1 vCPU", func(t *testing.T) {
		keys, user, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer keys.Close()
		defer user.Close()
		c, err := files.Run(p.client, lab.Command{Stdin: keys}, "--kernel", files.Kernel, "--initrd", files.Shell, "--append", "quiet",
			"--json", "--mark", guestUp)
		if err != nil {
			t.Fatal(err)
		}
		await(t, c.Stdout, booting, guestUp)
		checkLocal(t, c)
		if _, err := user.WriteString("echo typed $((6*7)) words | cat\nexit\n"); err != nil {
			t.Fatal(err)
		}
		powersOff(t, c)
		if !strings.Contains(c.Stdout.String(), "typed 42 words") {
			t.Errorf("the console shows:\n%s", c.Stdout.Tail(20))
		}
		r, err := product.Report(c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Outcome != vmm.PoweredOff || r.Marked == 0 || r.Nodes[0].Memory.FaultsRead+r.Nodes[0].Memory.FaultsWrite != 0 {
			t.Errorf("reported: %+v", r)
		}
		saw(t, "booted in %v, off after %v", r.Marked.Round(time.Millisecond), r.Ran.Round(time.Millisecond))
	})
	t.Run("2 vCPUs", func(t *testing.T) {
		c := p.linux(t, "coalesce.run=check coalesce.check=--json,--seconds,0.2,--expect-cpus,2,--expect-nodes,0:0-1", "--cpus", "2")
		e := powersOff(t, c)
		results := checks(t, c)
		if len(results) < 20 {
			t.Errorf("%d tests have run", len(results))
		}
		saw(t, "%d coherence tests passed, %v", len(results), e)
	})
}

// TestLinuxEnds: a restart and a panic of the guest's kernel are seen.
func TestLinuxEnds(t *testing.T) {
	needLinux(t)
	p := newPlace(t)
	for _, tt := range []struct {
		name    string
		program func() ([]byte, error)
		status  int
		want    string
	}{
		{"restart", bare.Restart, 4, "reset"},
		{"crash", bare.Crash, 3, "panicked"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			image, err := tt.program()
			if err != nil {
				t.Fatal(err)
			}
			c := p.linux(t, "coalesce.run=exec:/bin/"+tt.name, "--initrd", withProgram(t, tt.name, image), "--no-reboot")
			e := exit(t, c, booting, tt.status)
			await(t, c.Stderr, shortly, "coalesce: the guest")
			if !strings.Contains(c.Stderr.String(), tt.want) {
				t.Errorf("standard error: %q", c.Stderr)
			}
			saw(t, "%v: %q", e, c.Stderr.Tail(1))
		})
	}
}

// withProgram returns the initramfs with one more program in /bin. The kernel takes archives one after the other.
func withProgram(t *testing.T, name string, image []byte) string {
	t.Helper()
	archive, err := os.ReadFile(files.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	var more bytes.Buffer
	w := cpio.Newc.Writer(&more)
	if err := w.WriteRecord(cpio.StaticFile("bin/"+name, string(image), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	for len(archive)%4 != 0 {
		archive = append(archive, 0)
	}
	path := filepath.Join(t.TempDir(), "initrd")
	if err := os.WriteFile(path, append(archive, more.Bytes()...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// distance is the SLIT distance of the lender in the tests here: not the default.
const distance = 40

// expectTwo are the check's arguments for a guest with a vCPU on each of two hosts.
var expectTwo = fmt.Sprintf("--expect-cpus,2,--expect-nodes,0:0;1:1,--expect-distance,10/%[1]d;%[1]d/10", distance)

// spanChecks are the coherence tests for a guest on two hosts: the demo does them all.
var spanChecks = []string{"topology", "counters", "split-lock", "mp", "lb", "futex", "sleep"}

// TestLinuxSpan: the stock kernel on two hosts, its memory coherent; and a client killed in the middle of it. The
// lender's CPU is started by the guest's init, once the kernel has booted (maxcpus=).
func TestLinuxSpan(t *testing.T) {
	needLinuxSpan(t)
	p := newPlace(t)
	l := p.lend(t, "--cpus", "1", "--memory", "64M")
	borrow := p.borrow(fmt.Sprintf("cpus=1,memory=64M,distance=%d", distance))

	from := l.Stderr.Len()
	c := p.linux(t, "maxcpus=1 coalesce.run=check coalesce.check=--seconds,600,--timeout,900,counters", borrow)
	await(t, c.Stdout, booting, "cpu 1 online")
	c.Kill()
	killed := time.Now()
	awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
	took := time.Since(killed)
	saw(t, "client killed while Linux runs: lender free after %v", took.Round(time.Millisecond))
	if took > freed {
		t.Errorf("the lender was free only after %v", took)
	}

	from = l.Stderr.Len()
	c = p.linux(t, "maxcpus=1 coalesce.run=check coalesce.check=--json,--seconds,0.1,--slack,20000,--wake,60000,--timeout,200,"+
		expectTwo+","+strings.Join(spanChecks, ","), borrow, "--json", "--mark", guestUp)
	e := powersOff(t, c)
	results := checks(t, c)
	for _, name := range spanChecks {
		r := results[name]
		saw(t, "%s: %q %s", name, r.Verdict, r.Detail)
		if r.Verdict != check.OK {
			t.Errorf("%s has not passed", name)
		}
	}
	r, err := product.Report(c)
	if err != nil {
		t.Fatal(err)
	}
	saw(t, "booted in %v, %v", r.Marked.Round(time.Millisecond), e)
	if r.Outcome != vmm.PoweredOff || r.Marked == 0 || len(r.Nodes) != 2 {
		t.Errorf("reported: %+v", r)
	}
	for _, n := range r.Nodes {
		var vcpu time.Duration
		for _, c := range n.CPUs {
			vcpu += c.Time
		}
		m := n.Memory
		saw(t, "node %d: vCPU time %v, %d read and %d write faults, %d pages in, %d out, %d and %d bytes, %d IPIs sent, %d I/O forwarded",
			n.Node, vcpu.Round(time.Millisecond), m.FaultsRead, m.FaultsWrite, m.PagesIn, m.PagesOut, m.BytesIn, m.BytesOut, n.IPIsOut, n.Forward)
		if vcpu == 0 || m.FaultsRead == 0 || m.FaultsWrite == 0 || m.PagesIn == 0 || m.PagesOut == 0 || n.IPIsOut == 0 {
			t.Errorf("node %d has numbers that cannot be: %+v", n.Node, n)
		}
	}
	awaitFrom(t, l.Stderr, from, shortly, product.SessionOver)
	l.Signal(unix.SIGINT)
	exit(t, l.Process, shortly, 0)
}
