package coherence

import (
	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// Kinds of failures.
const (
	scanBack  = 50 + iota // where, what it was before, what it is
	scanOrder             // where, what was read first, what was read after
	scanLast              // where, what was written last, what is there
)

// A page of the scan: two words that get the same number, the upper one last.
const (
	scanLow  = 8
	scanHigh = bare.PageSize - 8
	scanHops = 3 // strides: 1, then -1, then 3
)

// scan has the last vCPU write all pages again and again, with pauses, and the others read through them, forwards,
// backwards and every third, for so many cycles: pages are asked for ahead of readers while they change. The upper word may not go
// back, and the two of a page must be seen in the order in which they are written. In the end all read what was written
// last. loose breaks it: the writer writes the words in the wrong order.
//
// It reports each vCPU's passes and the longest.
func scan(name string, pages int, cycles, pause uint64, loose bool) part {
	return func(t *bare.Team) {
		homes := make([]int, pages)
		for i := range homes {
			homes[i] = (t.CPUs() - 1) * (1 - i/(pages/2)) // half are the writer's, half the client's, each in a row
		}
		base := t.Shared(homes...)
		seen := t.Private(pages) // by page: what the vCPU has seen at least
		version, stride := t.Private(1), t.Private(1)
		w := newWatch(t)
		low, high := micro.At(micro.RSI, scanLow), micro.At(micro.RSI, scanHigh)
		knows := micro.AtIndex(micro.R9, micro.R8, 8, int32(seen))
		// page makes RSI the address of page R8.
		page := func() {
			t.Mov(micro.RSI, micro.R8)
			t.ShlImm(micro.RSI, 12)
			t.AddImm(micro.RSI, int32(base))
		}
		writer, over := t.Label(), t.Label()
		t.Xor(micro.R9, micro.R9)
		w.start(cycles)
		t.CmpImm(micro.R15, int32(t.CPUs()-1))
		t.Jcc(micro.Equal, writer)

		// R11: the stride. Pass after pass, each with another one.
		read := t.Here()
		t.IncMem(stride)
		forwards, backwards, pass := t.Label(), t.Label(), t.Label()
		t.Load(micro.RAX, stride)
		t.AndImm(micro.RAX, 3)
		t.MovImm(micro.R8, 0)
		t.MovImm(micro.R11, scanHops)
		t.CmpImm(micro.RAX, 0)
		t.Jcc(micro.Equal, pass)
		t.CmpImm(micro.RAX, 1)
		t.Jcc(micro.Equal, backwards)
		t.Bind(forwards)
		t.MovImm(micro.R11, 1)
		t.Jmp(pass)
		t.Bind(backwards)
		t.MovImm(micro.R8, uint64(pages-1))
		t.MovImm(micro.R11, ^uint64(0))
		t.Bind(pass)
		each := t.Here()
		page()
		t.LoadM(micro.RAX, high)
		t.LoadM(micro.RCX, low)
		t.LoadM(micro.RBX, knows)
		t.Cmp(micro.RAX, micro.RBX)
		t.Expect(micro.AboveOrEqual, scanBack, micro.RSI, micro.RBX, micro.RAX)
		t.Cmp(micro.RCX, micro.RAX)
		t.Expect(micro.AboveOrEqual, scanOrder, micro.RSI, micro.RAX, micro.RCX)
		t.StoreM(knows, micro.RAX)
		t.Add(micro.R8, micro.R11)
		t.CmpImm(micro.R8, int32(pages))
		t.Jcc(micro.Below, each) // -1 is above, too
		w.lap(read)
		t.Jmp(over)

		t.Bind(writer)
		write := t.Here()
		t.IncMem(version)
		t.Load(micro.RAX, version)
		t.Xor(micro.R8, micro.R8)
		next := t.Here()
		page()
		if loose {
			t.StoreM(high, micro.RAX)
			t.MovImm(micro.RCX, 20_000)
			gap := t.Here()
			t.Dec(micro.RCX)
			t.Jcc(micro.NotEqual, gap)
			t.StoreM(low, micro.RAX)
		} else {
			t.StoreM(low, micro.RAX)
			t.StoreM(high, micro.RAX)
		}
		t.Inc(micro.R8)
		t.CmpImm(micro.R8, int32(pages))
		t.Jcc(micro.NotEqual, next)
		t.Now()
		t.Mov(micro.RBX, micro.RAX)
		t.MovImm(micro.RCX, pause)
		t.Add(micro.RBX, micro.RCX)
		waits := t.Here()
		t.Now()
		t.Cmp(micro.RAX, micro.RBX)
		t.Jcc(micro.Below, waits)
		w.lap(write)
		t.Bind(over)
		t.Barrier()

		// What everybody sees in the end.
		t.Load(micro.RBX, t.PrivateOf(t.CPUs()-1, version))
		t.Xor(micro.R8, micro.R8)
		last := t.Here()
		page()
		for _, m := range []micro.Mem{low, high} {
			t.LoadM(micro.RAX, m)
			t.Cmp(micro.RAX, micro.RBX)
			t.Expect(micro.Equal, scanLast, micro.RSI, micro.RBX, micro.RAX)
		}
		t.Inc(micro.R8)
		t.CmpImm(micro.R8, int32(pages))
		t.Jcc(micro.NotEqual, last)
		t.Barrier()
		w.report(name)
	}
}
