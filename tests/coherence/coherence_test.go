package coherence

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"coalesce/tests/bare"
	"coalesce/tests/lab"
)

// forever bounds hangs and nothing else: an emulated machine on a busy host is a hundred times slower than a real one.
const forever = 3 * time.Minute

// link is how a team's messages travel, and what follows from it for the parts.
type link struct {
	name string
	path lab.Path
	// transfer is about what a page takes from host to host.
	transfer time.Duration
	scale    float64 // of all times
	pages    int     // that storms rage over
	slots    int     // instances of a batch of litmus tests
}

// retransmission is how long TCP waits before it sends a lone segment again (TCP_RTO_MIN), besides the round trip.
const retransmission = 200 * time.Millisecond

var (
	direct = link{"direct", lab.Path{}, 200 * time.Microsecond, 1, 48, maxSlots}
	near   = link{"1 ms", lab.Path{Delay: time.Millisecond}, 4 * time.Millisecond, 1, 24, 4}
	lossy  = link{"1 ms, 1 % lost", lab.Path{Delay: time.Millisecond, Loss: 0.01, Stall: retransmission}, 4 * time.Millisecond, 1, 16, 4}
	far    = link{"20 ms", lab.Path{Delay: 20 * time.Millisecond}, 80 * time.Millisecond, 2, 8, 2}
)

// time is a part's time in cycles.
func (l *link) time(d time.Duration) uint64 { return usual(time.Duration(l.scale * float64(d))) }

// contention are parts in which all fight over memory.
func (l *link) contention() []part {
	return []part{
		counters("counter", l.time(400*time.Millisecond), false), counters("split", l.time(500*time.Millisecond), true),
		fetch("fetch", l.time(600*time.Millisecond), false), storm("storm", l.pages, l.time(time.Second), false),
	}
}

// TestContention: counters, split locks, code that is rewritten and storms, on 2, 4 and 8 hosts.
func TestContention(t *testing.T) {
	for _, n := range []int{2, 4, maxTeam} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { checkContention(t, n, &direct) })
	}
}

func checkContention(t *testing.T, n int, l *link) {
	t.Helper()
	f, r := newTeam(t, n, l.path).run(t, forever, l.contention()...)
	for _, name := range []string{"counter", "split", "fetch", "storm"} {
		saw(t, "%s", laps(t, f, name, n))
	}
	saw(t, "%d versions of code, %d blocks changed under locks; %s", f.one(t, "fetch.versions"), f.one(t, "storm.blocks"), summary(r))
	if bad := f.failures(n); bad != "" {
		t.Error(bad)
	}
}

// TestScan: who reads through memory sees what another host writes there meanwhile, also what was asked for ahead.
func TestScan(t *testing.T) {
	for _, n := range []int{2, 3} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { checkScan(t, n, &direct) })
	}
	t.Run(near.name, func(t *testing.T) { checkScan(t, 3, &near) })
}

func checkScan(t *testing.T, n int, l *link) {
	t.Helper()
	const pages = 400
	f, r := newTeam(t, n, l.path).run(t, forever, scan("scan", pages, l.time(1500*time.Millisecond), cycles(20*time.Millisecond), false))
	saw(t, "%s", laps(t, f, "scan", n))
	asked, used := uint64(0), uint64(0)
	for _, node := range r.Nodes {
		asked += node.Memory.Prefetched
		used += node.Memory.PrefetchUsed
	}
	saw(t, "%d pages asked for ahead, of which %d are known to be used; %s", asked, used, summary(r))
	if asked < pages {
		t.Errorf("%d pages were asked for ahead", asked)
	}
	if bad := f.failures(n); bad != "" {
		t.Error(bad)
	}
}

