package tests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"coalesce/guest/micro"
	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/product"
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

// fetch gets what is at http://addr/path on the client's host.
func (p *place) fetch(t *testing.T, addr, path string) string {
	t.Helper()
	dial := func(context.Context, string, string) (c net.Conn, err error) {
		// A socket belongs to the host whose thread makes it.
		if e := p.client.Do(func() error { c, err = net.Dial("tcp", addr); return err }); e != nil {
			return nil, e
		}
		return c, nil
	}
	client := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v: %s", resp.Status, err, text)
	}
	return string(text)
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
	c := p.run(t, "--kernel", pair(t), "--memory", "64M", p.borrow("cpus=1,memory=64M,distance=40"), "--name", "guest",
		"--metrics", "127.0.0.1:9700")
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

	metrics := p.fetch(t, "127.0.0.1:9700", "/metrics")
	for _, node := range []string{"0", "1"} {
		for _, want := range []string{`coalesce_pages_in_total\{client=".+",node="` + node + `"\} [1-9]`,
			`coalesce_page_fetch_seconds_count\{client=".+",node="` + node + `"\} [1-9]`} {
			if !regexp.MustCompile(want).MatchString(metrics) {
				t.Errorf("no %s in the metrics:\n%s", want, metrics)
			}
		}
	}

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

// traceFile is a trace as a reader has it.
type traceFile struct {
	OtherData struct {
		Nodes []struct {
			Node    int
			Error   float64 `json:"clock_error_us"`
			Dropped uint64
			Missing string
		}
	}
	TraceEvents []traceEvent
}

type traceEvent struct {
	Name, Cat, ID string
	Phase         string `json:"ph"`
	TS, Dur       float64
	PID, TID      int
	Args          struct {
		GPA    string
		Port   string
		Bytes  uint64
		Number uint64
		Node   int
		Local  bool
		Name   string
	}
}

func (e *traceEvent) end() float64 { return e.TS + e.Dur }

// parseTrace reads a trace and checks what holds for each: slices of one track do not overlap, every arrow has two ends,
// which are slices', and none points back in time by more than the clocks' error. It returns the slices by category and
// the arrows' ends by id.
func parseTrace(t *testing.T, path string) (f traceFile, slicesOf map[string][]traceEvent, arrows map[string][2]traceEvent) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	type track struct{ pid, tid int }
	slicesOf, arrows = map[string][]traceEvent{}, map[string][2]traceEvent{}
	last, begins := map[track]float64{}, map[track]map[float64]bool{}
	const rounding = 1e-3 // of µs
	for _, e := range f.TraceEvents {
		on := track{e.PID, e.TID}
		switch e.Phase {
		case "X":
			if e.TS < last[on]-rounding || e.Dur < 0 {
				t.Errorf("%+v begins before the one before it on its track ends, at %v", e, last[on])
			}
			last[on] = e.end()
			if begins[on] == nil {
				begins[on] = map[float64]bool{}
			}
			begins[on][e.TS] = true
			slicesOf[e.Cat] = append(slicesOf[e.Cat], e)
		case "s", "f":
			ends := arrows[e.ID]
			at := 0
			if e.Phase == "f" {
				at = 1
			}
			if ends[at].Phase != "" || !begins[on][e.TS] {
				t.Errorf("%+v: a second such end, or no slice is there", e)
			}
			ends[at] = e
			arrows[e.ID] = ends
		}
	}
	wrong := map[int]float64{}
	for _, n := range f.OtherData.Nodes {
		wrong[n.Node] = n.Error
	}
	for id, ends := range arrows {
		if ends[0].Phase == "" || ends[1].Phase == "" || ends[0].PID == ends[1].PID || ends[0].Cat != ends[1].Cat {
			t.Errorf("arrow %s: %+v", id, ends)
		}
		if bound := wrong[ends[0].PID] + wrong[ends[1].PID]; ends[1].TS < ends[0].TS-bound-rounding {
			t.Errorf("arrow %s comes before it went, by more than %v µs: %+v", id, bound, ends)
		}
	}
	return f, slicesOf, arrows
}

