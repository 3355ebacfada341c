package coherence

import (
	"encoding/binary"
	"fmt"
	"strings"

	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// shape is a litmus test: short programs of two (four) vCPUs on two words x and y, whose outcomes tell the memory
// model. x86 is TSO: a store may be seen late by others, behind a later load of its own vCPU, and nothing else is
// reordered. The names and forbidden outcomes are those of Alglave, Maranget and Tautschnig, "Herding Cats" (2014).
type shape struct {
	name string
	// threads are the programs, made of: "x=1", a store; "a=x", "b=x", loads into the thread's results; "mfence".
	threads []string
	// relaxed is the outcome that sequential consistency forbids: results by thread, and final values, as in
	// "0a=1 1b=0 x=2". forbidden tells that x86 forbids it, too.
	relaxed   string
	forbidden bool
	// broken are the programs reordered, with a "gap" of time in between. With them the relaxed outcome comes about: by
	// whoever it is brought about, it would be seen.
	broken []string
}

var shapes = []shape{
	{"SB", []string{"x=1 a=y", "y=1 a=x"}, "0a=0 1a=0", false, []string{"a=y gap x=1", "a=x gap y=1"}},
	{"SB+mfences", []string{"x=1 mfence a=y", "y=1 mfence a=x"}, "0a=0 1a=0", true, []string{"a=y gap x=1", "a=x gap y=1"}},
	{"MP", []string{"x=1 y=1", "a=y b=x"}, "1a=1 1b=0", true, []string{"y=1 gap x=1", "b=x gap a=y"}},
	{"LB", []string{"a=x y=1", "a=y x=1"}, "0a=1 1a=1", true, []string{"y=1 gap a=x", "x=1 gap a=y"}},
	{"S", []string{"x=2 y=1", "a=y x=1"}, "1a=1 x=2", true, []string{"y=1 gap x=2", "x=1 gap a=y"}},
	{"R", []string{"x=1 y=1", "y=2 a=x"}, "y=2 1a=0", false, []string{"y=1 gap x=1", "a=x gap y=2"}},
	{"R+mfences", []string{"x=1 mfence y=1", "y=2 mfence a=x"}, "y=2 1a=0", true, []string{"y=1 gap x=1", "a=x gap y=2"}},
	{"2+2W", []string{"x=1 y=2", "y=1 x=2"}, "x=1 y=1", true, []string{"y=2 gap x=1", "x=2 gap y=1"}},
	{"IRIW", []string{"x=1", "y=1", "a=x b=y", "a=y b=x"}, "2a=1 2b=0 3a=1 3b=0", true,
		[]string{"gap x=1", "gap y=1", "b=y gap gap a=x", "b=x gap gap a=y"}},
}

// reordered returns the shape with its broken programs.
func (s shape) reordered() shape {
	s.name += " reordered"
	s.threads = s.broken
	return s
}

// The value of a word: 0, that of the batch before; 1 or 2, what this batch writes for it; or one of no batch.
const foreign = 3

// observation is something an outcome is made of: a result of a thread, or the final value of x or y.
type observation struct {
	name   string // "1a", "x"
	word   byte   // 'x' or 'y', which it is a value of
	thread int    // of a result
	result int    // 0 for a, 1 for b
}

// observations lists a shape's. An outcome is a number with two bits for each, the first one lowest; the last two are
// the final values.
func (s *shape) observations() (all []observation) {
	for i, program := range s.threads {
		for _, op := range strings.Fields(program) {
			if to, from, ok := strings.Cut(op, "="); ok && (to == "a" || to == "b") {
				all = append(all, observation{fmt.Sprintf("%d%s", i, to), from[0], i, int(to[0] - 'a')})
			}
		}
	}
	return append(all, observation{name: "x", word: 'x'}, observation{name: "y", word: 'y'})
}

// outcomes bounds the outcomes of a shape: it has at most six observations.
const outcomes = 1 << (2 * 6)

// describe names an outcome: "0a=1 1a=0 x=1 y=1".
func (s *shape) describe(outcome int) string {
	var parts []string
	for i, o := range s.observations() {
		parts = append(parts, fmt.Sprintf("%s=%d", o.name, outcome>>(2*i)&3))
	}
	return strings.Join(parts, " ")
}

// verdict is what an outcome means.
type verdict uint8

const (
	ordered   verdict = iota // sequentially consistent
	relaxed                  // not so, but x86 allows it
	forbidden                // by x86
	alien                    // a value of no batch, or one that nobody stored where it was
	verdicts
)

func (v verdict) String() string { return [...]string{"ordered", "relaxed", "forbidden", "foreign"}[v] }

// judge returns the verdicts of all outcomes.
func (s *shape) judge() []byte {
	stored := map[byte][4]bool{'x': {}, 'y': {}}
	for _, program := range s.threads {
		for _, op := range strings.Fields(program) {
			if to, v, ok := strings.Cut(op, "="); ok && (to == "x" || to == "y") {
				values := stored[to[0]]
				values[v[0]-'0'] = true
				stored[to[0]] = values
			}
		}
	}
	all := make([]byte, outcomes)
	for outcome := range all {
		v := ordered
		if s.matches(outcome) {
			if v = relaxed; s.forbidden {
				v = forbidden
			}
		}
		for i, o := range s.observations() {
			value, may := outcome>>(2*i)&3, stored[o.word]
			if final := len(o.name) == 1; value == foreign || value != 0 && !may[value] || value == 0 && final && may != [4]bool{} {
				v = alien
			}
		}
		all[outcome] = byte(v)
	}
	return all
}

// matches tells whether an outcome is the relaxed one.
func (s *shape) matches(outcome int) bool {
	have := strings.Fields(s.describe(outcome))
	for _, want := range strings.Fields(s.relaxed) {
		found := false
		for _, h := range have {
			found = found || h == want
		}
		if !found {
			return false
		}
	}
	return true
}

// The vCPUs run a batch of instances of the program between two barriers. In turn the batches have x and y in one page,
// in two pages, and in two pages for each instance. Nothing is reset, which would cost page turns: batch b writes the
// values 4b+1 and 4b+2, and whatever is neither of this batch nor what the last one there left is foreign: an update was
// lost, or came back.
const (
	sets      = 3
	maxSlots  = 16  // instances of a batch
	slotBytes = 256 // of a page, for each instance that shares it
)

// groups are the vCPUs of a team in groups that run instances of one shape together, each its own, and what they need.
type groups struct {
	t       *bare.Team
	size    int    // vCPUs of a group
	slots   int    // instances of a batch
	set     int32  // bytes of a set: two words for each instance
	place   uint64 // private word: addresses of x and y of each set's instances
	batch   uint64 // private word: number of the last batch
	log     uint64 // private: results of each set's instances
	left    uint64 // private, of a group's first: final x and y of each set's instances
	offset  uint64 // private word: where in the three above the batch's set begins
	pending uint64 // private word: the batch before has to be looked at
	slot    uint64 // private word: instances to go
	stop    uint64 // shared word: the first batch that this shape no longer has
	seen    uint64 // private, of a group's first: how often by outcome
	sums    uint64 // private, of the first vCPU: how often by verdict
}

// newGroups makes groups of so many vCPUs, a power of 2, for batches of so many instances, at most maxSlots.
func newGroups(t *bare.Team, size, slots int) *groups {
	g := &groups{t: t, size: size, slots: slots, set: int32(16 * slots), place: t.Private(1), batch: t.Private(1),
		log: t.Private(2 * sets * slots), left: t.Private(2 * sets * slots), offset: t.Private(1), pending: t.Private(1), slot: t.Private(1), stop: t.Shared(0),
		seen: t.Private(outcomes), sums: t.Private(int(verdicts))}
	for first := 0; first+size <= t.CPUs(); first += size {
		at := t.Data(g.places(first))
		for i := range size {
			t.SetPrivate(first+i, g.place, at)
		}
	}
	return g
}

// places reserves the pages of a group and returns the table of x's and y's addresses. Their homes are of the group and
// of others in turn.
func (g *groups) places(first int) (table []byte) {
	t := g.t
	put := func(x, y uint64) {
		table = binary.LittleEndian.AppendUint64(table, x)
		table = binary.LittleEndian.AppendUint64(table, y)
	}
	one, two := t.Shared(t.Homes(first, 1)...), t.Shared(t.Homes(first+1, 2)...)
	for i := range uint64(g.slots) {
		put(one+i*slotBytes, one+i*slotBytes+slotBytes/2)
	}
	for i := range uint64(g.slots) {
		put(two+i*slotBytes, two+bare.PageSize+i*slotBytes)
	}
	for i := range g.slots {
		own := t.Shared(t.Homes(first+i, 2)...)
		put(own, own+bare.PageSize)
	}
	return table
}

// litmus runs a shape for so many cycles, one batch at least. pace is about how many a page takes from host to host. It reports how often
// each outcome was seen (the number's lower 40 bits; those above are the outcome), how often each verdict, the batches,
// and by how many cycles it ended late, its reports included.
func (g *groups) litmus(s shape, cycles, pace uint64) part {
	return func(t *bare.Team) {
		deadline, batches := t.Private(1), t.Private(1)
		judge := t.Data(s.judge())
		look := t.Label() // a subroutine
		over := t.Label()
		t.Leader(func() {
			t.Now()
			t.MovImm(micro.RCX, cycles)
			t.Add(micro.RAX, micro.RCX)
			t.Store(deadline, micro.RAX)
			t.MovMem(g.stop, -1)
		})
		t.MovMem(g.pending, 0)
		t.MovImm(micro.RDI, g.seen)
		t.MovImm(micro.RCX, outcomes)
		t.Xor(micro.RAX, micro.RAX)
		t.Bytes(0xf3, 0x48, 0xab) // rep stosq
		t.Barrier()

		next := t.Here()
		t.Leader(func() {
			t.Now()
			t.CmpMem(micro.RAX, deadline)
			on := t.Label()
			t.Jcc(micro.Below, on)
			t.Load(micro.RAX, batches)
			t.Test(micro.RAX, micro.RAX)
			t.Jcc(micro.Equal, on) // not before the first one
			t.Load(micro.RAX, g.batch)
			t.Inc(micro.RAX)
			t.Store(g.stop, micro.RAX)
			t.Bind(on)
		})
		t.Barrier()
		t.Load(micro.RAX, g.batch)
		t.Inc(micro.RAX)
		t.CmpMem(micro.RAX, g.stop) // by its number: some may still be on their way from the barrier before
		t.Jcc(micro.Equal, over)
		g.instances(s, pace)
		t.Call(look)
		t.MovMem(g.pending, 1)
		t.IncMem(batches)
		t.Jmp(next)

		t.Bind(look)
		g.look(s)
		t.Ret()

		t.Bind(over)
		// As if there were a batch behind the last.
		t.IncMem(g.batch)
		g.nextSet()
		t.Call(look)
		t.Barrier()
		t.Leader(func() {
			g.sumUp(s, judge, batches)
			t.Now()
			t.Load(micro.RCX, deadline)
			t.Sub(micro.RAX, micro.RCX)
			t.Report(s.reportName("late"))
		})
	}
}

// nextSet makes offset that of the next set. It changes RAX and RCX.
func (g *groups) nextSet() {
	t := g.t
	g.following(micro.RAX, micro.RCX, g.set)
	t.Store(g.offset, micro.RAX)
}

// following makes r the offset of the set that follows, or of the one before, which is two further. It changes spare.
func (g *groups) following(r, spare micro.Reg, step int32) {
	t := g.t
	t.Load(r, g.offset)
	t.AddImm(r, step)
	t.Lea(spare, micro.At(r, -sets*g.set))
	t.CmpImm(r, sets*g.set)
	t.Cmov(micro.AboveOrEqual, r, spare)
}

// instances emits one batch.
func (g *groups) instances(s shape, pace uint64) {
	t := g.t
	done := t.Label()
	t.IncMem(g.batch)
	g.nextSet()
	t.Mov(micro.R12, micro.RAX)
	t.AddImm(micro.R12, int32(g.log))
	t.Load(micro.R13, g.place)
	t.Add(micro.R13, micro.RAX)
	t.Load(micro.RBP, g.batch)
	// The batch's pace: none, 1/8, 1, 2 times the given one.
	t.Mov(micro.RAX, micro.RBP)
	t.AndImm(micro.RAX, 3)
	t.MovImm(micro.RCX, t.Data(words(0, pace/8, pace, 2*pace)))
	t.LoadM(micro.R11, micro.AtIndex(micro.RCX, micro.RAX, 8, 0))
	t.ShlImm(micro.RBP, 2)
	t.Inc(micro.RBP)
	t.Lea(micro.RBX, micro.At(micro.RBP, 1))
	t.LoadMetAt(micro.R10)
	t.MovMem(g.slot, int32(g.slots))
	for i, program := range s.threads {
		other := t.Label()
		t.Mov(micro.RAX, micro.R15)
		t.AndImm(micro.RAX, int32(g.size-1))
		t.CmpImm(micro.RAX, int32(i))
		t.Jcc(micro.NotEqual, other)
		g.thread(program, pace)
		t.Jmp(done)
		t.Bind(other)
	}
	t.Bind(done)
}

// thread emits a thread's part of a batch: each instance when its time has come, by the pace and some more that is
// random, of any scale. Before that it reads x, y, both or none, so that it may have copies of them.
func (g *groups) thread(program string, pace uint64) {
	t := g.t
	again := t.Here()
	t.LoadM(micro.RSI, micro.At(micro.R13, 0))
	t.LoadM(micro.RDI, micro.At(micro.R13, 8))
	t.Random(micro.R8)
	for i, word := range []micro.Reg{micro.RSI, micro.RDI} {
		cold := t.Label()
		t.Mov(micro.RAX, micro.R8)
		t.AndImm(micro.RAX, 1<<i)
		t.Jcc(micro.Equal, cold)
		t.LoadM(micro.RAX, micro.At(word, 0))
		t.Bind(cold)
	}
	t.Add(micro.R10, micro.R11)
	// Less than 2^k cycles, k being 0 to 15.
	t.Mov(micro.RCX, micro.R8)
	t.ShrImm(micro.RCX, 2)
	t.AndImm(micro.RCX, 15)
	t.MovImm(micro.R9, 1)
	t.Bytes(0x49, 0xd3, 0xe1) // shl r9, cl
	t.Dec(micro.R9)
	t.ShrImm(micro.R8, 8)
	t.And(micro.R9, micro.R8)
	t.Add(micro.R9, micro.R10)
	wait, now := t.Here(), t.Label()
	t.Now()
	t.Cmp(micro.RAX, micro.R9)
	t.Jcc(micro.AboveOrEqual, now)
	t.Pause()
	t.Jmp(wait)
	t.Bind(now)
	t.Xor(micro.R8, micro.R8)
	t.Xor(micro.R9, micro.R9)
	for _, op := range strings.Fields(program) {
		g.operation(op, pace)
	}
	t.StoreM(micro.At(micro.R12, 0), micro.R8)
	t.StoreM(micro.At(micro.R12, 8), micro.R9)
	t.AddImm(micro.R12, 16)
	t.AddImm(micro.R13, 16)
	t.DecMem(g.slot)
	t.Jcc(micro.NotEqual, again)
}

// operation emits one operation of a program: x is at RSI, y at RDI, 1 is RBP, 2 is RBX, a is R8, b is R9. A gap
// takes a quarter of the pace.
func (g *groups) operation(op string, pace uint64) {
	t := g.t
	words := map[string]micro.Reg{"x": micro.RSI, "y": micro.RDI}
	values := map[string]micro.Reg{"1": micro.RBP, "2": micro.RBX}
	results := map[string]micro.Reg{"a": micro.R8, "b": micro.R9}
	to, from, _ := strings.Cut(op, "=")
	switch {
	case op == "mfence":
		t.Mfence()
	case op == "gap":
		t.Now()
		t.MovImm(micro.RCX, pace/4)
		t.Add(micro.RCX, micro.RAX)
		again := t.Here()
		t.Now()
		t.Cmp(micro.RAX, micro.RCX)
		t.Jcc(micro.Below, again)
	case results[to] != 0:
		t.LoadM(results[to], micro.At(words[from], 0))
	default:
		t.StoreM(micro.At(words[to], 0), values[from])
	}
}

// look emits the classification of the batch before the present one, if there was one, by each group's first: all are
// beyond the barrier that ended it.
func (g *groups) look(s shape) {
	t := g.t
	none := t.Label()
	t.Load(micro.RAX, g.pending)
	t.Test(micro.RAX, micro.RAX)
	t.Jcc(micro.Equal, none)
	t.Mov(micro.RAX, micro.R15)
	t.AndImm(micro.RAX, int32(g.size-1))
	t.Jcc(micro.NotEqual, none)
	g.following(micro.RDI, micro.RCX, 2*g.set)
	// RSI: addresses of x and y; RDI: what they held before; R13: the log of the group's first, where all find it; RBP and
	// R12: the batch's values.
	t.Load(micro.RSI, g.place)
	t.Add(micro.RSI, micro.RDI)
	t.MovImm(micro.RAX, bare.PrivateStride)
	t.Mov(micro.R13, micro.R15)
	t.Imul(micro.R13, micro.RAX)
	t.Add(micro.R13, micro.RDI)
	t.AddImm(micro.R13, int32(t.PrivateOf(0, g.log)))
	t.AddImm(micro.RDI, int32(g.left))
	t.Load(micro.RBP, g.batch)
	t.Dec(micro.RBP)
	t.ShlImm(micro.RBP, 2)
	t.Inc(micro.RBP)
	t.Lea(micro.R12, micro.At(micro.RBP, 1))
	for i, r := range []micro.Reg{micro.R8, micro.R9, micro.R10, micro.R11} {
		t.MovImm(r, uint64(i))
	}
	t.MovMem(g.slot, int32(g.slots))
	again := t.Here()
	t.Xor(micro.RBX, micro.RBX)
	for i, o := range s.observations() {
		before := micro.At(micro.RDI, 8*int32(o.word-'x'))
		final := len(o.name) == 1
		if final {
			t.LoadM(micro.RCX, micro.At(micro.RSI, 8*int32(o.word-'x')))
			t.LoadM(micro.RAX, micro.At(micro.RCX, 0))
		} else {
			t.LoadM(micro.RAX, micro.At(micro.R13, int32(o.thread*bare.PrivateStride+8*o.result)))
		}
		t.Mov(micro.RDX, micro.R11)
		t.CmpM(micro.RAX, before)
		t.Cmov(micro.Equal, micro.RDX, micro.R8)
		t.Cmp(micro.RAX, micro.RBP)
		t.Cmov(micro.Equal, micro.RDX, micro.R9)
		t.Cmp(micro.RAX, micro.R12)
		t.Cmov(micro.Equal, micro.RDX, micro.R10)
		t.ShlImm(micro.RDX, uint8(2*i))
		t.Or(micro.RBX, micro.RDX)
		if final {
			t.StoreM(before, micro.RAX)
		}
	}
	t.MovImm(micro.RCX, g.seen)
	t.IncM(micro.AtIndex(micro.RCX, micro.RBX, 8, 0))
	t.AddImm(micro.RSI, 16)
	t.AddImm(micro.RDI, 16)
	t.AddImm(micro.R13, 16)
	t.DecMem(g.slot)
	t.Jcc(micro.NotEqual, again)
	t.Bind(none)
}

// sumUp has the first vCPU report what all groups have seen.
func (g *groups) sumUp(s shape, judge, batches uint64) {
	t := g.t
	for v := range verdicts {
		t.MovMem(g.sums+8*uint64(v), 0)
	}
	t.Xor(micro.RBX, micro.RBX)
	again, never := t.Here(), t.Label()
	t.Xor(micro.RBP, micro.RBP)
	for first := 0; first+g.size <= t.CPUs(); first += g.size {
		t.MovImm(micro.RCX, t.PrivateOf(first, g.seen))
		t.AddM(micro.RBP, micro.AtIndex(micro.RCX, micro.RBX, 8, 0))
	}
	t.Test(micro.RBP, micro.RBP)
	t.Jcc(micro.Equal, never)
	t.MovImm(micro.RCX, judge)
	t.LoadByteM(micro.RAX, micro.AtIndex(micro.RCX, micro.RBX, 1, 0))
	t.MovImm(micro.RCX, g.sums)
	t.AddToM(micro.AtIndex(micro.RCX, micro.RAX, 8, 0), micro.RBP)
	t.Mov(micro.RAX, micro.RBX)
	t.ShlImm(micro.RAX, outcomeShift)
	t.Add(micro.RAX, micro.RBP)
	t.Report(s.reportName("outcome"))
	t.Bind(never)
	t.Inc(micro.RBX)
	t.CmpImm(micro.RBX, outcomes)
	t.Jcc(micro.NotEqual, again)
	for v := range verdicts {
		t.Load(micro.RAX, g.sums+8*uint64(v))
		t.Report(s.reportName(v.String()))
	}
	t.Load(micro.RAX, batches)
	t.Report(s.reportName("batches"))
}

const outcomeShift = 40

func (s *shape) reportName(what string) string {
	return "litmus." + strings.ReplaceAll(s.name, " ", "-") + "." + what
}

// words lays numbers out in memory.
func words(values ...uint64) (b []byte) {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