// litmus are the shapes for so long each, as far as there are vCPUs enough; those of more than two vCPUs have fewer
// instances at a time and run longer.
func (l *link) litmus(n int, each, pace time.Duration, shapes []shape) (runs []shape, program part) {
	for _, s := range shapes {
		if len(s.threads) <= n {
			runs = append(runs, s)
		}
	}
	return runs, func(t *bare.Team) {
		bySize := map[int]*groups{}
		for _, s := range runs {
			size := len(s.threads)
			if bySize[size] == nil {
				bySize[size] = newGroups(t, size, l.slots)
			}
			t.Barrier()
			bySize[size].litmus(s, l.time(each*time.Duration(size*size/4)), cycles(pace))(t)
		}
	}
}

// found is what a team has seen of a shape.
type found struct {
	count     [verdicts]uint64
	batches   uint64
	late      time.Duration
	different int
	text      string
	worst     []string // outcomes that x86 forbids, or foreign ones
}

func litmusFound(t *testing.T, f figures, s *shape) (x found) {
	t.Helper()
	for v := range verdicts {
		x.count[v] = f.one(t, s.reportName(v.String()))
	}
	x.batches = f.one(t, s.reportName("batches"))
	x.late = duration(f.one(t, s.reportName("late")))
	all := f[s.reportName("outcome")]
	x.different = len(all)
	judge := s.judge()
	var count [verdicts]uint64
	for _, o := range all {
		outcome, times := int(o>>outcomeShift), o&(1<<outcomeShift-1)
		v := verdict(judge[outcome])
		count[v] += times
		if v >= forbidden {
			x.worst = append(x.worst, fmt.Sprintf("%s: %s, %d times", v, s.describe(outcome), times))
		}
	}
	if count != x.count {
		t.Errorf("%s: the guest's verdicts are %v, the outcomes' %v", s.name, x.count, count)
	}
	x.text = fmt.Sprintf("%-10s %5d instances in %3d batches, %2d different outcomes, forbidden %d, foreign %d, over %v late",
		s.name, x.count[ordered]+x.count[relaxed]+x.count[forbidden]+x.count[alien], x.batches, x.different, x.count[forbidden], x.count[alien], x.late.Round(time.Millisecond))
	if !s.forbidden {
		x.text += fmt.Sprintf("; %s %d times, which x86 allows", s.relaxed, x.count[relaxed])
	}
	return x
}

func checkLitmus(t *testing.T, n int, l *link, shapes []shape) {
	t.Helper()
	runs, program := l.litmus(n, 350*time.Millisecond, l.transfer, shapes)
	f, r := newTeam(t, n, l.path).run(t, forever, program)
	for i := range runs {
		x := litmusFound(t, f, &runs[i])
		saw(t, "%s", x.text)
		for _, bad := range x.worst {
			t.Errorf("%s: %s", runs[i].name, bad)
		}
	}
	for _, s := range shapes {
		if len(s.threads) > n {
			saw(t, "%s takes %d vCPUs", s.name, len(s.threads))
		}
	}
	saw(t, "%s", summary(r))
	if bad := f.failures(n); bad != "" {
		t.Error(bad)
	}
}

// TestLitmus: the outcomes are those of x86, on 2, 4 and 8 hosts.
func TestLitmus(t *testing.T) {
	for _, n := range []int{2, 4, maxTeam} {
		t.Run(strconv.Itoa(n), func(t *testing.T) { checkLitmus(t, n, &direct, shapes) })
	}
}

// TestLitmusSeesDisorder: programs that do by themselves what the shapes forbid are found out.
func TestLitmusSeesDisorder(t *testing.T) {
	var broken []shape
	for _, s := range shapes {
		broken = append(broken, s.reordered())
	}
	// The gaps are longer than a vCPU waits for a processor.
	slow := direct
	slow.slots = 4
	runs, program := slow.litmus(4, 400*time.Millisecond, 24*time.Millisecond, broken)
	f, _ := newTeam(t, 4, direct.path).run(t, forever, program)
	for i := range runs {
		s := &runs[i]
		x := litmusFound(t, f, s)
		v := relaxed
		if s.forbidden {
			v = forbidden
		}
		saw(t, "%-21s %s %d times", s.name, s.relaxed, x.count[v])
		if x.count[v] == 0 {
			t.Errorf("%s: not seen: %s", s.name, s.relaxed)
		}
	}
}

