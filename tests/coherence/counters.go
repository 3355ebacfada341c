package coherence

import (
	"fmt"

	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// Kinds of failures, as Expect keeps them.
const (
	counterBack = 1 + iota // where it is, the least it may be, what it was
	counterTotal
	counterSum
)

// counters has every vCPU add 1 to one counter in one page, or with split one that lies across two pages with different
// homes, for so many cycles of the TSC. Each value that the counter had must have been seen once.
//
// It reports the total, the least and most of one vCPU, the errors, the time in cycles, and the longest time from one
// addition to the next.
func counters(name string, cycles uint64, split bool) part {
	return counting(name, cycles, split, func(t *bare.Team, at micro.Mem) {
		t.MovImm(micro.RAX, 1)
		t.XaddM(at, micro.RAX)
	})
}

// looseCounter is counters with an addition that is not atomic.
func looseCounter(name string, cycles uint64) part {
	return counting(name, cycles, false, func(t *bare.Team, at micro.Mem) {
		t.LoadM(micro.RAX, at)
		t.MovImm(micro.RCX, 20_000)
		gap := t.Here()
		t.Dec(micro.RCX)
		t.Jcc(micro.NotEqual, gap)
		t.Lea(micro.RCX, micro.At(micro.RAX, 1))
		t.StoreM(at, micro.RCX)
	})
}

// counting is counters with a way to add 1 that makes RAX what the counter was; it may change RCX and RDX.
func counting(name string, cycles uint64, split bool, add func(t *bare.Team, at micro.Mem)) part {
	return func(t *bare.Team) {
		homes := t.Homes(t.CPUs()-1, 1)
		offset := uint64(0x40)
		if split {
			homes, offset = t.Homes(t.CPUs()-1, 2), 0xffc
		}
		counter := t.Shared(homes...) + offset
		w := newWatch(t)
		sum := t.Private(1)

		// RBX: the least value that may come next; RBP: the sum; R12: how many.
		t.Xor(micro.RBX, micro.RBX)
		t.Xor(micro.RBP, micro.RBP)
		t.MovImm(micro.RSI, counter)
		w.start(cycles)
		again := t.Here()
		add(t, micro.At(micro.RSI, 0))
		t.Cmp(micro.RAX, micro.RBX)
		t.Expect(micro.AboveOrEqual, counterBack, micro.RSI, micro.RBX, micro.RAX)
		t.Lea(micro.RBX, micro.At(micro.RAX, 1))
		t.Add(micro.RBP, micro.RAX)
		w.lap(again)
		t.Store(sum, micro.RBP)
		t.Barrier()
		t.Leader(func() {
			addUp(t, micro.RBX, w.laps)
			addUp(t, micro.RBP, sum)
			t.MovImm(micro.RSI, counter)
			t.LoadM(micro.RDI, micro.At(micro.RSI, 0))
			t.Cmp(micro.RBX, micro.RDI)
			t.Expect(micro.Equal, counterTotal, micro.RSI, micro.RBX, micro.RDI)
			// n (n - 1) / 2, the even one of the two halved.
			t.Lea(micro.RCX, micro.At(micro.RBX, -1))
			t.Mov(micro.RAX, micro.RBX)
			t.Imul(micro.RAX, micro.RCX)
			t.ShrImm(micro.RAX, 1) // n is far below 2^32
			t.Cmp(micro.RAX, micro.RBP)
			t.Expect(micro.Equal, counterSum, micro.RSI, micro.RAX, micro.RBP)
		})
		w.report(name)
	}
}

// addUp makes r the sum of a private word of all vCPUs.
func addUp(t *bare.Team, r micro.Reg, word uint64) {
	t.Xor(r, r)
	for cpu := range t.CPUs() {
		t.AddM(r, micro.Abs(t.PrivateOf(cpu, word)))
	}
}

// watch counts a loop's rounds, takes the longest one's time and ends the loop. It uses R12 and R13.
type watch struct {
	t *bare.Team
	// Private words: rounds, the longest one's cycles, when the loop has to end, all cycles.
	laps, longest, end, whole uint64
}

func newWatch(t *bare.Team) *watch {
	return &watch{t: t, laps: t.Private(1), longest: t.Private(1), end: t.Private(1), whole: t.Private(1)}
}

// start begins a loop that ends after so many cycles. It changes RAX, RCX and RDX.
func (w *watch) start(cycles uint64) {
	w.t.Now()
	w.t.Mov(micro.R13, micro.RAX)
	w.t.MovImm(micro.RCX, cycles)
	w.t.Add(micro.RAX, micro.RCX)
	w.t.Store(w.end, micro.RAX)
	w.t.Xor(micro.R12, micro.R12)
}

// lap ends a round and goes on with the next at again, or behind it if the time is over. It changes RAX, RCX and RDX.
func (w *watch) lap(again micro.Label) {
	t := w.t
	short := t.Label()
	t.Inc(micro.R12)
	t.Now()
	t.Mov(micro.RCX, micro.RAX)
	t.Sub(micro.RCX, micro.R13)
	t.Mov(micro.R13, micro.RAX)
	t.CmpMem(micro.RCX, w.longest)
	t.Jcc(micro.BelowOrEqual, short)
	t.Store(w.longest, micro.RCX)
	t.Bind(short)
	t.CmpMem(micro.RAX, w.end)
	t.Jcc(micro.Below, again)
	t.Store(w.laps, micro.R12)
}

// report has the first vCPU print every vCPU's rounds and longest one. All must have ended theirs.
func (w *watch) report(name string) {
	w.t.Leader(func() {
		for cpu := range w.t.CPUs() {
			w.t.Load(micro.RAX, w.t.PrivateOf(cpu, w.laps))
			w.t.Report(reportOf(name, "laps", cpu))
			w.t.Load(micro.RAX, w.t.PrivateOf(cpu, w.longest))
			w.t.Report(reportOf(name, "longest", cpu))
		}
	})
	w.t.Barrier()
}

// reportOf names what a part reports of one vCPU.
func reportOf(name, what string, cpu int) string { return fmt.Sprintf("%s.%s.%d", name, what, cpu) }
