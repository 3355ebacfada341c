package coherence

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm/uffd"
	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/labtest"
	"coalesce/tests/product"
	"coalesce/vcpu/kvm"
	"coalesce/vmm"
	"coalesce/vmm/doctor"
)

var (
	times = flag.Float64("times", 1, "how many times its usual time every part runs")
	seed  = flag.Uint64("seed", 0, "of the vCPUs' random numbers and the lost segments; 0 for a new one")
)

var files product.Files

var saw, within = labtest.Saw, labtest.Within

func TestMain(m *testing.M) {
	flag.Parse()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	os.Exit(func() int {
		// Those that are parallel wait for the network.
		err := flag.Set("test.parallel", strconv.Itoa(atOnce))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if files, err = product.Find(); err == nil {
			err = files.Build(context.Background())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		status := m.Run()
		if err := lenders.close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return status
	}())
}

// machine is what this host is like.
type machine struct {
	khz    uint32 // of the TSC
	shadow bool   // KVM walks guest page tables itself
	lacks  error  // what the tests need and it does not have
	err    error
}

var host = sync.OnceValue(func() (m machine) {
	sys, err := kvm.Open(kvm.Device)
	if errors.Is(err, kvm.ErrNotSupported) {
		return machine{lacks: err}
	} else if err != nil {
		return machine{err: err}
	}
	defer sys.Close()
	if _, err := uffd.Probe(); errors.Is(err, uffd.ErrNotSupported) {
		return machine{lacks: err}
	}
	var found *doctor.ShadowPagingError
	m.shadow = errors.As(doctor.NestedPaging(sys), &found)
	m.khz, m.err = sys.TSCKHz()
	return m
})

// cycles converts a time to TSC cycles.
func cycles(d time.Duration) uint64 { return uint64(d.Seconds() * 1000 * float64(host().khz)) }

// usual is a part's time in cycles, with the flag.
func usual(d time.Duration) uint64 { return cycles(time.Duration(*times * float64(d))) }

// duration converts TSC cycles to time.
func duration(cycles uint64) time.Duration {
	return time.Duration(float64(cycles) / float64(host().khz) * 1e6)
}

// maxTeam is the largest team of the tests.
const maxTeam = 8

// pool is a host with lenders that the tests share, each as many of them as it wants. It is given up when a test fails,
// for what they may be in then.
type pool struct {
	mu      sync.Mutex // guards all below
	lab     *lab.Lab
	host    *lab.Host
	lenders []*lab.Process
}

var lenders pool

// atOnce is how many guests a lender serves at the same time.
const atOnce = 4

func (p *pool) close() (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lab != nil {
		err = p.lab.Close()
	}
	p.lab, p.host, p.lenders = nil, nil, nil
	return err
}

// lenderAddr is where a lender listens, by its number from 1.
func lenderAddr(i int) string { return fmt.Sprintf("127.0.0.1:%d", 7410+i) }

// need returns the host and n lenders, which it starts as far as they do not run.
func (p *pool) need(t *testing.T, n int) (*lab.Host, []*lab.Process) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lab == nil {
		p.lab = lab.New(nil)
		var err error
		if p.host, err = p.lab.AddHost("all"); errors.Is(err, lab.ErrNotSupported) {
			t.Skip(err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	first := len(p.lenders)
	for i := first; i < n; i++ {
		l, err := p.host.Start(lab.Command{Name: fmt.Sprintf("lender %d", i+1), Path: files.Program, Args: allowed("lend",
			"--listen", lenderAddr(i+1), "--cpus", strconv.Itoa(atOnce), "--memory", strconv.Itoa(atOnce*bare.TeamLent>>20))})
		if err != nil {
			t.Fatal(err)
		}
		p.lenders = append(p.lenders, l)
	}
	for _, l := range p.lenders[first:] {
		if _, err := l.Stderr.Await(within(t, time.Minute), "lending"); err != nil {
			t.Fatal(err)
		}
	}
	return p.host, p.lenders[:n]
}

// allowed adds the flag without which a host with shadow paging refuses to take part in a guest on several. Teams do
// not mind: they leave their page tables as they find them.
func allowed(args ...string) []string {
	if host().shadow {
		args = append(args, "--allow-shadow-paging")
	}
	return args
}

// team is a guest's hosts: a client and lenders, behind relays if the path is not the zero one.
type team struct {
	n       int
	host    *lab.Host
	lenders []*lab.Process
	addr    []string // of the lenders
}

// newTeam returns one for the time of the test.
func newTeam(t *testing.T, n int, path lab.Path) *team {
	t.Helper()
	switch m := host(); {
	case m.lacks != nil:
		saw(t, "skipped: %v", m.lacks)
		t.Skip(m.lacks)
	case m.err != nil:
		t.Fatal(m.err)
	}
	p := &team{n: n}
	t.Cleanup(func() {
		if t.Failed() {
			if err := lenders.close(); err != nil {
				t.Error(err)
			}
		}
	})
	p.host, p.lenders = lenders.need(t, n-1)
	if path == (lab.Path{}) {
		for i := range p.lenders {
			p.addr = append(p.addr, lenderAddr(i+1))
		}
		return p
	}
	var relays []*lab.Relay
	t.Cleanup(func() {
		passed, lost := uint64(0), uint64(0)
		for _, r := range relays {
			all, some := r.Segments()
			passed, lost = passed+all, lost+some
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		saw(t, "%d segments, %d of them lost (-seed %d)", passed, lost, *seed)
	})
	for i := range p.lenders {
		path.Seed = *seed + uint64(i)
		r, err := p.host.Relay("127.0.0.1:0", lenderAddr(i+1), path)
		if err != nil {
			t.Fatal(err)
		}
		relays = append(relays, r)
		p.addr = append(p.addr, r.Addr)
	}
	return p
}

// figures are what a team's guest has reported, by name.
type figures map[string][]uint64

// one returns the figure of that name, of which there must be one.
func (f figures) one(t *testing.T, name string) uint64 {
	t.Helper()
	if len(f[name]) != 1 {
		t.Fatalf("%s was reported %d times", name, len(f[name]))
	}
	return f[name][0]
}

// byCPU returns what each vCPU reported.
func (f figures) byCPU(t *testing.T, part, what string, n int) (all []uint64) {
	t.Helper()
	for cpu := range n {
		all = append(all, f.one(t, reportOf(part, what, cpu)))
	}
	return all
}

// failures says what the guest's checks have found, "" for nothing.
func (f figures) failures(n int) string {
	var all []string
	for cpu := range n {
		if count := f[fmt.Sprintf("errors.%d", cpu)]; count != nil {
			first := [4]uint64{}
			for i := range first {
				first[i] = f[fmt.Sprintf("first.%d.%d", cpu, i)][0]
			}
			all = append(all, fmt.Sprintf("vCPU %d: %d errors, the first: %s: at %#x, expected %#x, found %#x", cpu, count[0],
				kinds[first[0]], first[1], first[2], first[3]))
		}
	}
	return strings.Join(all, "\n")
}

// run boots a kernel of these parts and returns what it reported and what the hosts did. A guest that does not end
// within limit fails the test, with all that the processes say about it.
func (p *team) run(t *testing.T, limit time.Duration, parts ...part) (figures, *vmm.Result) {
	t.Helper()
	image, err := kernel(p.n, *seed, parts...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	args := allowed("--kernel", path, "--memory", strconv.Itoa(bare.TeamMemory>>20), "--no-reboot", "--json")
	for _, a := range p.addr {
		args = append(args, "--lender", fmt.Sprintf("%s,cpus=1,memory=%d", a, bare.TeamLent>>20))
	}
	from := make([]int, len(p.lenders))
	for i, l := range p.lenders {
		from[i] = l.Stderr.Len()
	}
	c, err := files.Run(p.host, lab.Command{Name: "client"}, args...)
	if err != nil {
		t.Fatal(err)
	}
	e, err := c.Wait(within(t, limit))
	if err != nil {
		p.evidence(t, c)
		t.Fatal(err)
	}
	f := figures{}
	for line := range strings.Lines(c.Stdout.String()) {
		name, number, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		v, err := strconv.ParseUint(number, 16, 64)
		if err != nil {
			t.Errorf("the guest said %q", line)
		}
		f[name] = append(f[name], v)
	}
	if e.Status != 0 || f[bare.TeamDone] == nil {
		for i, l := range p.lenders {
			t.Logf("%s said:\n%s", l.Command.Name, l.Stderr.String()[from[i]:])
		}
		t.Fatalf("the client ended with %v; its last lines:\n%s\n%s", e, c.Stdout.Tail(20), c.Stderr.Tail(20))
	}
	r, err := product.Report(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Nodes) != p.n {
		t.Errorf("%d nodes have reported: %s", len(r.Nodes), c.Stderr)
	}
	return f, r
}

// evidence shows what a guest that does not end, and its hosts, are doing.
func (p *team) evidence(t *testing.T, c *lab.Process) {
	t.Helper()
	all := append(slices.Clone(p.lenders), c)
	from := make([]int, len(all))
	for i, p := range all {
		from[i] = p.Stderr.Len()
		p.Signal(unix.SIGUSR1)
	}
	for i, p := range all {
		// The last line of what SIGUSR1 makes it write; a lender that has no session writes nothing.
		if _, err := p.Stderr.AwaitFrom(within(t, 5*time.Second), from[i], "hottest"); err != nil {
			t.Logf("%s: %v", p.Command.Name, err)
		}
		t.Logf("%s said:\n%s%s", p.Command.Name, p.Stdout.Tail(20), p.Stderr.String()[min(from[i], len(p.Stderr.String())):])
	}
}

// summary describes what the hosts did.
func summary(r *vmm.Result) string {
	var pages, changed, known, tokens, bytes uint64
	p50, p99, transfer := int64(0), int64(0), int64(0)
	rtt := time.Duration(0)
	for _, n := range r.Nodes {
		m := &n.Memory
		pages, changed, known = pages+m.PagesIn, changed+m.PagesChanged, known+m.PagesKnown
		tokens, bytes = tokens+m.TokenRequests, bytes+m.BytesOut
		p50, p99, transfer = max(p50, m.LatencyP50), max(p99, m.LatencyP99), max(transfer, m.Transfer)
		rtt = max(rtt, n.RTT)
	}
	us := func(n int64) time.Duration { return time.Duration(n) * time.Microsecond }
	return fmt.Sprintf("%.1f s, %d pages moved (%d as changes, %d known), %d KiB, request to page p50 %v p99 %v, mean %v, "+
		"round trip %v, token asked for %d times", r.Ran.Seconds(), pages, changed, known, bytes>>10, us(p50), us(p99),
		us(transfer), rtt.Round(time.Microsecond), tokens)
}

// laps describes what each vCPU did in a part, and fails if one did nothing.
func laps(t *testing.T, f figures, name string, n int) string {
	t.Helper()
	all := f.byCPU(t, name, "laps", n)
	longest := slices.Max(f.byCPU(t, name, "longest", n))
	sum := uint64(0)
	for _, v := range all {
		sum += v
	}
	if slices.Min(all) == 0 {
		t.Errorf("%s: a vCPU did nothing: %v", name, all)
	}
	return fmt.Sprintf("%s: %d in all, %d to %d on each vCPU, the longest %v", name, sum, slices.Min(all), slices.Max(all),
		duration(longest).Round(time.Microsecond))
}
