package vmm

import (
	"coalesce/vcpu/kvm"
)

// makeReport sums up what this node has done.
func (n *node) makeReport(name string) NodeReport {
	r := NodeReport{Node: n.id, Name: name, IPIsIn: n.ipisIn.Load(), Forward: n.forward.Load(),
		Resident: n.mem.Resident(), Waits: n.clock.waits.Load()}
	if n.router != nil {
		r.IPIsOut = n.router.Stats().Remote
	}
	if n.engine != nil {
		r.Memory = n.engine.Stats()
	}
	for _, v := range n.vcpus {
		c := v.Counters()
		cpu := CPUReport{ID: int(v.ID()), APICID: v.APIC().ID(), Time: v.CPUTime(), Entries: c.Entries.Load(),
			Interrupts: c.Interrupts.Load(), Kicks: c.Kicks.Load(), Exits: map[string]uint64{}}
		for i := range c.Exits {
			if count := c.Exits[i].Load(); count > 0 {
				cpu.Exits[kvm.ExitReason(i).String()] = count
			}
		}
		r.CPUs = append(r.CPUs, cpu)
	}
	return r
}

// bytesMoved is what a node's page links carried in both directions.
func (r *NodeReport) bytesMoved() uint64 { return r.Memory.BytesIn + r.Memory.BytesOut }