// TestTrace: every page, interrupt and device access that the one node's trace has coming from the other, the other's
// has going there, in an order that makes sense on their one clock; and all that the closing report has counted is there.
func TestTrace(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	ownSockets(t)
	p.lend(t, "--cpus", "1", "--memory", "64M")
	trace := filepath.Join(t.TempDir(), "trace.json")
	team, err := contending(3_000_000)
	c := p.run(t, "--kernel", kernel(t, team, err), "--memory", fmt.Sprint(bare.TeamMemory>>20), p.borrow(fmt.Sprintf("cpus=1,memory=%d", bare.TeamLent>>20)),
		"--json", "--trace", trace)
	exit(t, c, shortly, 0)
	r, err := product.Report(c)
	if err != nil {
		t.Fatal(err)
	}
	f, slicesOf, arrows := parseTrace(t, trace)
	if len(f.OtherData.Nodes) != 2 || f.OtherData.Nodes[1].Error <= 0 {
		t.Fatalf("nodes: %+v", f.OtherData.Nodes)
	}
	for _, n := range f.OtherData.Nodes {
		if n.Dropped != 0 || n.Missing != "" {
			t.Errorf("not all is there: %+v", n)
		}
	}

	// Pages, by where they go and their number on that way.
	type way struct {
		from, to int
		number   uint64
	}
	sent, received := map[way]traceEvent{}, map[way]traceEvent{}
	tracks := map[[2]int]string{}
	for _, e := range f.TraceEvents {
		if e.Name == "thread_name" {
			tracks[[2]int{e.PID, e.TID}] = e.Args.Name
		}
	}
	for _, e := range slicesOf["transfer"] {
		w, ends := way{e.PID, e.Args.Node, e.Args.Number}, sent
		if strings.HasPrefix(tracks[[2]int{e.PID, e.TID}], "pages from") {
			w, ends = way{e.Args.Node, e.PID, e.Args.Number}, received
		}
		if _, twice := ends[w]; twice {
			t.Errorf("twice: %+v", e)
		}
		ends[w] = e
	}
	bound := f.OtherData.Nodes[1].Error
	for w, in := range received {
		out, ok := sent[w]
		if !ok || out.Args.GPA != in.Args.GPA || out.Args.Bytes != in.Args.Bytes || out.Name != in.Name {
			t.Errorf("%v: came %+v, went %+v", w, in, out)
		}
		if in.TS < out.end()-bound-1e-3 {
			t.Errorf("%v came before it had gone, by more than %v µs: %+v, %+v", w, bound, in, out)
		}
	}
	// What is under way at the end is the last on its way.
	for w := range sent {
		if _, ok := received[w]; ok {
			continue
		}
		if _, ok := received[way{w.from, w.to, w.number + 1}]; ok {
			t.Errorf("%v never came, but the next one did", w)
		}
	}
	// The report is made before the trace ends.
	count := func(events map[way]traceEvent, f func(w way) bool) (n uint64) {
		for w := range events {
			if f(w) {
				n++
			}
		}
		return n
	}
	for node, n := range r.Nodes {
		in, out := count(received, func(w way) bool { return w.to == node }), count(sent, func(w way) bool { return w.from == node })
		if in < n.Memory.PagesIn || out < n.Memory.PagesOut || in == 0 || out == 0 {
			t.Errorf("node %d: %d pages in and %d out are traced, %d and %d reported", node, in, out, n.Memory.PagesIn, n.Memory.PagesOut)
		}
		faults := uint64(0)
		for _, e := range slicesOf["fault"] {
			if e.PID == node && !e.Args.Local {
				faults++
			}
		}
		if all := n.Memory.FaultsRead + n.Memory.FaultsWrite; faults == 0 || faults > all+2 {
			t.Errorf("node %d: %d faults are traced, %d reported", node, faults, all)
		}
		saw(t, "node %d: %d faults, %d pages in, %d out", node, faults, in, out)
	}
	// INIT and SIPI started the second vCPU.
	names := map[string]int{}
	for _, ends := range arrows {
		for _, e := range slicesOf[ends[0].Cat] {
			if e.PID == ends[0].PID && e.TID == ends[0].TID && e.TS == ends[0].TS {
				names[e.Name]++
			}
		}
	}
	if names["INIT"] != 1 || names["SIPI"] != 1 {
		t.Errorf("arrows: %v", names)
	}
	saw(t, "%d arrows %v; clocks within %.1f µs", len(arrows), names, bound)
}

// contending is a kernel with two vCPUs that add to a counter in one page so many times each, and then end.
func contending(times int) ([]byte, error) {
	k, err := bare.NewTeam(2, 1)
	if err != nil {
		return nil, err
	}
	counter := k.Shared(1)
	k.Barrier()
	k.MovImm(micro.RBX, uint64(times))
	again := k.Here()
	k.LockIncMem(counter)
	k.Pause()
	k.Dec(micro.RBX)
	k.Jcc(micro.NotEqual, again)
	return k.End()
}

// TestTraceOfIO: the device accesses of a lender's vCPU, and a trace of a guest that was interrupted.
func TestTraceOfIO(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	ownSockets(t)
	p.lend(t, "--cpus", "1", "--memory", "64M")
	trace := filepath.Join(t.TempDir(), "trace.json")
	c := p.run(t, "--kernel", pair(t), "--memory", "64M", p.borrow("cpus=1,memory=64M"), "--trace", trace)
	await(t, c.Stdout, shortly, bare.PairAlive)
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	complaint(t, c, "interrupted")
	_, slicesOf, arrows := parseTrace(t, trace)
	var forwarded, served []traceEvent
	for _, e := range slicesOf["io"] {
		if e.PID == 0 {
			served = append(served, e)
		} else {
			forwarded = append(forwarded, e)
		}
	}
	want := len(bare.PairStarted) + 1
	if len(forwarded) != want || len(served) != want {
		t.Errorf("%d accesses forwarded, %d served, want %d", len(forwarded), len(served), want)
	}
	n := 0
	for _, ends := range arrows {
		if ends[0].Cat == "io" {
			n++
		}
	}
	if n != want || forwarded[0].Args.Port != "0x3f8" || forwarded[0].Name != "device write" {
		t.Errorf("%d arrows, the first access: %+v", n, forwarded[0])
	}
	for i := range forwarded {
		if forwarded[i].Dur <= served[i].Dur {
			t.Errorf("access %d takes %v µs with its way, %v without", i, forwarded[i].Dur, served[i].Dur)
		}
	}
	bad := p.run(t, "--kernel", pair(t), "--trace", filepath.Join(trace, "x"))
	exit(t, bad, shortly, 1)
	complaint(t, bad, "--trace", "not a directory")
}
