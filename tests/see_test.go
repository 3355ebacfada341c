package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/vmm"
	"coalesce/vmm/top"
)

// ownSockets returns the folder of the control sockets, in which there are none but the test's from now on.
func ownSockets(t *testing.T) string {
	t.Helper()
	runtime := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	return filepath.Join(runtime, "coalesce")
}

// ask runs coalesce on the client's host and returns what it prints.
func (p *place) ask(t *testing.T, status int, args ...string) *lab.Process {
	t.Helper()
	c, err := p.client.Start(lab.Command{Name: args[0], Path: files.Program, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	exit(t, c, shortly, status)
	return c
}

// askJSON runs coalesce and decodes each value that it prints.
func askJSON[T any](t *testing.T, p *place, args ...string) (values []T) {
	t.Helper()
	out := p.ask(t, 0, args...).Stdout.String()
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var v T
		if err := d.Decode(&v); err != nil {
			t.Fatalf("coalesce %v: %v in %s", args, err, out)
		}
		values = append(values, v)
	}
	return values
}

// sharedPage is the page that a Pair's vCPUs share.
const sharedPage = 0x70000

// TestStatusAndTop: what is told of a guest on two hosts while it runs, by the client and by the lender, and that its
// sockets are there for its user only, as long as it runs.
func TestStatusAndTop(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	sockets := ownSockets(t)
	l := p.lend(t, "--cpus", "2", "--memory", "128M", "--name", "lender")
	c := p.run(t, "--kernel", pair(t), "--memory", "64M", p.borrow("cpus=1,memory=64M,distance=40"), "--name", "guest")
	await(t, c.Stdout, shortly, bare.PairAlive)
	for _, name := range []string{"guest", "lender"} {
		st, err := os.Stat(filepath.Join(sockets, name+".sock"))
		if err != nil || st.Mode() != 0o600|os.ModeSocket {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}

	all := askJSON[[]vmm.Status](t, p, "status", "--json")
	if len(all) != 1 || len(all[0]) != 2 {
		t.Fatalf("status: %+v", all)
	}
	guest, lender := all[0][0], all[0][1]
	if guest.Name != "guest" || guest.Role != "client" || guest.PID != c.Pid || guest.Guest == nil || guest.Guest.Boots != 1 ||
		len(guest.Guest.Nodes) != 2 || guest.Guest.Nodes[1].Address != l.Addr || guest.Guest.Nodes[1].Distance != 40 ||
		guest.Guest.Nodes[1].RTT <= 0 || !slices.Equal(guest.Guest.Nodes[1].CPUs, []int{1}) {
		t.Errorf("status: %+v %+v", guest, guest.Guest)
	}
	if g := lender.Lending; lender.Role != "lender" || g == nil || g.CPUs != 2 || g.CPUsLent != 1 || g.MemoryLent != 64<<20 ||
		len(g.Sessions) != 1 || g.Sessions[0].Node != 1 {
		t.Errorf("status: %+v %+v", lender, g)
	}
	text := p.ask(t, 0, "status").Stdout.String()
	for _, want := range []string{"guest: client on ", "lender: lender on ", "1 of 2 CPUs, 64 of 128 MiB are lent", l.Addr} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}

	// Both vCPUs write the page without end: it is the hottest by far, both nodes fetch it, and what one of them counts the
	// other sees come.
	symbols := file(t, "System.map", []byte(fmt.Sprintf("%x T _text\n%x B contended\n%x B _end\n",
		uint64(0xffffffff81000000), uint64(0xffffffff81000000+sharedPage+8), uint64(0xffffffff81100000))))
	samples := askJSON[top.Sample](t, p, "top", "guest", "--json", "--count", "3", "--interval", "500ms", "--system-map", symbols, "--kernel-base", "0")
	if len(samples) != 3 {
		t.Fatalf("%d samples", len(samples))
	}
	for i, s := range samples {
		if len(s.Guests) != 1 || len(s.Guests[0].Nodes) != 2 || len(s.Guests[0].Pages) == 0 {
			t.Fatalf("sample %d: %+v", i, s)
		}
		g := s.Guests[0]
		for _, n := range g.Nodes {
			// A vCPU's thread may have done something else before it was the vCPU's, which counts in the first sample.
			tooBusy := i > 0 && n.Busy > 1.5
			if n.Missing != "" || n.Faults <= 0 || n.In <= 0 || n.Out <= 0 || n.P50 <= 0 || n.P99 < n.P50 || n.Busy <= 0 || tooBusy {
				t.Errorf("sample %d: %+v", i, n)
			}
			if n.Interval <= 0 || i > 0 && n.Interval > shortly {
				t.Errorf("sample %d is of %v", i, n.Interval)
			}
		}
		hot := g.Pages[0]
		if hot.GPA != sharedPage || hot.Home != 0 || len(hot.Nodes) != 2 || hot.Memory != "low memory (boot data)" ||
			!slices.Equal(hot.Symbols, []string{"_text+0x70000", "contended"}) {
			t.Errorf("sample %d: the hottest page is %+v", i, hot)
		}
		if hot.Kind != vmm.Migratory && hot.Kind != vmm.WriteShared {
			t.Errorf("sample %d: a page that both write is %q", i, hot.Kind)
		}
		saw(t, "client %.0f faults/s, %.2f MB/s in, p50 %v, p99 %v; page %#x %s, %.0f moves/s", g.Nodes[0].Faults, g.Nodes[0].In/1e6,
			g.Nodes[0].P50, g.Nodes[0].P99, hot.GPA, hot.Kind, hot.Rate)
	}
	own := askJSON[top.Sample](t, p, "top", "lender", "--json", "--count", "1")
	if len(own) != 1 || len(own[0].Guests) != 1 || len(own[0].Guests[0].Nodes) != 1 || own[0].Guests[0].Nodes[0].Node != 1 {
		t.Errorf("the lender's: %+v", own)
	}
	table := p.ask(t, 0, "top", "guest", "--count", "2", "--interval", "200ms").Stdout.String()
	row := regexp.MustCompile(`(?m)^0x70000 +[0-9.]+ +(migratory|write-shared) +0 +0: .* 1: .*low memory \(boot data\)$`)
	if strings.Count(table, "faults/s") != 2 || len(row.FindAllString(table, -1)) != 2 || strings.Contains(table, "\x1b") {
		t.Errorf("top, twice:\n%s", table)
	}
	if line := complaint(t, p.ask(t, 2, "top")); !strings.Contains(line, "guest, lender") {
		t.Errorf("two instances: %q", line)
	}
	complaint(t, p.ask(t, 1, "top", "nobody"), "nobody", "does not run")
	complaint(t, p.ask(t, 2, "status", "../x"), "no name")

	watching, err := p.client.Start(lab.Command{Name: "top", Path: files.Program, Args: []string{"top", "guest"}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, watching.Stdout, shortly, "faults/s")
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	exit(t, watching, shortly, 0)
	l.Signal(unix.SIGINT)
	exit(t, l.Process, shortly, 0)
	if left, err := os.ReadDir(sockets); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	complaint(t, p.ask(t, 1, "status"), "no coalesce")
}

// TestNames: a name is one process's, whose death gives it back.
func TestNames(t *testing.T) {
	needGuest(t)
	p := newPlace(t)
	sockets := ownSockets(t)
	k := script(t, "up\n", bare.Halt)
	first := p.run(t, "--kernel", k, "--memory", "64M", "--name", "mine")
	await(t, first.Stdout, shortly, "up")
	second := p.run(t, "--kernel", k, "--memory", "64M", "--name", "mine")
	exit(t, second, shortly, 1)
	complaint(t, second, "another coalesce is called mine")
	first.Kill()
	if _, err := first.Wait(within(t, shortly)); err != nil {
		t.Fatal(err)
	}
	complaint(t, p.ask(t, 1, "status", "mine"), "does not run")
	third := p.run(t, "--kernel", k, "--memory", "64M", "--name", "mine")
	await(t, third.Stdout, shortly, "up")
	if s := askJSON[[]vmm.Status](t, p, "status", "mine", "--json"); len(s) != 1 || len(s[0]) != 1 || s[0][0].PID != third.Pid {
		t.Errorf("status: %+v", s)
	}
	names := p.ask(t, 0, "__complete", "status", "").Stdout.String()
	if !strings.HasPrefix(names, "mine\n") {
		t.Errorf("completion offers %q", names)
	}
	third.Signal(unix.SIGINT)
	exit(t, third, shortly, 1)
	if _, err := os.Stat(filepath.Join(sockets, "mine.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
