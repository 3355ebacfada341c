package vcpu_test

import (
	"testing"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// recordingHandler appends its vector to the list whose length is at dataAt
// and whose entries follow.
func recordingHandler(a *micro.Asm, vector uint8) {
	a.Push(micro.RAX)
	a.Push(micro.RBX)
	a.Push(micro.RCX)
	a.Push(micro.RDX)
	a.IncMem(dataAt)
	a.Load(micro.RBX, dataAt)
	a.ShlImm(micro.RBX, 3)
	a.AddImm(micro.RBX, dataAt)
	a.MovImm(micro.RAX, uint64(vector))
	a.StoreAt(micro.RBX, micro.RAX)
	if vector >= 16 {
		a.WriteMSR(0x80b, 0)
	}
	a.Pop(micro.RDX)
	a.Pop(micro.RCX)
	a.Pop(micro.RBX)
	a.Pop(micro.RAX)
	a.Iretq()
}

func (r *rig) recorded() []uint8 {
	var l []uint8
	for i := range r.RAM.Load(dataAt) {
		l = append(l, uint8(r.RAM.Load(dataAt+8+8*i)))
	}
	return l
}

// Interrupts that come while the guest has them disabled are all taken, the
// highest priority first, once it enables them.
func TestPriorityOrder(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	vectors := []uint8{0x41, 0x91, 0x42, 0x61, 0xe0}
	a := micro.NewAsm(codeAt)
	handlers := map[uint8]micro.Label{}
	a.EnableAPIC()
	a.Out32(micro.PortReport) // the host sends them here
	a.Sti()
	top := a.Here()
	a.Hlt()
	a.Jmp(top)
	for _, x := range vectors {
		handlers[x] = a.Here()
		recordingHandler(a, x)
	}
	must(t, a.Install(r.Machine, codeAt, handlers))
	r.PortHook = func(v *vcpu.VCPU, op *vcpu.PortIO) bool {
		if op.Port == micro.PortReport {
			for _, x := range vectors {
				r.irq(v, x)
			}
		}
		return false
	}
	r.start(v, micro.Options{RIP: codeAt})
	r.until("all are taken", func() bool { return r.RAM.Load(dataAt) == uint64(len(vectors)) })
	want := []uint8{0xe0, 0x91, 0x61, 0x42, 0x41}
	if got := r.recorded(); string(got) != string(want) {
		t.Errorf("order %x, want %x", got, want)
	}
	if n := v.Counters().Interrupts.Load(); n != uint64(len(want)) {
		t.Errorf("%d injected", n)
	}
}

func TestNMI(t *testing.T) {
	r := newRig(t)
	v := r.add(0)
	a := micro.NewAsm(codeAt)
	a.Cli() // an NMI needs no IF
	top := a.Here()
	a.Hlt()
	a.IncMem(dataAt + 0x800)
	a.Jmp(top)
	handler := a.Here()
	recordingHandler(a, 2)
	must(t, a.Install(r.Machine, codeAt, map[uint8]micro.Label{2: handler}))
	r.start(v, micro.Options{RIP: codeAt})
	for n := range uint64(50) {
		r.until("it waits", func() bool { return v.Phase() == vcpu.Waiting })
		r.send(v, apic.NMI, 0)
		r.until("it has taken the NMI and gone on", func() bool { return r.RAM.Load(dataAt) == n+1 && r.RAM.Load(dataAt+0x800) == n+1 })
		r.irq(v, irqVector) // must not wake it: interrupts are disabled
	}
}

// CR8 and the TPR register are one: either holds an interrupt back.
func TestTaskPriority(t *testing.T) {
	for _, c := range []struct {
		name        string
		raise, drop func(a *micro.Asm)
	}{
		{"cr8", func(a *micro.Asm) { setCR8(a, 4) }, func(a *micro.Asm) { setCR8(a, 0) }},
		{"msr", func(a *micro.Asm) { a.WriteMSR(0x808, 0x4f) }, func(a *micro.Asm) { a.WriteMSR(0x808, 0) }},
		{"msr then cr8", func(a *micro.Asm) { a.WriteMSR(0x808, 0x40) }, func(a *micro.Asm) { setCR8(a, 3) }},
		{"cr8 then msr", func(a *micro.Asm) { setCR8(a, 15) }, func(a *micro.Asm) { a.WriteMSR(0x808, 0x3f) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			v := r.add(0)
			a := micro.NewAsm(codeAt)
			a.EnableAPIC()
			c.raise(a)
			a.Sti()
			a.Out32(micro.PortReport) // the host sends 0x41 and 0xf1 here
			for range 20 {
				a.Nop()
			}
			a.Load(micro.RAX, dataAt)
			a.Store(dataAt+0x800, micro.RAX) // how many came before the drop
			readCR8(a)
			a.Store(dataAt+0x808, micro.RAX)
			c.drop(a)
			a.Out32(micro.PortAsk) // an exit, where the host can look
			top := a.Here()
			a.Hlt()
			a.Jmp(top)
			handler := a.Here()
			recordingHandler(a, 0x41)
			must(t, a.Install(r.Machine, codeAt, map[uint8]micro.Label{0x41: handler}))
			r.PortHook = func(v *vcpu.VCPU, op *vcpu.PortIO) bool {
				if op.Port == micro.PortReport {
					r.irq(v, 0x41)
				}
				return false
			}
			r.start(v, micro.Options{RIP: codeAt})
			r.until("the interrupt is taken", func() bool { return r.RAM.Load(dataAt) == 1 })
			if n := r.RAM.Load(dataAt + 0x800); n != 0 {
				t.Error("taken against the task priority")
			}
			if cr8 := r.RAM.Load(dataAt + 0x808); cr8 < 4 {
				t.Errorf("CR8 reads %d while raised", cr8)
			}
		})
	}
}

func setCR8(a *micro.Asm, v uint64) {
	a.MovImm(micro.RAX, v)
	a.Bytes(0x44, 0x0f, 0x22, 0xc0) // mov cr8, rax
}

func readCR8(a *micro.Asm) { a.Bytes(0x44, 0x0f, 0x20, 0xc0) } // mov rax, cr8

func TestMSRs(t *testing.T) {
	const absent = 0x1234_5678
	for _, c := range []struct {
		name  string
		msr   uint32
		write bool
		value uint64 // expected when read
		gp    bool
	}{
		{"x2APIC id", 0x802, false, 5, false},
		{"x2APIC version", 0x803, false, 0x50014, false},
		{"x2APIC id, written", 0x802, true, 0, true},
		{"x2APIC register that is not there", 0x8ff, false, 0, true},
		{"ignored", 0xc001_0055, false, 0, false},
		{"ignored, written", 0xc001_0055, true, 0, false},
		{"unknown", absent, false, 0, true},
		{"unknown, written", absent, true, 0, true},
		{"APIC base", 0x1b, false, 0xfee0_0c00, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			v := r.add(5)
			r.install(codeAt, func(a *micro.Asm) {
				if c.write {
					a.WriteMSR(c.msr, 1)
				} else {
					a.MovImm(micro.RCX, uint64(c.msr))
					a.MovImm(micro.RAX, 0x77)
					a.MovImm(micro.RDX, 0x77)
					a.Rdmsr()
					a.ShlImm(micro.RDX, 32)
					a.Or(micro.RAX, micro.RDX)
					a.Store(dataAt, micro.RAX)
				}
				a.Out8(micro.PortFail, 0)
				a.Hlt()
			})
			r.start(v, micro.Options{RIP: codeAt})
			e := r.event()
			if gp := e.String() == "vcpu 5: guest exception 13"; gp != c.gp {
				t.Fatalf("got %v, want #GP %t", e, c.gp)
			}
			if got := r.RAM.Load(dataAt); !c.gp && !c.write && got != c.value {
				t.Errorf("read %#x, want %#x", got, c.value)
			}
		})
	}
}