// TestChecksSee: the other parts' checks find out programs that are wrong.
func TestChecksSee(t *testing.T) {
	p := newTeam(t, 2, direct.path)
	d := cycles(300 * time.Millisecond)
	for _, tt := range []struct {
		name string
		part part
		want []uint64
	}{
		{"a counter that is read, then written", looseCounter("counter", d), []uint64{counterTotal, counterSum}},
		{"code that is announced before it is written", fetch("fetch", d, true), []uint64{fetchStale}},
		{"a lock that locks nobody out", storm("storm", 4, d, true), []uint64{stormBlock, stormLock}},
		{"words that are written in the wrong order", scan("scan", 16, d, 0, true), []uint64{scanOrder}},
	} {
		f, _ := p.run(t, forever, tt.part)
		var got []uint64
		for cpu := range p.n {
			got = append(got, f[fmt.Sprintf("first.%d.0", cpu)]...)
		}
		if !slices.ContainsFunc(got, func(kind uint64) bool { return slices.Contains(tt.want, kind) }) {
			t.Errorf("%s: found %d", tt.name, got)
		}
		saw(t, "%s: %s", tt.name, f.failures(p.n))
	}
}

// TestLinks: the same over links with delay and loss, both at once.
func TestLinks(t *testing.T) {
	for _, l := range []*link{&near, &lossy} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			checkContention(t, 4, l)
			checkLitmus(t, 4, l, shapes)
		})
	}
}

// TestFar: the same over links so long that nobody is busy: all at once.
func TestFar(t *testing.T) {
	t.Run("contention", func(t *testing.T) {
		t.Parallel()
		checkContention(t, 4, &far)
	})
	t.Run("litmus", func(t *testing.T) {
		t.Parallel()
		n := 2
		if *times >= 2 { // minutes
			n = 4
		}
		checkLitmus(t, n, &far, shapes)
	})
	t.Run("progress", func(t *testing.T) {
		t.Parallel()
		checkProgress(t, &far)
	})
}

// TestProgress: an instruction that needs many pages at once ends, however many vCPUs fight over them.
func TestProgress(t *testing.T) { checkProgress(t, &direct) }

// checkProgress compares how long instructions took with what the progress token is to see to: the token's waiters times
// its tenure, and for each page a hold of every host and three messages. What comes on top of that, and still passes, is
// what the token's rule and the host add: a vCPU asks for it only after it has fetched some pages again, and a busy host
// keeps threads waiting.
func checkProgress(t *testing.T, l *link) {
	t.Helper()
	const n = 4
	const again = 4 // robberies, in dsm/token.go
	tables := !host().shadow
	f, r := newTeam(t, n, l.path).run(t, forever, movs("movs", tables, l.time(2*time.Second), cycles(4*l.transfer)))
	pages, why := movsPages+movsTables+1, "6 that the instruction touches, 18 tables and a root that processors walk to them"
	if !tables {
		pages, why = movsPages, "those that the instruction touches; KVM walks the page tables here, which no host writes to"
	}
	all := f.byCPU(t, "movs", "laps", n)
	longest := duration(slices.Max(f.byCPU(t, "movs", "instruction", n)))
	spent, done := uint64(0), uint64(0)
	for cpu, took := range f.byCPU(t, "movs", "spent", n) {
		spent, done = spent+took, done+all[cpu]
	}
	if slices.Min(all) == 0 {
		t.Errorf("a vCPU has executed none: %v", all)
	}
	// The hold's limit, and what three messages take: the mean of transfers, or of the link.
	var hold, trip time.Duration
	for _, node := range r.Nodes {
		hold = max(hold, time.Duration(node.Memory.Hold)*time.Microsecond)
		trip = max(trip, time.Duration(node.Memory.Transfer)*time.Microsecond, node.RTT*3/2)
	}
	// A thread may wait for a processor as long as a vCPU did that only ran.
	stalled := duration(slices.Max(f.byCPU(t, "movs", "stalled", n)))
	bound := func(pages, more, trip time.Duration) time.Duration {
		// The token's holder is the first in every queue: it waits for one hold.
		tenure := pages * (hold + trip)
		return (n-1)*tenure + (pages+more)*(n*hold+trip)
	}
	due := bound(time.Duration(pages), 0, trip)
	limit := bound(time.Duration(pages), again, trip+stalled)
	saw(t, "%d pages (%s)", pages, why)
	saw(t, "%d instructions, %d to %d on each vCPU, %v on average", done, slices.Min(all), slices.Max(all),
		duration(spent/max(done, 1)).Round(time.Microsecond))
	saw(t, "the longest %v; %d waiters x %d pages x (hold %v + 3 ways %v) + %d pages x (%d x hold + 3 ways) = %v; limit %v, with %d pages "+
		"fetched again before the token is asked for and %v that the host kept a vCPU from running", longest.Round(time.Microsecond),
		n-1, pages, hold, trip, pages, n, due.Round(time.Microsecond), limit.Round(time.Microsecond), again, stalled.Round(time.Microsecond))
	saw(t, "%s", summary(r))
	if longest > limit {
		t.Errorf("an instruction took %v, more than %v", longest, limit)
	}
	if bad := f.failures(n); bad != "" {
		t.Error(bad)
	}
}

