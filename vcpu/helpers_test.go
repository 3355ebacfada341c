package vcpu_test

import (
	"context"
	"testing"

	"golang.org/x/sys/cpu"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
	"coalesce/vcpu/microvm"
)

// irq sends a vCPU a fixed interrupt as a device would.
func (r *rig) irq(v *vcpu.VCPU, vector uint8) { r.send(v, apic.Fixed, vector) }

func (r *rig) send(v *vcpu.VCPU, d apic.Delivery, vector uint8) {
	if v.APIC().Deliver(apic.Message{Delivery: d, Vector: vector, Assert: true, From: apic.FromDevice}) {
		v.Kick()
	}
}

// vectorLevels returns the vector register sets that a guest can use here.
func vectorLevels(t testing.TB) []micro.Vectors {
	t.Helper()
	levels := []micro.Vectors{micro.SSE}
	have := map[micro.Vectors]bool{
		micro.AVX:    cpu.X86.HasAVX,
		micro.AVX512: cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW,
	}
	for _, l := range []micro.Vectors{micro.AVX, micro.AVX512} {
		if !have[l] {
			continue
		}
		r := newRig(t)
		e, err := r.Entry(micro.Options{XCR0: l.XCR0()})
		must(t, err)
		regs, sregs := microvm.Registers(e)
		if err := r.add(0).Setup(context.Background(), regs, sregs, e.XCR0); err != nil {
			t.Logf("KVM gives guests no %v: %v", l, err)
			continue
		}
		levels = append(levels, l)
	}
	return levels
}

func bestVectors(t testing.TB) micro.Vectors {
	l := vectorLevels(t)
	return l[len(l)-1]
}