// A BSP starts an AP with INIT and SIPI through its ICR, several times over.
func TestINITAndSIPI(t *testing.T) {
	r := newRig(t)
	bsp, ap := r.add(0), r.add(1)
	const apCode = codeAt + 0x1000
	r.install(codeAt, func(a *micro.Asm) {
		a.EnableAPIC()
		a.WriteMSR(0x830, 1<<32|0x4500)                          // INIT, physical, APIC id 1
		a.WriteMSR(0x830, 1<<32|0x4600|micro.TrampolineVector)   // SIPI
		a.WriteMSR(0x830, 1<<32|0x4600|micro.TrampolineVector+1) // ignored: it runs
		top := a.Here()
		a.Hlt()
		a.Jmp(top)
	})
	r.install(apCode, func(a *micro.Asm) {
		a.LockIncMem(dataAt)
		a.Out32(micro.PortReport)
		top := a.Here()
		a.Hlt()
		a.Jmp(top)
	})
	must(t, micro.Trampoline(r.Machine, 1, apCode))
	must(t, ap.Resume(t.Context()))
	r.until("the AP waits for its SIPI", func() bool { return ap.Phase() == vcpu.Waiting })
	if ap.APIC().Activity() != apic.WaitForSIPI {
		t.Errorf("AP is %v", ap.APIC().Activity())
	}
	for n := range uint64(3) {
		r.start(bsp, micro.Options{RIP: codeAt})
		r.until("the AP has started", func() bool { return r.RAM.Load(dataAt) == n+1 && r.Reports.Load() == n+1 })
		must(t, bsp.Pause(t.Context()))
	}
	if n := ap.Counters().Exits[kvm.KVM_EXIT_HLT].Load(); n == 0 {
		t.Error("the AP has not halted")
	}
}
