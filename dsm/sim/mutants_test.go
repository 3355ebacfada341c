package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is the engine with one mistake, which a simulation has to notice. The
// text right occurs once in the file; MUTANT in what stands for it is true while
// the mutant runs.
type mutant struct {
	name, file, right, wrong string
	// noticed is part of what the simulation says of it.
	noticed string
}

var mutants = []mutant{
	{"a device that is done does not flush", "pin.go",
		`defer e.flush() //`,
		`if !MUTANT { defer e.flush() } //`,
		"nobody is about to send"},
	{"the end of a streak is not flushed", "streaks.go",
		`	t.engine.flush()`,
		`	if !MUTANT { t.engine.flush() }`,
		"nobody is about to send"},
	{"one peer is forgotten by every flush", "outbox.go",
		`if o == nil || !o.pending.Load() {`,
		`if o == nil || !o.pending.Load() || MUTANT && i == 1 {`,
		"nobody is about to send"},
	{"a page is sent and nobody told of it", "outbox.go",
		`	o.pending.Store(true)
	e.stats.pagesOut.Add(1)`,
		`	if !MUTANT { o.pending.Store(true) }
	e.stats.pagesOut.Add(1)`,
		"are not sent"},
	{"a full frame is not sent", "outbox.go",
		`if len(o.buf)+maxMessage <= frameSize {`,
		`if len(o.buf)+maxMessage <= frameSize || MUTANT {`,
		"slice bounds out of range"},
	{"an errand waits for the next one", "errands.go",
		`	q.pending.Store(true)`,
		`	if !MUTANT { q.pending.Store(true) }`,
		"errands are not run"},
	{"a twin is not taken anew", "content.go",
		`	if t.of[slot] != page {
		slot =`,
		`	if t.of[slot] == page && MUTANT { return slot }
	if t.of[slot] != page {
		slot =`,
		"is wrong"},
	{"a page's last word is not compared", "content.go",
		`	for w := 0; w < pageWords; {`,
		`	for w := 0; w < either(MUTANT, pageWords-1, pageWords); {`,
		"is wrong"},
	{"a new version keeps the old one's holders", "content.go",
		`		l.Holders = 0`,
		`		if !MUTANT { l.Holders = 0 }`,
		"here is version"},
	{"a node counts as holder of what it never had", "content.go",
		`Holders: holders.With(from)`,
		`Holders: either(MUTANT, holders.With((from+1)%2), holders).With(from)`,
		"here is version"},
	{"the token is not given back at the end of a streak", "streaks.go",
		`	e.errands.add(&x)`,
		`	if !MUTANT { e.errands.add(&x) }`,
		""},
	{"the token stays with a vCPU that halts", "streaks.go",
		`t.idle.Load() || t.faults`,
		`!MUTANT && t.idle.Load() || t.faults`,
		""},
	{"the token's holder gives its pages away", "streaks.go",
		`	return t.streak.Holding() && t.seen`,
		`	return !MUTANT && t.streak.Holding() && t.seen`,
		"has fetched and not used"},
	{"a hold is never over", "hold.go",
		`	if i == len(q.sorted)-1 {`,
		`	if i == len(q.sorted)-1 && !MUTANT {`,
		""},
	{"a hold that is looked at in vain is forgotten", "hold.go",
		`	if _, err := e.stepLocked(r, page, Event{Kind: EvRelease,`,
		`	if MUTANT && e.held(en, page) { return nil }
	if _, err := e.stepLocked(r, page, Event{Kind: EvRelease,`,
		"nobody looks at the deferred command"},
	{"a hold is looked at hours later", "region.go",
		`	return min(en.heldUntil, t+wait)`,
		`	return either(MUTANT, t+1e14, min(en.heldUntil, t+wait))`,
		"after the end of its hold"},
	{"pins that wait are not looked at when their page comes", "peers.go",
		`	return e.retryPinsLocked(r, m.Page)`,
		`	if MUTANT { return nil }
	return e.retryPinsLocked(r, m.Page)`,
		""},
	{"a region that others ask for stays ordinary memory", "region.go",
		`	if r.armed {`,
		`	if r.armed || MUTANT {`,
		""},
	{"a page is read while it can be written", "region.go",
		`return e.wrap("write-protect", page, e.host.WriteProtect(page, 1))`,
		`return e.wrap("write-protect", page, either(MUTANT, e.host.Wake, e.host.WriteProtect)(page, 1))`,
		"may write"},
	{"a fault maps neighbours that others have too", "region.go",
		`		return r.pages[p%RegionPages].page.Access == Modified
	}
	for first`,
		`		a := r.pages[p%RegionPages].page.Access
		return a == Modified || MUTANT && a != Invalid
	}
	for first`,
		"may write"},
	{"a page whose mapping was put off is not mapped", "region.go",
		`			continue // the address space is changing`,
		`			if MUTANT { return nil }
			continue // the address space is changing`,
		""},
	{"a page is read before it is taken from the vCPUs", "region.go",
		`		for _, a := range s.out.All() {`,
		`		if acts := s.out.All(); MUTANT && len(acts) > 1 && (acts[0].Op == OpZap || acts[0].Op == OpProtect) {
			acts[0], acts[1] = acts[1], acts[0]
		}
		for _, a := range s.out.All() {`,
		"is wrong"},
	{"a twin is taken when the page can be written", "region.go",
		`		e.writable(en, page)
		e.installed(en, true)`,
		`		if MUTANT {
			defer e.writable(en, page)
		} else {
			e.writable(en, page)
		}
		e.installed(en, true)`,
		""},
	{"a page is mapped before it has its content", "region.go",
		`		if err := c.apply(`,
		`		if MUTANT {
			defer c.apply(e.host.Alias(page, 1), en.lineage.Version)
		} else if err := c.apply(`,
		"is wrong"},
	{"held pages are looked at without their lock", "hold.go",
		`	r.mu.Lock()
	defer r.mu.Unlock()
	en :=`,
		`	if !MUTANT {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	en :=`,
		""},
	{"an outbox is emptied without its lock", "outbox.go",
		`		o.mu.Lock()
		err := o.flushLocked(e)
		o.mu.Unlock()`,
		`		if !MUTANT { o.mu.Lock() }
		err := o.flushLocked(e)
		if !MUTANT { o.mu.Unlock() }`,
		""},
	{"a page that nobody waited for is held", "region.go",
		`		en.heldUntil = 0`,
		`		en.heldUntil = either(MUTANT, t+e.hold.limit(), 0)`,
		"held, and nobody waited for it"},
	{"a page that was asked for ahead counts as on its way for ever", "prefetch.go",
		`		n := p.inFlight.Add(-1)`,
		`		n := p.inFlight.Add(either(MUTANT, int32(0), -1))`,
		"on their way ahead of vCPUs"},
	{"a page that somebody waits for is not mapped, since it was asked for ahead", "prefetch.go",
		`	a.mark = false
	if waited`,
		`	a.mark = MUTANT && a.mark
	if waited`,
		""},
	{"pages ahead of a vCPU are taken from their writers", "prefetch.go",
		`Event{Kind: EvFetch}`,
		`Event{Kind: EvFetch, Write: MUTANT}`,
		"ahead of a vCPU"},
	{"a stream asks for ever more", "stream.go",
		`min(s.depth, limit)`,
		`either(MUTANT, 8*s.depth, min(s.depth, limit))`,
		"are asked for ahead of page"},
	{"a stream goes on where its vCPU does not", "stream.go",
		`	return s.depth - asked`,
		`	return either(MUTANT, limit, s.depth-asked)`,
		"are asked for ahead of page"},
	{"a stream goes on beyond the memory's end", "prefetch.go",
		`	if page >= uint32(e.host.Pages()) {`,
		`	if page >= uint32(e.host.Pages()) && !MUTANT {`,
		"panic"},
	{"a vCPU that waits when the session ends is forgotten", "streaks.go",
		`	if t.engine.Err() != nil {
		t.stall`,
		`	if t.engine.Err() != nil && !MUTANT {
		t.stall`,
		"after the session's end"},
	{"a vCPU is not told that it may write its page", "region.go",
		`		err := e.host.Unprotect(page, 1)
		e.arrived(page)`,
		`		err := e.host.Unprotect(page, 1)
		if !MUTANT { e.arrived(page) }`,
		""},
	{"vCPUs are not told of the session's end", "engine.go",
		`	e.arrived(noPage) //`,
		`	if !MUTANT { e.arrived(noPage) } //`,
		"after the session's end"},
	{"a node whose session fails does not say why", "engine.go",
		`!errors.Is(why, ErrClosed) {`,
		`!errors.Is(why, ErrClosed) && !MUTANT {`,
		"died, and the session of node"},
}

