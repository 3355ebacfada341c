// Package microvm runs the bare-metal guests of package micro on real vCPUs:
// for tests, probes and benchmarks. It provides what a machine would: memory,
// an interrupt router, and answers to the ports that micro guests use.
package microvm

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// Registers turns a micro guest's start into KVM's structures.
func Registers(e micro.Entry) (kvm.Regs, kvm.Sregs) {
	data := segment(e.Data)
	return kvm.Regs{RIP: e.RIP, RSP: e.RSP, RFLAGS: e.RFLAGS},
		kvm.Sregs{
			CS: segment(e.CS), DS: data, ES: data, FS: data, GS: data, SS: data,
			TR: segment(e.TR), LDT: kvm.Segment{Unusable: 1},
			GDT: kvm.DTable{Base: e.GDTBase, Limit: e.GDTLimit},
			IDT: kvm.DTable{Base: e.IDTBase, Limit: e.IDTLimit},
			CR0: e.CR0, CR3: e.CR3, CR4: e.CR4, EFER: e.EFER,
		}
}

func segment(s micro.Segment) kvm.Segment {
	return kvm.Segment{
		Base: s.Base, Limit: s.Limit, Selector: s.Selector, Type: s.Type,
		Present: s.Present, DPL: s.DPL, DB: s.DB, S: s.S, L: s.L, G: s.G,
	}
}

// Event is something a micro guest's vCPU tells the outside.
type Event struct {
	VCPU *vcpu.VCPU
	Kind EventKind
	Code uint8 // Fault: the exception; Fail: the program's number
	Err  error // Fatal
}

// EventKind says what an Event is about.
type EventKind int

const (
	Fault    EventKind = iota // an exception, see micro.PortFault
	Fail                      // see micro.PortFail
	Shutdown                  // triple fault
	Fatal                     // the vCPU cannot go on
)

func (e Event) String() string {
	switch e.Kind {
	case Fault:
		return fmt.Sprintf("%v: guest exception %d", e.VCPU, e.Code)
	case Fail:
		return fmt.Sprintf("%v: guest program failed: check %#x", e.VCPU, e.Code)
	case Shutdown:
		return fmt.Sprintf("%v: triple fault", e.VCPU)
	}
	return fmt.Sprintf("%v: %v", e.VCPU, e.Err)
}

// VM is a VM for micro guests.
type VM struct {
	*vcpu.VM
	RAM    *RAM
	Router *apic.Router
	// Events gets what goes wrong; once it is full, further events are lost.
	Events chan Event
	// PortHook, if not nil, sees every port access before the built-in
	// answers and takes it by returning true. On the vCPU's thread.
	PortHook func(v *vcpu.VCPU, op *vcpu.PortIO) bool
	// PortError, if not nil, is the answer to every port access.
	PortError error
	// OnExit is vcpu.Config.OnExit of vCPUs added later.
	OnExit func(*vcpu.VCPU)

	cpuid   *vcpu.CPUIDSet
	Reports atomic.Uint64 // writes to micro.PortReport
}

// New makes a VM over ram, which it does not own.
func New(sys *kvm.System, ram *RAM) (*VM, error) {
	set, err := vcpu.HostCPUID(sys)
	if err != nil {
		return nil, err
	}
	m, err := vcpu.NewVM(sys, 0)
	if err != nil {
		return nil, err
	}
	if err := m.SetMemory(0, 0, uint64(ram.Size()), ram.addr(), 0); err != nil {
		m.Close()
		return nil, err
	}
	return &VM{
		VM: m, RAM: ram,
		Router: apic.NewRouter(func(uint8) {}),
		Events: make(chan Event, 64),
		cpuid:  set,
	}, nil
}

// Add makes a vCPU whose APIC id is its id; 0 is the BSP.
func (m *VM) Add(id uint32) (*vcpu.VCPU, error) {
	a := apic.New(id, id == 0, m.Router, vcpu.Clock{})
	v, err := m.NewVCPU(vcpu.Config{
		ID: id, APIC: a, Exits: (*exits)(m), OnExit: m.OnExit,
		CPUID: m.cpuid.ForVCPU(vcpu.Topology{APICID: id, PackageShift: 8, CoresPerPackage: micro.MaxVCPUs}),
	})
	if err != nil {
		return nil, err
	}
	m.Router.SetLocal(a, v.Kick)
	return v, nil
}

// Start gives a vCPU a micro guest's registers and lets it run.
func (m *VM) Start(ctx context.Context, v *vcpu.VCPU, e micro.Entry) error {
	regs, sregs := Registers(e)
	if err := v.Setup(ctx, regs, sregs, e.XCR0); err != nil {
		return err
	}
	return v.Resume(ctx)
}

// exits answers a micro guest's device accesses.
type exits VM

func (x *exits) PortIO(v *vcpu.VCPU, op *vcpu.PortIO) error {
	if x.PortError != nil {
		return x.PortError
	}
	if x.PortHook != nil && x.PortHook(v, op) {
		return nil
	}
	switch {
	case op.Write && op.Port == micro.PortFault:
		x.event(Event{VCPU: v, Kind: Fault, Code: op.Data[0]})
	case op.Write && op.Port == micro.PortFail:
		x.event(Event{VCPU: v, Kind: Fail, Code: op.Data[0]})
	case op.Write && op.Port == micro.PortReport:
		x.Reports.Add(1)
	case !op.Write:
		answer(op.Data)
	}
	return nil
}

func (x *exits) MMIO(_ *vcpu.VCPU, op *vcpu.MMIO) error {
	if !op.Write {
		answer(op.Data)
	}
	return nil
}

// answer fills data with micro.Answer, over and over.
func answer(data []byte) {
	var a [4]byte
	binary.LittleEndian.PutUint32(a[:], micro.Answer)
	for i := range data {
		data[i] = a[i%4]
	}
}

func (x *exits) Shutdown(v *vcpu.VCPU) { x.event(Event{VCPU: v, Kind: Shutdown}) }

func (x *exits) Fatal(v *vcpu.VCPU, err error) {
	x.event(Event{VCPU: v, Kind: Fatal, Err: err})
}

func (x *exits) event(e Event) {
	select {
	case x.Events <- e:
	default:
	}
}
