package sim

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	_ "embed"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"coalesce/dsm"
)

var (
	oneSeed = flag.Uint64("seed", 0, "the seed that TestOneSeed runs")
	words   = flag.String("events", "", "file that takes the events of TestOneSeed's run, in words")
	freshly = flag.Duration("for", 22*time.Second, "how long TestFreshSeeds runs, without simulated locks and with")
)

// period is how long fresh seeds are run.
func period() time.Duration {
	if testing.Short() {
		return min(*freshly, 3*time.Second)
	}
	return *freshly
}

// seeds are those that ever failed, one a line, with what they found.
//
//go:embed testdata/seeds
var seeds string

func TestMain(m *testing.M) {
	flag.Parse()
	runtime.GOMAXPROCS(1) // a run is one thread; the garbage collector need not be beside it
	os.Exit(m.Run())
}

// TestOneSeed runs the seed that is asked for.
func TestOneSeed(t *testing.T) {
	if *oneSeed == 0 {
		t.Log("no -seed given")
		return
	}
	var out io.Writer
	if *words != "" {
		f, err := os.Create(*words)
		if err != nil {
			t.Fatal(err)
		}
		w := bufio.NewWriter(f)
		defer func() {
			if err := w.Flush(); err != nil {
				t.Error(err)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}()
		out = w
	}
	sc := NewScenario(*oneSeed)
	t.Log(&sc)
	r, err := Run(sc, out)
	t.Log(&r)
	if err != nil {
		t.Error(err)
	}
}

// TestKnownSeeds runs every seed that ever failed.
func TestKnownSeeds(t *testing.T) {
	for line := range strings.Lines(seeds) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		number, found, _ := strings.Cut(line, " ")
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("testdata/seeds: %q: %v", line, err)
		}
		t.Run(number, func(t *testing.T) {
			if !runSeed(t, seed, new(totals)) {
				t.Errorf("it has failed before: %s", strings.TrimSpace(found))
			}
		})
	}
}

// TestFreshSeeds runs seeds that nobody has run before, for some time.
func TestFreshSeeds(t *testing.T) {
	var sum totals
	for deadline := time.Now().Add(period()); time.Now().Before(deadline); {
		if !runSeed(t, rand.Uint64N(1e12), &sum) {
			break
		}
	}
	t.Log(&sum)
}

// runSeed runs a seed. If it fails it says how to run it again, and how it came.
func runSeed(t *testing.T, seed uint64, sum *totals) bool {
	t.Helper()
	sc := NewScenario(seed)
	late := time.AfterFunc(5*time.Second, func() { fmt.Printf("seed %d still runs\n", seed) })
	r, err := Run(sc, nil)
	late.Stop()
	sum.add(&sc, &r)
	if err == nil {
		return true
	}
	t.Errorf("%v\n%v", err, &sc)
	var last tail
	if _, again := Run(sc, &last); again == nil || again.Error() != err.Error() {
		t.Errorf("it is not the same when it is run again: %v", again)
	}
	tags := ""
	if locks {
		tags = "-tags simulated "
	}
	t.Logf("the last events (all: go test %s./dsm/sim -run TestOneSeed -seed %d -events FILE):\n%s", tags, seed, last.text)
	return false
}

// tail keeps the end of what is written to it.
type tail struct{ text []byte }

func (t *tail) Write(b []byte) (int, error) {
	const kept = 16 << 10
	t.text = append(t.text, b...)
	if len(t.text) > 4*kept {
		rest := t.text[len(t.text)-kept:]
		t.text = append(t.text[:0], rest[bytes.IndexByte(rest, '\n')+1:]...)
	}
	return len(b), nil
}

// totals are what several runs came to.
type totals struct {
	runs, crashes           int
	time                    time.Duration
	events, instructions    uint64
	faults, frames          uint64
	wait, wide, pin         time.Duration
	share                   float64
	stats                   dsm.Stats
	nodes, vcpus, mostPages int
}

func (s *totals) add(sc *Scenario, r *Result) {
	s.runs++
	if sc.Crash != nil {
		s.crashes++
	}
	s.time += r.Time
	s.events += r.Events
	s.instructions += r.Instructions
	s.faults += r.Faults
	s.frames += r.Frames
	s.wait, s.wide, s.pin, s.share = max(s.wait, r.MaxWait), max(s.wide, r.MaxWide), max(s.pin, r.MaxPin), max(s.share, r.Share)
	s.nodes, s.vcpus, s.mostPages = max(s.nodes, len(sc.Nodes)), max(s.vcpus, sc.VCPUs()), max(s.mostPages, sc.Pages())
	s.stats.PagesIn += r.Stats.PagesIn
	s.stats.PagesChanged += r.Stats.PagesChanged
	s.stats.PagesKnown += r.Stats.PagesKnown
	s.stats.Upgrades += r.Stats.Upgrades
	s.stats.Prefetched += r.Stats.Prefetched
	s.stats.PrefetchUsed += r.Stats.PrefetchUsed
	s.stats.Deferred += r.Stats.Deferred
	s.stats.Pins += r.Stats.Pins
	s.stats.TokenGrants += r.Stats.TokenGrants
}

func (s *totals) String() string {
	return fmt.Sprintf(`%d seeds, %d of them with a node that dies; up to %d nodes, %d vCPUs, %d pages
%v of virtual time, %d events, %d instructions, %d userfaults, %d frames
%d pages moved (%d as changes, %d without content, %d asked for ahead of scans, of which %d are known to be used), %d upgrades, %d commands deferred, %d pins, the token granted %d times
longest: an instruction %v, one of several pages %v, a pin %v; at most %.1f %% of the bound`,
		s.runs, s.crashes, s.nodes, s.vcpus, s.mostPages,
		s.time.Round(time.Millisecond), s.events, s.instructions, s.faults, s.frames,
		s.stats.PagesIn, s.stats.PagesChanged, s.stats.PagesKnown, s.stats.Prefetched, s.stats.PrefetchUsed, s.stats.Upgrades, s.stats.Deferred, s.stats.Pins, s.stats.TokenGrants,
		s.wait.Round(time.Millisecond), s.wide.Round(time.Millisecond), s.pin.Round(time.Millisecond), 100*s.share)
}

// TestSeedDecidesAll runs seeds twice: all that happens is the same.
func TestSeedDecidesAll(t *testing.T) {
	first := rand.Uint64N(1e12)
	for seed := first; seed < first+3; seed++ {
		var sums [2][]byte
		for i := range sums {
			h := sha256.New()
			sc := NewScenario(seed)
			sc.Work = min(sc.Work, 5_000)
			if _, err := Run(sc, h); err != nil {
				t.Fatal(err)
			}
			sums[i] = h.Sum(nil)
		}
		if !bytes.Equal(sums[0], sums[1]) {
			t.Errorf("two runs of seed %d differ", seed)
		}
	}
}