var (
	mutantFlag = flag.String("mutant", "", "for TestMutants: run seeds until this mutant is noticed")
	patience   = flag.Int("seeds", 150, "for TestMutants: how many seeds a mutant may pass")
)

// TestMutant runs seeds on a mutant until one fails. It is for TestMutants, which
// makes the program that it runs in.
func TestMutant(t *testing.T) {
	if *mutantFlag == "" {
		t.Log("no -mutant given")
		return
	}
	for seed := range uint64(*patience) {
		sc := NewScenario(1 + seed)
		sc.Work = min(sc.Work, 10_000)
		if err := runMutant(sc); err != nil {
			fmt.Printf("noticed: after %d seeds: %v\n", seed+1, err)
			return
		}
	}
	fmt.Println("not noticed")
}

// runMutant counts a mutant's panic as noticed.
func runMutant(sc Scenario) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	_, err = Run(sc, nil)
	return err
}

// TestMutants shows that mistakes in the engine are noticed. They are all in one
// program, each behind a switch.
func TestMutants(t *testing.T) {
	program, err := buildMutants(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), program, "-test.run", "^TestMutant$", "-mutant", m.name)
			cmd.Env = append(os.Environ(), "DSM_MUTANT="+m.name)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			said, _, _ := strings.Cut(string(out), "\n")
			if !strings.HasPrefix(said, "noticed: ") || !strings.Contains(said, m.noticed) {
				t.Errorf("%s; want %q", said, m.noticed)
			}
			t.Log(said)
		})
	}
}

// buildMutants builds this package's tests with an engine that can be any of the
// mutants.
func buildMutants(dir string) (program string, err error) {
	dsm, err := filepath.Abs("..")
	if err != nil {
		return "", err
	}
	texts := map[string]string{filepath.Join(dsm, "mutant.go"): `package dsm

import "os"

var mutant = os.Getenv("DSM_MUTANT")

func either[T any](m bool, wrong, right T) T {
	if m {
		return wrong
	}
	return right
}
`}
	for _, m := range mutants {
		file := filepath.Join(dsm, m.file)
		if texts[file] == "" {
			b, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			texts[file] = string(b)
		}
		if n := strings.Count(texts[file], m.right); n != 1 {
			return "", fmt.Errorf("%s: %q occurs %d times in %s", m.name, m.right, n, m.file)
		}
		wrong := strings.ReplaceAll(m.wrong, "MUTANT", fmt.Sprintf("(mutant == %q)", m.name))
		texts[file] = strings.Replace(texts[file], m.right, wrong, 1)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for file, text := range texts {
		changed := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
			return "", err
		}
		overlay.Replace[file] = changed
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}
	at := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(at, list, 0o600); err != nil {
		return "", err
	}
	return build(dir, "-overlay", at)
}
