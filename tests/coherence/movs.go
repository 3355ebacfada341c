package coherence

import (
	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// Kinds of failures.
const (
	movsFight   = 40 + iota
	movsPointer // which vCPU, expected, found
	movsResult
)

// The instruction lies in two pages and copies a quadword from two pages to two others. Each of the three places is
// where two entries of the root page table meet, so that the walk to each of the six pages goes by three tables of its
// own.
const (
	movsCode  = 2<<39 - 1
	movsFrom  = 4<<39 - 4
	movsTo    = 6<<39 - 4
	movsValue = 0x0123_4567_89ab_cdef

	movsPages  = 6     // that the instruction touches
	movsTables = 6 * 3 // that the walks to them touch, besides the root
	// In each of these pages each vCPU has a word of its own here: in a page table, of an entry that nothing uses.
	movsOwnAt = 0x400
)

// movs has every vCPU execute that instruction again and again. Before each time it writes to up to 15 random ones of
// its pages, with tables of the page tables, too, and then waits for a random time of up to pace cycles, in which
// others take them: nobody has them all when it begins.
//
// It reports each vCPU's instructions and the longest of them, in cycles, all cycles they took, and the longest time
// for which it did not run although it needed nothing but a processor.
func movs(name string, tables bool, cycles, pace uint64) part {
	return func(t *bare.Team) {
		turn := 0
		home := func() int {
			turn++
			return turn % t.CPUs()
		}
		// Where everybody finds the pages to fight over.
		var fought []uint64
		for _, place := range []uint64{movsCode, movsFrom, movsTo} {
			for i := range uint64(2) {
				gpa := t.PageAt(home())
				page := t.MapShared(gpa)
				fought = append(fought, page)
				walk := t.MapApart((place+8*i)&^(bare.PageSize-1), gpa, home)
				if tables {
					fought = append(fought, walk...)
				}
			}
		}
		t.Barrier()
		t.Leader(func() {
			// movsq is 48 a5; behind it ret.
			t.MovImm(micro.RSI, movsCode)
			t.MovImm(micro.RAX, 0xc3a548)
			t.StoreByteM(micro.At(micro.RSI, 0), micro.RAX)
			t.ShrImm(micro.RAX, 8)
			t.StoreByteM(micro.At(micro.RSI, 1), micro.RAX)
			t.ShrImm(micro.RAX, 8)
			t.StoreByteM(micro.At(micro.RSI, 2), micro.RAX)
			t.MovImm(micro.RSI, movsFrom)
			t.MovImm(micro.RAX, movsValue)
			t.StoreM(micro.At(micro.RSI, 0), micro.RAX)
		})
		t.Barrier()

		wrote := t.Private(len(fought))
		spent, longest, began, stalled := t.Private(1), t.Private(1), t.Private(1), t.Private(1)
		list := t.Data(words(fought...))
		w := newWatch(t)
		w.start(cycles)
		t.Xor(micro.R9, micro.R9)
		again := t.Here()
		// RBX: writes to go.
		t.Random(micro.RBX)
		t.AndImm(micro.RBX, 15)
		next, enough := t.Here(), t.Label()
		t.Test(micro.RBX, micro.RBX)
		t.Jcc(micro.Equal, enough)
		t.Dec(micro.RBX)
		t.Random(micro.R8)
		t.AndImm(micro.R8, 0xffff)
		t.MovImm(micro.RCX, uint64(len(fought)))
		t.Imul(micro.R8, micro.RCX)
		t.ShrImm(micro.R8, 16)
		t.LoadM(micro.RSI, micro.AtIndex(micro.R9, micro.R8, 8, int32(list)))
		mine, count := micro.AtIndex(micro.RSI, micro.R15, 8, movsOwnAt), micro.AtIndex(micro.R9, micro.R8, 8, int32(wrote))
		t.LoadM(micro.RAX, mine)
		t.LoadM(micro.RCX, count)
		t.Cmp(micro.RAX, micro.RCX)
		t.Expect(micro.Equal, movsFight, micro.RSI, micro.RCX, micro.RAX)
		t.AddImm(micro.RCX, 2) // bit 0 stays 0: not present
		t.StoreM(mine, micro.RCX)
		t.StoreM(count, micro.RCX)
		t.Jmp(next)
		t.Bind(enough)
		t.Random(micro.RBX)
		t.AndImm(micro.RBX, 0xffff)
		t.MovImm(micro.RCX, pace)
		t.Imul(micro.RBX, micro.RCX)
		t.ShrImm(micro.RBX, 16)
		t.Now()
		t.Add(micro.RBX, micro.RAX)
		wait, ran := t.Here(), t.Label()
		t.Mov(micro.RCX, micro.RAX)
		t.Pause()
		t.Now()
		t.Mov(micro.R8, micro.RAX)
		t.Sub(micro.R8, micro.RCX)
		t.CmpMem(micro.R8, stalled)
		t.Jcc(micro.BelowOrEqual, ran)
		t.Store(stalled, micro.R8)
		t.Bind(ran)
		t.Cmp(micro.RAX, micro.RBX)
		t.Jcc(micro.Below, wait)

		t.MovImm(micro.RSI, movsFrom)
		t.MovImm(micro.RDI, movsTo)
		t.MovImm(micro.RBP, movsCode)
		t.Now()
		t.Store(began, micro.RAX)
		t.CallReg(micro.RBP)
		t.Now()
		t.Load(micro.RCX, began)
		t.Sub(micro.RAX, micro.RCX)
		t.AddToM(micro.Abs(spent), micro.RAX)
		short := t.Label()
		t.CmpMem(micro.RAX, longest)
		t.Jcc(micro.BelowOrEqual, short)
		t.Store(longest, micro.RAX)
		t.Bind(short)
		for _, p := range []struct {
			r  micro.Reg
			at uint64
		}{{micro.RSI, movsFrom + 8}, {micro.RDI, movsTo + 8}} {
			t.MovImm(micro.RAX, p.at)
			t.Cmp(p.r, micro.RAX)
			t.Expect(micro.Equal, movsPointer, micro.R15, micro.RAX, p.r)
		}
		t.LoadM(micro.RAX, micro.At(micro.RDI, -8))
		t.MovImm(micro.RCX, movsValue)
		t.Cmp(micro.RAX, micro.RCX)
		t.Expect(micro.Equal, movsResult, micro.RDI, micro.RCX, micro.RAX)
		w.lap(again)
		t.Barrier()
		for cpu := range t.CPUs() {
			t.Leader(func() {
				t.Load(micro.RAX, t.PrivateOf(cpu, longest))
				t.Report(reportOf(name, "instruction", cpu))
				t.Load(micro.RAX, t.PrivateOf(cpu, spent))
				t.Report(reportOf(name, "spent", cpu))
				t.Load(micro.RAX, t.PrivateOf(cpu, stalled))
				t.Report(reportOf(name, "stalled", cpu))
			})
		}
		w.report(name)
	}
}
