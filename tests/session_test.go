package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/product"
	"coalesce/vmm"
	"coalesce/vmm/latency"
)

// rounds is how often a test of a session's end is done, with the same lender: what is left behind adds up.
const rounds = 2

// freed bounds how long a lender may take to give everything back when its client is gone.
const freed = 3 * time.Second

// TestSpan: a guest on two hosts, from its boot to its power-off, again and again with the same lender.
func TestSpan(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	l := p.lend(t, "--cpus", "1", "--memory", "64M")
	k := script(t, "hello\n", bare.PowerOff)
	for i := range 3 {
		from := l.Stderr.Len()
		c := p.run(t, "--kernel", k, "--memory", "64M", p.borrow("cpus=1,memory=64M"), "--json")
		exit(t, c, shortly, 0)
		awaitFrom(t, l.Stderr, from, shortly, product.SessionOver)
		r, err := product.Report(c)
		if err != nil {
			t.Fatal(err)
		}
		if r.Outcome != vmm.PoweredOff || len(r.Nodes) != 2 || r.Nodes[1].Node != 1 || len(r.Nodes[1].CPUs) != 1 || r.Nodes[1].CPUs[0].APICID != 1 {
			t.Errorf("reported: %+v", r)
		}
		// The link was measured from the client's side, over it whole, and in cycles of its TSC.
		if n := r.Nodes[1]; n.RTT <= 0 || n.RTT > time.Second || n.TSCError == 0 || r.Nodes[0].RTT != 0 {
			t.Errorf("round trip %v, TSC error %d cycles", n.RTT, n.TSCError)
		}
		saw(t, "%d. %s after %v, round trip %v, TSC within %d cycles", i+1, r.Outcome, r.Ran, r.Nodes[1].RTT, r.Nodes[1].TSCError)
	}
	l.Signal(unix.SIGINT)
	exit(t, l.Process, shortly, 0)
}

// TestTwoLenders: a guest of three nodes, whose lenders connect with each other at the client's word; and what the client
// and the one learn when the other is killed.
func TestTwoLenders(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	first := p.lend(t, "--cpus", "1", "--memory", "64M")
	const port = "7412"
	second, err := p.lender.Start(lab.Command{Name: "second", Path: files.Program,
		Args: append([]string{"lend"}, allowed([]string{"--listen", p.ip + ":" + port})...)})
	if err != nil {
		t.Fatal(err)
	}
	await(t, second.Stderr, shortly, "lending")
	lenders := []string{p.borrow("cpus=1,memory=64M"), "--lender", p.ip + ":" + port + ",cpus=1,distance=30"}

	c := p.run(t, append(lenders, "--kernel", script(t, "hello\n", bare.PowerOff), "--memory", "64M", "--json")...)
	exit(t, c, shortly, 0)
	r, err := product.Report(c)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Nodes) != 3 {
		t.Errorf("reported: %+v", r)
	}
	for _, l := range []*lab.Process{first.Process, second} {
		await(t, l.Stderr, shortly, product.SessionOver)
	}

	from := first.Stderr.Len()
	c = p.run(t, append(lenders, "--kernel", pair(t), "--memory", "64M")...)
	await(t, c.Stdout, shortly, bare.PairAlive)
	second.Kill()
	exit(t, c, shortly, 1)
	line := complaint(t, c, "lender "+p.ip+":"+port+" is lost")
	saw(t, "client: %q", line)
	saw(t, "the other lender: %q", awaitFrom(t, first.Stderr, from, shortly, product.SessionEnded))
	if strings.Contains(line, "sent what") {
		t.Errorf("a lender that was killed is blamed: %q", line)
	}
}

// session is a Pair that runs on both hosts.
type session struct {
	*place
	l        *product.Lender
	kernel   string
	baseline lab.Usage // of the lender, between sessions
}

// newSession returns one whose lender has served a client before: by then its program has grown to its size.
func newSession(t *testing.T) *session {
	t.Helper()
	s := &session{place: newPlace(t), kernel: pair(t)}
	s.l = s.lend(t, "--cpus", "1", "--memory", "64M")
	c, from := s.begin(t)
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	awaitFrom(t, s.l.Stderr, from, shortly, product.SessionOver)
	var err error
	if s.baseline, err = s.l.Usage(); err != nil {
		t.Fatal(err)
	}
	return s
}

// begin starts a client and waits until both vCPUs run and share a page. from is a place in the lender's log before it.
func (s *session) begin(t *testing.T) (c *lab.Process, from int) {
	t.Helper()
	from = s.l.Stderr.Len()
	c = s.run(t, "--kernel", s.kernel, "--memory", "64M", s.borrow("cpus=1,memory=64M"))
	await(t, c.Stdout, shortly, bare.PairAlive)
	return c, from
}

