package vcpu_test

import (
	"context"
	"testing"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
)

func TestSelfCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		vectors micro.Vectors
	}{{"sse", micro.SSE}, {"avx", micro.AVX}, {"avx512", micro.AVX512}} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			v := r.add(0)
			must(t, micro.SelfCheck(r.Machine, micro.SelfCheckOptions{
				Code: codeAt, Data: dataAt, Vectors: c.vectors, Rounds: 20,
				Timer: 1_000_000, TimerVector: irqVector, IO: true,
			}))
			r.start(v, micro.Options{RIP: codeAt})
			status := func() micro.Status { return micro.SelfCheckStatus(dataAt, r.RAM.Load) }
			r.until("it has made 300 passes", func() bool { return status().Passes > 300 })
			r.until("the timer has ticked 5 times", func() bool { return status().Ticks > 5 })
			must(t, v.Pause(context.Background()))
			n := v.Counters()
			t.Logf("%+v: %d exits io, %d mmio, %d wrmsr, %d interrupted", status(), n.Exits[kvm.KVM_EXIT_IO].Load(), n.Exits[kvm.KVM_EXIT_MMIO].Load(), n.Exits[kvm.KVM_EXIT_X86_WRMSR].Load(), n.Interrupted.Load())
		})
	}
	_ = vcpu.Paused
}
