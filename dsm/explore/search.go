package explore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math"
	"time"
)

// Result is what an exploration found.
type Result struct {
	States, Edges, Depth int
	Took                 time.Duration
	// Odds bounds the probability that two states shared a fingerprint, so that
	// one of them was not explored.
	Odds float64
	// Violation is nil if no rule was broken.
	Violation *Violation
}

// String returns the figures in one line.
func (r Result) String() string {
	return fmt.Sprintf("%d states, %d edges, depth %d, %.1f s, collision odds %.1g",
		r.States, r.Edges, r.Depth, r.Took.Seconds(), r.Odds)
}

// Violation is a broken rule and the shortest way to it.
type Violation struct {
	What  string
	Trace []string // what happens, in words, a move each
	State []string // what is left to do in the end
}

func (v *Violation) Error() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n", v.What)
	for i, line := range v.Trace {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, line)
	}
	for _, line := range v.State {
		fmt.Fprintf(&b, "     : %s\n", line)
	}
	return b.String()
}

// Options are an exploration's.
type Options struct {
	// Progress, if not nil, is called every 10 s or so.
	Progress func(states, frontier, depth int, took time.Duration)
	// MaxStates ends the search with an error when it is reached; 0 stands for
	// what 32-bit numbers allow.
	MaxStates int
}

// search is a breadth-first search.
type search struct {
	*world
	opts  Options
	start time.Time

	seed       maphash.Seed
	symmetries []symmetry
	canonical  state
	enc, best  []byte

	seen   fingerprints
	parent []uint32 // of each state by number
	// The edges that the checks of the whole graph need: of state i,
	// edges[offsets[i]:offsets[i+1]]. Of each its class, if starvation is looked for.
	offsets []uint64
	edges   []uint32
	class   []uint8
	rests   []uint64 // bitmap: the states at rest
	pending []uint8  // threads and devices with an access under way, if starvation is looked for
	count   int      // edges taken
	depth   int
}

// Explore searches the whole of a profile's states. The error is one of the
// search itself.
func Explore(p Profile, o Options) (Result, error) { return explore(p, nil, o) }

func explore(p Profile, wrong *mutation, o Options) (Result, error) {
	if err := p.check(); err != nil {
		return Result{}, err
	}
	if o.MaxStates == 0 {
		o.MaxStates = math.MaxUint32
	}
	x := newSearch(&p, wrong, o)
	v, err := x.run()
	n := float64(len(x.parent))
	return Result{States: len(x.parent), Edges: x.count, Depth: x.depth, Took: time.Since(x.start),
		Odds: n * n / math.Exp2(65), Violation: v}, err
}

func newSearch(p *Profile, wrong *mutation, o Options) *search {
	return &search{world: newWorld(p, wrong), opts: o, start: time.Now(), seed: maphash.MakeSeed(), symmetries: p.symmetries()}
}

// run explores level by level.
func (x *search) run() (*Violation, error) {
	first := initial(x.p)
	fp := x.fingerprint(&first)
	x.seen.add(fp)
	x.parent = append(x.parent, 0)
	frontier := pack(nil, x.best)
	var s state
	var list []move
	id := uint32(0) // of the state at hand
	told := x.start
	for len(frontier) > 0 {
		var next []byte
		for rest := frontier; len(rest) > 0; id++ {
			var enc []byte
			enc, rest = unpack(rest)
			s.restore(x.p, enc)
			var v *Violation
			if list, next, v = x.expand(&s, id, list, next); v != nil {
				return v, nil
			}
			if len(x.parent) >= x.opts.MaxStates {
				return nil, fmt.Errorf("profile %s: more than %d states", x.p.Name, x.opts.MaxStates)
			}
			if id&0xfff == 0 && x.opts.Progress != nil && time.Since(told) > 10*time.Second {
				told = time.Now()
				x.opts.Progress(len(x.parent), len(x.parent)-int(id), x.depth, time.Since(x.start))
			}
		}
		frontier = next
		if len(frontier) > 0 {
			x.depth++
		}
	}
	x.offsets = append(x.offsets, uint64(len(x.edges)))
	return x.checkGraph(), nil
}