// returned waits until the lender holds no more than it did between sessions, and returns how long that took from when
// on.
func (s *session) returned(t *testing.T, when time.Time, limit time.Duration) time.Duration {
	t.Helper()
	for {
		u, err := s.l.Usage()
		if err != nil {
			t.Fatal(err)
		}
		excess := s.excess(&u)
		took := time.Since(when)
		if excess == "" {
			if took > limit {
				t.Errorf("the lender has given everything back only after %v", took)
			}
			return took
		}
		if took > shortly {
			t.Fatalf("%v later the lender still holds %s", took, excess)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// excess says what a process holds beyond the baseline; "" for nothing.
func (s *session) excess(u *lab.Usage) string {
	// A Go program keeps threads for reuse, as many as have been in system calls at once.
	const spareThreads = 8
	if u.Threads > s.baseline.Threads+spareThreads {
		return fmt.Sprintf("%d threads, %d before", u.Threads, s.baseline.Threads)
	}
	if !slices.Equal(u.Files, s.baseline.Files) {
		return fmt.Sprintf("files %q, before %q", u.Files, s.baseline.Files)
	}
	for _, m := range u.Mappings {
		if m.Memfd() || m.Userfault {
			return fmt.Sprintf("memory %q of %d bytes", m.Name, m.Size)
		}
	}
	own := func(m *lab.Mapping) bool { return m.Name == "" || strings.HasPrefix(m.Name, "[") }
	if now, before := u.Resident(own), s.baseline.Resident(own); now > before+8<<20 {
		return fmt.Sprintf("%d KiB of its own memory, %d before", now>>10, before>>10)
	}
	return ""
}

// TestAwake: while a guest spans hosts, both keep their processors out of deep sleep, and no longer.
func TestAwake(t *testing.T) {
	needSpan(t)
	want := 1
	if _, err := os.Stat(latency.Device); errors.Is(err, fs.ErrNotExist) {
		want = 0 // and all else is as it would be with it
	}
	s := newSession(t)
	held := func(p *lab.Process) int {
		t.Helper()
		u, err := p.Usage()
		if err != nil {
			t.Fatal(err)
		}
		return u.Count(latency.Device)
	}
	if n := held(s.l.Process); n != 0 {
		t.Errorf("between sessions the lender has %s open %d times", latency.Device, n)
	}
	c, from := s.begin(t)
	if lender, client := held(s.l.Process), held(c); lender != want || client != want {
		t.Errorf("%s: the lender has it open %d times, the client %d times, want %d", latency.Device, lender, client, want)
	}
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	awaitFrom(t, s.l.Stderr, from, shortly, product.SessionEnded)
	s.returned(t, time.Now(), freed)
	if n := held(s.l.Process); n != 0 {
		t.Errorf("after the session the lender has %s open %d times", latency.Device, n)
	}
	saw(t, "%s is open %d times on each side during the session", latency.Device, want)
}

// TestClientKilled: the lender gives everything back and lends again.
func TestClientKilled(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	for i := range rounds {
		c, from := s.begin(t)
		busy, err := s.l.Usage()
		if err != nil {
			t.Fatal(err)
		}
		if s.excess(&busy) == "" {
			t.Fatal("a session is not seen in what the lender holds")
		}
		c.Kill()
		killed := time.Now()
		exit(t, c, shortly, 128+9)
		line := awaitFrom(t, s.l.Stderr, from, shortly, product.SessionEnded)
		took := s.returned(t, killed, freed)
		saw(t, "%d. with %d threads and %d descriptors in the session; all given back %v after the kill: %q",
			i+1, busy.Threads, len(busy.Files), took.Round(time.Millisecond), line)
	}
	c, _ := s.begin(t)
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
}

// TestClientInterrupted: Ctrl-C at the client ends the session in order.
func TestClientInterrupted(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	for i := range rounds {
		c, from := s.begin(t)
		pressed := time.Now()
		c.Signal(unix.SIGINT)
		exit(t, c, shortly, 1)
		took := time.Since(pressed)
		line := complaint(t, c, "interrupt")
		awaitFrom(t, s.l.Stderr, from, shortly, product.SessionOver)
		s.returned(t, pressed, freed)
		saw(t, "%d. client ended %v after Ctrl-C: %q", i+1, took.Round(time.Millisecond), line)
	}
}

// TestLenderKilled: the client stops with an error that names the lender.
func TestLenderKilled(t *testing.T) {
	needSpan(t)
	for i := range rounds {
		s := newSession(t)
		c, _ := s.begin(t)
		s.l.Kill()
		killed := time.Now()
		exit(t, c, shortly, 1)
		saw(t, "%d. client ended %v after its lender: %q", i+1, time.Since(killed).Round(time.Millisecond),
			complaint(t, c, "lender", s.ip))
	}
}

// TestLenderInterrupted: Ctrl-C at the lender ends the sessions on it, whose clients learn why.
func TestLenderInterrupted(t *testing.T) {
	needSpan(t)
	for i := range rounds {
		s := newSession(t)
		c, _ := s.begin(t)
		s.l.Signal(unix.SIGINT)
		exit(t, s.l.Process, shortly, 0)
		exit(t, c, shortly, 1)
		saw(t, "%d. %q", i+1, complaint(t, c, "lender", s.ip))
	}
}

// TestCableCut: both sides notice that the other is out of reach, and the lender lends again when it is back.
func TestCableCut(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	for i := range rounds {
		c, from := s.begin(t)
		if err := s.wire.Cut(); err != nil {
			t.Fatal(err)
		}
		cut := time.Now()
		exit(t, c, shortly, 1)
		took := time.Since(cut)
		line := complaint(t, c, "lender", s.ip)
		awaitFrom(t, s.l.Stderr, from, shortly, product.SessionEnded)
		lender := s.returned(t, cut, shortly)
		saw(t, "%d. client ended %v after the cut, lender free after %v: %q", i+1,
			took.Round(time.Millisecond), lender.Round(time.Millisecond), line)
		if err := s.wire.Restore(); err != nil {
			t.Fatal(err)
		}
	}
	c, _ := s.begin(t)
	c.Kill()
}

// TestShortOutage: a cable that is mended before anybody gives up costs time and nothing else.
func TestShortOutage(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	c, _ := s.begin(t)
	if err := s.wire.Cut(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if err := s.wire.Restore(); err != nil {
		t.Fatal(err)
	}
	from := c.Stdout.Len()
	for range 3 {
		awaitFrom(t, c.Stdout, from, shortly, bare.PairAlive)
		from = c.Stdout.Len()
	}
	saw(t, "the guest goes on after 300 ms without a cable")
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
}

// TestSlowCable: a guest runs over a link with delay and loss.
func TestSlowCable(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	shape := lab.Shape{Delay: 5 * time.Millisecond, Jitter: time.Millisecond, Loss: 1}
	if err := s.wire.Shape(shape); err != nil {
		if !strings.Contains(err.Error(), lab.ErrNotSupported.Error()) {
			t.Fatal(err)
		}
		saw(t, "skipped: %v", err)
		t.Skip(err)
	}
	c, _ := s.begin(t)
	from := c.Stdout.Len()
	awaitFrom(t, c.Stdout, from, shortly, bare.PairAlive)
	saw(t, "5 ms each way, 1%% lost: both vCPUs run")
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
}

// TestClocksKept: hosts whose clocks run apart are kept together by setting the slower one's guest forward, and the guest
// goes on. Here one only looks as if it did: that is enough to see who is set.
func TestClocksKept(t *testing.T) {
	needLinuxSpan(t)
	for drift, node := range map[string]string{"1000": "node=0", "-1000": "node=1"} {
		p := newPlace(t)
		p.lend(t, "--cpus", "1", "--memory", "64M", "--drift="+drift)
		c := p.run(t, "--log-level", "debug", "--json", "--kernel", pair(t), "--memory", "64M", p.borrow("cpus=1,memory=64M"))
		for range 2 {
			from := c.Stderr.Len()
			line := awaitFrom(t, c.Stderr, from, shortly, "clock set forward")
			saw(t, "lender %s ppm fast: %s", drift, line)
			if !strings.Contains(line, node) {
				t.Errorf("a lender %s ppm fast: %s", drift, line)
			}
			awaitFrom(t, c.Stdout, c.Stdout.Len(), shortly, bare.PairAlive)
		}
		c.Signal(unix.SIGINT)
		exit(t, c, shortly, 1)
	}
}

// TestHungLender: a lender whose process stands still is named, and does not keep the client from ending.
func TestHungLender(t *testing.T) {
	needSpan(t)
	s := newSession(t)
	c, _ := s.begin(t)
	from := c.Stderr.Len()
	s.l.Signal(unix.SIGSTOP)
	saw(t, "%s", awaitFrom(t, c.Stderr, from, shortly, "does not answer"))
	from = c.Stderr.Len()
	s.l.Signal(unix.SIGCONT)
	saw(t, "%s", awaitFrom(t, c.Stderr, from, shortly, "answers again"))
	awaitFrom(t, c.Stdout, c.Stdout.Len(), shortly, bare.PairAlive)

	from = c.Stderr.Len()
	s.l.Signal(unix.SIGSTOP)
	awaitFrom(t, c.Stderr, from, shortly, "does not answer")
	log := s.l.Stderr.Len()
	asked := time.Now()
	c.Signal(unix.SIGINT)
	exit(t, c, shortly, 1)
	took := time.Since(asked)
	saw(t, "interrupted with a hung lender: gone after %v", took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Errorf("the client was gone after %v", took)
	}
	s.l.Signal(unix.SIGCONT)
	awaitFrom(t, s.l.Stderr, log, shortly, product.SessionEnded)
}