// TestVerdicts: what outcomes mean.
func TestVerdicts(t *testing.T) {
	byName := map[string]*shape{}
	for i := range shapes {
		byName[shapes[i].name] = &shapes[i]
	}
	for _, tt := range []struct {
		shape string
		want  map[string]verdict
	}{
		{"SB", map[string]verdict{"0a=0 1a=0 x=1 y=1": relaxed, "0a=1 1a=0 x=1 y=1": ordered, "0a=1 1a=2 x=1 y=1": alien, "0a=0 1a=1 x=0 y=1": alien}},
		{"SB+mfences", map[string]verdict{"0a=0 1a=0 x=1 y=1": forbidden, "0a=1 1a=1 x=1 y=1": ordered}},
		{"MP", map[string]verdict{"1a=1 1b=0 x=1 y=1": forbidden, "1a=0 1b=1 x=1 y=1": ordered, "1a=3 1b=0 x=1 y=1": alien}},
		{"LB", map[string]verdict{"0a=1 1a=1 x=1 y=1": forbidden, "0a=0 1a=1 x=1 y=1": ordered}},
		{"S", map[string]verdict{"1a=1 x=2 y=1": forbidden, "1a=1 x=1 y=1": ordered, "1a=0 x=2 y=1": ordered}},
		{"R", map[string]verdict{"1a=0 x=1 y=2": relaxed, "1a=1 x=1 y=2": ordered, "1a=0 x=1 y=1": ordered, "1a=0 x=2 y=2": alien}},
		{"R+mfences", map[string]verdict{"1a=0 x=1 y=2": forbidden}},
		{"2+2W", map[string]verdict{"x=1 y=1": forbidden, "x=2 y=1": ordered, "x=1 y=2": ordered, "x=2 y=2": ordered, "x=3 y=1": alien}},
		{"IRIW", map[string]verdict{"2a=1 2b=0 3a=1 3b=0 x=1 y=1": forbidden, "2a=1 2b=0 3a=1 3b=1 x=1 y=1": ordered}},
	} {
		s := byName[tt.shape]
		judge, found := s.judge(), 0
		for outcome := range 1 << (2 * len(s.observations())) {
			if want, ok := tt.want[s.describe(outcome)]; ok {
				found++
				if got := verdict(judge[outcome]); got != want {
					t.Errorf("%s: %s is %v, want %v", s.name, s.describe(outcome), got, want)
				}
			}
		}
		if found != len(tt.want) {
			t.Errorf("%s: %d of %d outcomes exist", s.name, found, len(tt.want))
		}
	}
}