// expand makes every move from s, whose number is id.
func (x *search) expand(s *state, id uint32, list []move, next []byte) ([]move, []byte, *Violation) {
	x.offsets = append(x.offsets, uint64(len(x.edges)))
	x.mark(s, id)
	list = x.moves(s, list[:0])
	must := false
	for _, m := range list {
		must = must || !m.op.optional()
		x.tape = tape{}
		for {
			t := *s
			if broken := x.try(&t, m); broken != "" {
				return list, next, x.violation(broken, id, &m)
			}
			if !m.op.optional() || t != *s {
				var isNew bool
				var to uint32
				fp := x.fingerprint(&t)
				if to, isNew = x.seen.add(fp); isNew {
					x.parent = append(x.parent, id)
					next = pack(next, x.best)
				}
				x.count++
				if x.p.Starvation || !m.op.optional() {
					x.edges = append(x.edges, to)
				}
				if x.p.Starvation {
					x.class = append(x.class, m.class())
				}
			}
			if !x.tape.next() {
				break
			}
		}
	}
	if !must {
		x.s = s
		if !x.atRest() {
			return list, next, x.violation("nothing is left to happen, and not all is at rest", id, nil)
		}
	}
	return list, next, nil
}

// mark records what the checks of the whole graph need to know of a state.
func (x *search) mark(s *state, id uint32) {
	if id%64 == 0 {
		x.rests = append(x.rests, 0)
	}
	x.s = s
	if x.atRest() {
		x.rests[id/64] |= 1 << (id % 64)
	}
	if !x.p.Starvation {
		return
	}
	var set uint8
	for k := range x.p.Threads {
		if s.threads[k].phase != idle {
			set |= 1 << k
		}
	}
	for i, n := range x.p.Devices {
		if s.devices[n].phase != idle {
			set |= 1 << (maxThreads + i)
		}
	}
	x.pending = append(x.pending, set)
}

// try makes a move from t, in place, and returns what rule it breaks.
func (x *search) try(t *state, m move) (broken string) {
	x.s, x.broken = t, ""
	x.tape.at = 0
	defer func() {
		if r := recover(); r != nil {
			broken = fmt.Sprintf("the step function panics: %v", r)
		}
	}()
	x.make(m)
	if x.broken == "" {
		t.normalise(x.p)
		x.checkState()
	}
	return x.broken
}

// fingerprint returns the fingerprint of a state under the names that give it the
// least encoding, which is left in x.best.
func (x *search) fingerprint(s *state) uint64 {
	x.best = s.append(x.p, x.best[:0])
	for i := 1; i < len(x.symmetries); i++ {
		x.rename(s, &x.canonical, &x.symmetries[i])
		x.enc = x.canonical.append(x.p, x.enc[:0])
		if bytes.Compare(x.enc, x.best) < 0 {
			x.enc, x.best = x.best, x.enc
		}
	}
	return maphash.Bytes(x.seed, x.best)
}

// pack appends an encoded state to a list of them.
func pack(list, enc []byte) []byte {
	list = binary.LittleEndian.AppendUint16(list, uint16(len(enc)))
	return append(list, enc...)
}

func unpack(list []byte) (enc, rest []byte) {
	n := binary.LittleEndian.Uint16(list)
	return list[2 : 2+n], list[2+n:]
}

// fingerprints is the set of fingerprints seen, numbered in the order in which
// they came.
type fingerprints struct {
	of    []uint64 // by number
	slots []uint32 // number+1, open addressing by the fingerprint's low bits
}

// add returns the number of a fingerprint.
func (f *fingerprints) add(fp uint64) (number uint32, isNew bool) {
	if len(f.of)*4 >= len(f.slots)*3 {
		f.grow()
	}
	mask := uint64(len(f.slots) - 1)
	for i := fp & mask; ; i = (i + 1) & mask {
		n := f.slots[i]
		if n == 0 {
			f.of = append(f.of, fp)
			f.slots[i] = uint32(len(f.of))
			return uint32(len(f.of) - 1), true
		}
		if f.of[n-1] == fp {
			return n - 1, false
		}
	}
}

func (f *fingerprints) grow() {
	f.slots = make([]uint32, max(1<<12, 2*len(f.slots)))
	mask := uint64(len(f.slots) - 1)
	for n, fp := range f.of {
		i := fp & mask
		for f.slots[i] != 0 {
			i = (i + 1) & mask
		}
		f.slots[i] = uint32(n + 1)
	}
}
