package vcpu

import "coalesce/vcpu/kvm"

// Control register bits named here.
const (
	cr0ET = 1 << 4
	cr0NW = 1 << 29
	cr0CD = 1 << 30
)

// reset puts the registers into their state after INIT (SDM volume 3, table
// "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT").
// FPU, vector registers and MSRs stay, as INIT leaves them; of CR0, CD and NW
// stay. The APIC has been reset by its TakeEvents. Thread only.
func (v *VCPU) reset() error {
	if v.incomplete {
		if err := v.settle(); err != nil {
			return err
		}
	}
	s, err := v.kvm.Sregs()
	if err != nil {
		return err
	}
	data := kvm.Segment{Limit: 0xffff, Type: 3, Present: 1, S: 1}
	table := kvm.DTable{Limit: 0xffff}
	err = v.setRegisters(
		kvm.Regs{RIP: 0xfff0, RFLAGS: 2, RDX: v.signature()},
		kvm.Sregs{
			CS: kvm.Segment{Base: 0xffff_0000, Limit: 0xffff, Selector: 0xf000, Type: 0xb, Present: 1, S: 1},
			DS: data, ES: data, FS: data, GS: data, SS: data,
			LDT: kvm.Segment{Limit: 0xffff, Type: 2, Present: 1},
			TR:  kvm.Segment{Limit: 0xffff, Type: 0xb, Present: 1},
			GDT: table, IDT: table,
			CR0: cr0ET | s.CR0&(cr0CD|cr0NW),
		})
	if err != nil {
		return err
	}
	return v.kvm.SetDebugRegs(kvm.DebugRegs{DR6: 0xffff_0ff0, DR7: 0x400})
}

// startAt lets a reset vCPU begin at the page a SIPI names (SDM volume 3, "MP
// Initialization Protocol": CS selector VV00, base 000VV000, RIP 0).
func (v *VCPU) startAt(vector uint8) error {
	r, err := v.kvm.Regs()
	if err != nil {
		return err
	}
	s, err := v.kvm.Sregs()
	if err != nil {
		return err
	}
	r.RIP = 0
	s.CS.Selector = uint16(vector) << 8
	s.CS.Base = uint64(vector) << 12
	return v.setRegisters(r, s)
}

// setRegisters replaces the registers and forgets what was being delivered.
func (v *VCPU) setRegisters(r kvm.Regs, s kvm.Sregs) error {
	s.APICBase = v.apic.Base()
	s.InterruptBitmap = [4]uint64{}
	if err := v.kvm.SetSregs(s); err != nil {
		return err
	}
	if err := v.kvm.SetRegs(r); err != nil {
		return err
	}
	v.injectable = false
	if v.stopped == ErrNoState {
		v.stopped = nil
	}
	return v.kvm.SetEvents(kvm.VCPUEvents{Flags: kvm.KVM_VCPUEVENT_VALID_NMI_PENDING | kvm.KVM_VCPUEVENT_VALID_SHADOW})
}

// signature is what RDX holds after INIT: family, model and stepping.
func (v *VCPU) signature() uint64 {
	for _, e := range v.cfg.CPUID {
		if e.Function == 1 {
			return uint64(e.EAX)
		}
	}
	return 0
}
