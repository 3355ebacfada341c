package coherence

import (
	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// Kinds of failures.
const (
	stormBack = 20 + iota
	stormOwn
	stormBlock // where, the first word, another
	stormLock
	stormTotal
	stormLast
	stormChecksum // which vCPU, the first one's sum, its sum
)

// A page of the storm.
const (
	stormOwnAt   = 8 // after the shared counter: a word of each vCPU
	stormLockAt  = 0x100
	stormBlockAt = 0x800
	stormBlock8  = 16 // words of a block
)

// storm has every vCPU access random pages at random for so many cycles: add to a counter that all share, count in a
// word of its own beside the others', read, and change a block of words in one page under a lock in another. In the end
// the first vCPU adds up what all did and compares, and the vCPUs compare what they see of all pages. loose breaks the
// lock.
//
// It reports each vCPU's accesses, the longest, and the blocks changed in all.
func storm(name string, pages int, cycles uint64, loose bool) part {
	return func(t *bare.Team) {
		base := t.Shared(t.Homes(0, pages)...)
		// Private, by page: the least the shared counter may be, and what was done.
		least, added, counted, locked := t.Private(pages), t.Private(pages), t.Private(pages), t.Private(pages)
		checksum, blocks := t.Private(1), t.Private(1)
		w := newWatch(t)
		byPage := func(array uint64) micro.Mem { return micro.AtIndex(micro.R9, micro.R8, 8, int32(array)) }

		w.start(cycles)
		t.Xor(micro.R9, micro.R9)
		again, lap := t.Here(), t.Label()
		own, lock, read := t.Label(), t.Label(), t.Label()
		// RBX: what to do; R8: the page's number; RSI: its address.
		t.Random(micro.RBX)
		t.Mov(micro.R8, micro.RBX)
		t.AndImm(micro.R8, 0xffff)
		t.ShrImm(micro.RBX, 16)
		t.MovImm(micro.RCX, uint64(pages))
		t.Imul(micro.R8, micro.RCX)
		t.ShrImm(micro.R8, 16)
		t.Mov(micro.RSI, micro.R8)
		t.ShlImm(micro.RSI, 12)
		t.AddImm(micro.RSI, int32(base))
		t.AndImm(micro.RBX, 7)
		t.CmpImm(micro.RBX, 2)
		t.Jcc(micro.Below, own)
		t.CmpImm(micro.RBX, 4)
		t.Jcc(micro.Below, lock)
		t.CmpImm(micro.RBX, 6)
		t.Jcc(micro.Below, read)

		t.MovImm(micro.RAX, 1)
		t.XaddM(micro.At(micro.RSI, 0), micro.RAX)
		t.LoadM(micro.RCX, byPage(least))
		t.Cmp(micro.RAX, micro.RCX)
		t.Expect(micro.AboveOrEqual, stormBack, micro.RSI, micro.RCX, micro.RAX)
		t.Inc(micro.RAX)
		t.StoreM(byPage(least), micro.RAX)
		t.IncM(byPage(added))
		t.Jmp(lap)

		t.Bind(read)
		t.LoadM(micro.RAX, micro.At(micro.RSI, 0))
		t.LoadM(micro.RCX, byPage(least))
		t.Cmp(micro.RAX, micro.RCX)
		t.Expect(micro.AboveOrEqual, stormBack, micro.RSI, micro.RCX, micro.RAX)
		t.StoreM(byPage(least), micro.RAX)
		t.Jmp(lap)

		t.Bind(own)
		mine := micro.AtIndex(micro.RSI, micro.R15, 8, stormOwnAt)
		t.LoadM(micro.RAX, mine)
		t.LoadM(micro.RCX, byPage(counted))
		t.Cmp(micro.RAX, micro.RCX)
		t.Expect(micro.Equal, stormOwn, micro.RSI, micro.RCX, micro.RAX)
		t.Inc(micro.RCX)
		t.StoreM(mine, micro.RCX)
		t.StoreM(byPage(counted), micro.RCX)
		t.Jmp(lap)

		t.Bind(lock)
		t.MovImm(micro.RAX, 1)
		if loose {
			t.Xor(micro.RAX, micro.RAX)
		}
		t.XchgM(micro.At(micro.RSI, stormLockAt), micro.RAX)
		t.Test(micro.RAX, micro.RAX)
		t.Jcc(micro.NotEqual, lap)
		stormPartner(t, base, pages)
		t.LoadM(micro.RAX, micro.At(micro.RDI, stormBlockAt))
		for i := int32(1); i < stormBlock8; i++ {
			t.LoadM(micro.RCX, micro.At(micro.RDI, stormBlockAt+8*i))
			t.Cmp(micro.RCX, micro.RAX)
			t.Expect(micro.Equal, stormBlock, micro.RDI, micro.RAX, micro.RCX)
		}
		t.Inc(micro.RAX)
		if loose { // time for others to be in here, too
			t.MovImm(micro.RCX, 300_000)
			gap := t.Here()
			t.Dec(micro.RCX)
			t.Jcc(micro.NotEqual, gap)
		}
		for i := range int32(stormBlock8) {
			t.StoreM(micro.At(micro.RDI, stormBlockAt+8*i), micro.RAX)
		}
		t.IncM(byPage(locked))
		t.Xor(micro.RAX, micro.RAX)
		t.StoreM(micro.At(micro.RSI, stormLockAt), micro.RAX)
		t.Bind(lap)
		w.lap(again)
		t.Barrier()

		// What everybody sees: all words, the sum turned by one bit after each.
		t.Xor(micro.RAX, micro.RAX)
		t.MovImm(micro.RSI, base)
		t.MovImm(micro.RCX, uint64(pages)*bare.PageSize/8)
		next := t.Here()
		t.AddM(micro.RAX, micro.At(micro.RSI, 0))
		t.RolImm(micro.RAX, 1)
		t.AddImm(micro.RSI, 8)
		t.Dec(micro.RCX)
		t.Jcc(micro.NotEqual, next)
		t.Store(checksum, micro.RAX)
		t.Barrier()
		t.Leader(func() {
			t.Load(micro.RAX, checksum)
			for cpu := 1; cpu < t.CPUs(); cpu++ {
				t.MovImm(micro.RBX, uint64(cpu))
				t.Load(micro.RCX, t.PrivateOf(cpu, checksum))
				t.Cmp(micro.RAX, micro.RCX)
				t.Expect(micro.Equal, stormChecksum, micro.RBX, micro.RAX, micro.RCX)
			}
			t.Xor(micro.R8, micro.R8)
			t.MovImm(micro.RSI, base)
			page := t.Here()
			sumOf := func(r micro.Reg, array uint64) {
				t.Xor(r, r)
				for cpu := range t.CPUs() {
					t.AddM(r, byPage(t.PrivateOf(cpu, array)))
				}
			}
			sumOf(micro.RAX, added)
			t.LoadM(micro.RCX, micro.At(micro.RSI, 0))
			t.Cmp(micro.RAX, micro.RCX)
			t.Expect(micro.Equal, stormTotal, micro.RSI, micro.RAX, micro.RCX)
			for cpu := range t.CPUs() {
				t.LoadM(micro.RAX, byPage(t.PrivateOf(cpu, counted)))
				t.LoadM(micro.RCX, micro.At(micro.RSI, stormOwnAt+8*int32(cpu)))
				t.Cmp(micro.RAX, micro.RCX)
				t.Expect(micro.Equal, stormLast, micro.RSI, micro.RAX, micro.RCX)
			}
			sumOf(micro.RAX, locked)
			stormPartner(t, base, pages)
			t.LoadM(micro.RCX, micro.At(micro.RDI, stormBlockAt))
			t.Cmp(micro.RAX, micro.RCX)
			t.Expect(micro.Equal, stormLock, micro.RDI, micro.RAX, micro.RCX)
			t.Load(micro.RCX, blocks)
			t.Add(micro.RCX, micro.RAX)
			t.Store(blocks, micro.RCX)
			t.AddImm(micro.RSI, bare.PageSize)
			t.Inc(micro.R8)
			t.CmpImm(micro.R8, int32(pages))
			t.Jcc(micro.NotEqual, page)
			t.Load(micro.RAX, blocks)
			t.Report(name + ".blocks")
		})
		w.report(name)
	}
}

// stormPartner makes RDI the page with the block whose lock is in page R8, half of all pages further. It changes RCX and
// RDX.
func stormPartner(t *bare.Team, base uint64, pages int) {
	t.Lea(micro.RDX, micro.At(micro.R8, int32(pages/2)))
	t.Lea(micro.RCX, micro.At(micro.R8, int32(pages/2-pages)))
	t.CmpImm(micro.RDX, int32(pages))
	t.Cmov(micro.AboveOrEqual, micro.RDX, micro.RCX)
	t.Mov(micro.RDI, micro.RDX)
	t.ShlImm(micro.RDI, 12)
	t.AddImm(micro.RDI, int32(base))
}
