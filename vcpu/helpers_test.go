package vcpu_test

import (
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
)

// irq sends a vCPU a fixed interrupt as a device would.
func (r *rig) irq(v *vcpu.VCPU, vector uint8) { r.send(v, apic.Fixed, vector) }

func (r *rig) send(v *vcpu.VCPU, d apic.Delivery, vector uint8) {
	if v.APIC().Deliver(apic.Message{Delivery: d, Vector: vector, Assert: true, From: apic.FromDevice}) {
		v.Kick()
	}
}
