package vcpu_test

import (
	"context"
	"testing"

	"coalesce/guest/micro"
	"coalesce/vcpu"
)

// What an exit costs from guest to guest, its handling in user space included:
// the loop of each benchmark, in ring 3, is little else.
func BenchmarkExit(b *testing.B) {
	for _, c := range []struct {
		name string
		ring int
		op   func(a *micro.Asm)
	}{
		{"port", 3, func(a *micro.Asm) { a.Out32(micro.PortReport) }},
		{"mmio", 3, func(a *micro.Asm) { a.Load32At(micro.RAX, micro.RSI) }},
		{"x2apic", 0, func(a *micro.Asm) { a.Rdmsr() }},
	} {
		b.Run(c.name, func(b *testing.B) {
			r := newRig(b)
			v := r.add(0)
			r.RAM.Store(dataAt, uint64(b.N))
			r.install(codeAt, func(a *micro.Asm) {
				a.MovImm(micro.RCX, 0x802)
				a.MovImm(micro.RSI, micro.MMIOAsk)
				top := a.Here()
				c.op(a)
				a.DecMem(dataAt)
				a.Jcc(micro.NotEqual, top)
				a.Out8(micro.PortFail, 0)
				end := a.Here()
				a.Pause()
				a.Jmp(end)
			})
			b.ResetTimer()
			r.start(v, micro.Options{RIP: codeAt, Ring: c.ring})
			<-r.Events
		})
	}
}

// An interrupt sent to a vCPU until its handler has run.
func BenchmarkInterrupt(b *testing.B) {
	b.Run("halted", func(b *testing.B) {
		r := newRig(b)
		v := r.add(0)
		must(b, micro.HaltLoop(r.Machine, codeAt, irqVector, dataAt))
		r.start(v, micro.Options{RIP: codeAt})
		r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
		benchmarkInterrupts(b, r, v)
	})
	b.Run("running", func(b *testing.B) {
		r := newRig(b)
		v := r.add(0)
		r.startSpinInRing3(v)
		benchmarkInterrupts(b, r, v)
	})
}

func benchmarkInterrupts(b *testing.B, r *rig, v *vcpu.VCPU) {
	start := r.RAM.Load(dataAt)
	b.ResetTimer()
	for i := range uint64(b.N) {
		r.irq(v, irqVector)
		for r.RAM.Load(dataAt) == start+i {
		}
	}
}

// Taking a running vCPU's state away and giving it back.
func BenchmarkRecallRestore(b *testing.B) {
	ctx := context.Background()
	r := newRig(b)
	v := r.add(0)
	r.startSpinInRing3(v)
	b.ResetTimer()
	for range b.N {
		s, err := v.Recall(ctx)
		must(b, err)
		must(b, v.Restore(ctx, s))
		must(b, v.Resume(ctx))
	}
}
