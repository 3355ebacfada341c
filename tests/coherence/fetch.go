package coherence

import (
	"coalesce/guest/micro"
	"coalesce/tests/bare"
)

// Kinds of failures.
const (
	fetchStale  = 10 + iota // whose, at least, what it returned
	fetchFuture             // whose, at most, what it returned
)

// functions are in a page of code that one vCPU rewrites: mov eax, VERSION; ret.
const (
	functions    = 64
	functionSize = bare.PageSize / functions
	functionCode = 0xb8 | 0xc3<<40 // the version is in between
)

// fetch has every vCPU rewrite the functions of a page of its own, now and then, and announce each version of them when
// all are written; and call functions of everybody's pages, which must be no older than announced before and no newer
// than may have been written since. early breaks it: versions are announced before they are written.
//
// It reports each vCPU's calls and rewritings together, the longest of them, and the versions written in all.
func fetch(name string, cycles uint64, early bool) part {
	return func(t *bare.Team) {
		code := t.Shared(t.Homes(1, t.CPUs())...)
		announced := t.Shared(t.Homes(2, t.CPUs())...) // a word in a page of each
		version := t.Private(1)
		w := newWatch(t)
		announce := func() { t.StoreM(micro.At(micro.RDI, 0), micro.RBX) }
		// own makes RSI the vCPU's page of code and RDI the page of its announcement; it changes RAX.
		own := func(cpu micro.Reg) {
			t.Mov(micro.RAX, cpu)
			t.ShlImm(micro.RAX, 12)
			t.Lea(micro.RSI, micro.At(micro.RAX, int32(code)))
			t.Lea(micro.RDI, micro.At(micro.RAX, int32(announced)))
		}
		// write emits a loop that writes the version in RBX. It changes RAX, RCX, RDX and RBP.
		write := func() {
			t.Mov(micro.RAX, micro.RBX)
			t.ShlImm(micro.RAX, 8)
			t.MovImm(micro.RDX, functionCode)
			t.Or(micro.RAX, micro.RDX)
			t.MovImm(micro.RCX, functions)
			t.Mov(micro.RBP, micro.RSI)
			next := t.Here()
			t.StoreM(micro.At(micro.RBP, 0), micro.RAX)
			t.AddImm(micro.RBP, functionSize)
			t.Dec(micro.RCX)
			t.Jcc(micro.NotEqual, next)
		}
		own(micro.R15)
		t.Xor(micro.RBX, micro.RBX)
		write()
		t.Barrier()

		w.start(cycles)
		again, call, lap := t.Here(), t.Label(), t.Label()
		t.Random(micro.RBX)
		t.Mov(micro.RAX, micro.RBX)
		t.AndImm(micro.RAX, 7)
		t.Jcc(micro.NotEqual, call)
		own(micro.R15)
		t.IncMem(version)
		t.Load(micro.RBX, version)
		if early {
			announce()
			write()
		} else {
			write()
			announce()
		}
		t.Jmp(lap)

		t.Bind(call)
		t.ShrImm(micro.RBX, 3)
		// A vCPU: 16 random bits times their number.
		t.Mov(micro.R10, micro.RBX)
		t.AndImm(micro.R10, 0xffff)
		t.MovImm(micro.RCX, uint64(t.CPUs()))
		t.Imul(micro.R10, micro.RCX)
		t.ShrImm(micro.R10, 16)
		own(micro.R10)
		t.ShrImm(micro.RBX, 16)
		t.AndImm(micro.RBX, functions-1)
		t.MovImm(micro.RCX, functionSize)
		t.Imul(micro.RBX, micro.RCX)
		t.Add(micro.RSI, micro.RBX)
		t.LoadM(micro.RBP, micro.At(micro.RDI, 0))
		t.Xor(micro.RAX, micro.RAX)
		t.Cpuid() // executing code that another processor has written takes serialization (SDM volume 3, 9.1.3)
		t.CallReg(micro.RSI)
		t.LoadM(micro.R11, micro.At(micro.RDI, 0))
		t.Cmp(micro.RAX, micro.RBP)
		t.Expect(micro.AboveOrEqual, fetchStale, micro.R10, micro.RBP, micro.RAX)
		t.Inc(micro.R11)
		t.Cmp(micro.RAX, micro.R11)
		t.Expect(micro.BelowOrEqual, fetchFuture, micro.R10, micro.R11, micro.RAX)
		t.Bind(lap)
		w.lap(again)
		t.Barrier()
		t.Leader(func() {
			addUp(t, micro.RAX, version)
			t.Report(name + ".versions")
		})
		w.report(name)
	}
}
