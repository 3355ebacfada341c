package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"coalesce/vcpu/kvm"
)

// kvmModules are KVM's vendor modules and their switch for nested paging.
var kvmModules = []struct{ name, nested string }{
	{"kvm_intel", "ept"},
	{"kvm_amd", "npt"},
	{"kvm_pvm", ""},
}

// kvmModule returns the vendor module in use and its switch for nested paging, or "".
func (p *patient) kvmModule() (name, nested string) {
	for _, m := range kvmModules {
		if _, err := fs.Stat(p.root, "sys/module/"+m.name); err == nil {
			return m.name, m.nested
		}
	}
	return "", ""
}

// reload is the command that loads a module anew with a parameter.
func reload(module, parameter string) string {
	return fmt.Sprintf("sudo modprobe -r %s && sudo modprobe %s %s", module, module, parameter)
}

// probeKVM opens the device and creates a VM.
func probeKVM(p *patient) Check {
	sys, err := kvm.Open(p.device)
	if err == nil {
		var vm *kvm.VM
		if vm, err = sys.CreateVM(); err == nil {
			err = vm.Close()
		}
		if err != nil {
			sys.Close()
		}
	}
	c := Check{Status: Missing, Costs: "nothing runs here but the testbed"}
	switch {
	case err == nil:
		p.sys, p.kvm = sys, true
		module, _ := p.kvmModule()
		if module == "" {
			module = "built in"
		}
		return ok("%s opens and makes a VM (%s)", p.device, module)
	case errors.Is(err, fs.ErrPermission):
		c.Mend = DeviceAccess(p.device)
	case p.cpuFlag("vmx"):
		c.Mend = "sudo modprobe kvm_intel eptad=0"
	case p.cpuFlag("svm"):
		c.Mend = "sudo modprobe kvm_amd"
	default:
		c.Mend = "enable VT-x or AMD-V in the firmware, or nested virtualisation in the hypervisor below"
	}
	c.Measured = err.Error()
	return c
}

// emulated is how many times slower than ring 3 ring 0 must be to count as
// emulated. Real hardware is at 1; software that emulates each instruction is
// above 1,000.
const emulated = 20

// probeRing0 times a counting loop in rings 3 and 0.
func probeRing0(p *patient) Check {
	ring3, err3 := spinTime(p.sys, 3)
	p.ring3 = err3 == nil
	ring0, err := spinTime(p.sys, 0)
	c := Check{
		Status: Missing,
		Costs:  "Linux guests do not boot here in useful time; micro guests run in ring 3",
		Mend:   "run on a processor with VT-x or AMD-V (or where the hypervisor below offers nested virtualisation)",
	}
	switch {
	case err != nil:
		c.Measured = fmt.Sprintf("ring 0: %v", err)
	case err3 != nil:
		c.Measured = fmt.Sprintf("%s per loop iteration in ring 0; ring 3: %v", nanos(ring0), err3)
	case ring0 > emulated*ring3:
		c.Measured = fmt.Sprintf("emulated: %s per loop iteration, ring 3 takes %s", nanos(ring0), nanos(ring3))
	default:
		p.ring0Native = true
		return ok("%s per loop iteration, ring 3 takes %s", nanos(ring0), nanos(ring3))
	}
	return c
}

// nanos prints a time in nanoseconds with a useful number of digits.
func nanos(ns float64) string {
	if ns < 10 {
		return fmt.Sprintf("%.2f ns", ns)
	}
	return fmt.Sprintf("%.0f ns", ns)
}

// spinTime measures nanoseconds per iteration of two instructions.
func spinTime(sys *kvm.System, ring uint8) (_ float64, err error) {
	g, err := newMicroGuest(sys, spinProgram, ring, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	n, took, err := g.longRun(5 * time.Millisecond)
	return float64(took.Nanoseconds()) / float64(n), err
}

// longRun finds a count for the mailbox with which a program that counts it down
// runs for at least so long, and returns how long that takes. Each count is tried
// several times for the shortest: the first run brings memory in, and any run can
// be interrupted.
func (g *microGuest) longRun(enough time.Duration) (n uint32, took time.Duration, err error) {
	const least, most, tries = 1 << 7, 1 << 28, 3
	for n = least; ; n *= 8 {
		g.mail(n)
		took = time.Hour
		for range tries {
			start := time.Now()
			if _, err := g.toDoor(); err != nil {
				return n, 0, err
			}
			took = min(took, time.Since(start))
			if took < enough && n < most {
				break // too short already
			}
		}
		if took >= enough || n >= most {
			return n, took, nil
		}
	}
}

// probeMSRExits reads an x2APIC register in the guest and answers for it.
func probeMSRExits(p *patient) Check {
	id, err := msrExit(p.sys)
	if err != nil {
		return Check{
			Status:   Missing,
			Measured: err.Error(),
			Costs:    "the local APIC cannot be ours, and no vCPU can run on another host",
			Mend:     "a kernel 5.10 or newer",
		}
	}
	p.msrExits = true
	return ok("RDMSR 0x802 exits to user space; the guest got the answer (%#x)", id)
}

// msrExit returns what the guest read from the MSR.
func msrExit(sys *kvm.System) (_ byte, err error) {
	const reasons = kvm.KVM_MSR_EXIT_REASON_INVAL | kvm.KVM_MSR_EXIT_REASON_UNKNOWN | kvm.KVM_MSR_EXIT_REASON_FILTER
	g, err := newMicroGuest(sys, msrProgram, 0, func(vm *kvm.VM) error {
		return vm.EnableCap(kvm.KVM_CAP_X86_USER_SPACE_MSR, reasons)
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	exit, err := g.run()
	if err != nil {
		return 0, err
	}
	if exit != kvm.KVM_EXIT_X86_RDMSR || g.cpu.MSR().Index != 0x802 {
		return 0, fmt.Errorf("RDMSR 0x802 ended with exit %q", exit)
	}
	const answer = 0x5a
	g.cpu.CompleteMSR(answer, false)
	got, err := g.toDoor()
	if err == nil && got != answer {
		err = fmt.Errorf("the guest got %#x, not %#x", got, answer)
	}
	return got, err
}

// probeHaltExits halts a guest and lets it go on.
func probeHaltExits(p *patient) Check {
	if err := haltExit(p.sys); err != nil {
		return Check{
			Status:   Missing,
			Measured: err.Error(),
			Costs:    "an idle vCPU cannot be waited for in user space",
			Mend:     "a kernel whose KVM runs without an in-kernel irqchip",
		}
	}
	p.haltExits = true
	return ok("HLT exits to user space without an in-kernel irqchip")
}

func haltExit(sys *kvm.System) (err error) {
	g, err := newMicroGuest(sys, haltProgram, 0, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	exit, err := g.run()
	if err != nil {
		return err
	}
	if exit != kvm.KVM_EXIT_HLT {
		return fmt.Errorf("HLT ended with exit %q", exit)
	}
	_, err = g.toDoor()
	return err
}

// probeTSCScaling asks for a TSC one percent faster, as a guest from a faster host
// would.
func probeTSCScaling(p *patient) Check {
	khz, err := scaleTSC(p.sys)
	if err != nil {
		return Check{
			Status:   Degraded,
			Measured: err.Error(),
			Costs:    "hosts whose TSC differs by more than 250 ppm cannot share a guest",
			Mend:     "none here: the processor must have it (Intel since Skylake servers, AMD)",
		}
	}
	return ok("a guest may have a TSC of %s", khz)
}

func scaleTSC(sys *kvm.System) (_ string, err error) {
	n, err := sys.CheckExtension(kvm.KVM_CAP_TSC_CONTROL)
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", errors.New("KVM_CAP_TSC_CONTROL is 0")
	}
	g, err := newMicroGuest(sys, haltProgram, 0, nil)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	host, err := g.cpu.TSCKHz()
	if err != nil {
		return "", err
	}
	faster := host + host/100
	if err := g.cpu.SetTSCKHz(faster); err != nil {
		return "", err
	}
	got, err := g.cpu.TSCKHz()
	if err == nil && got != faster {
		err = fmt.Errorf("asked for a TSC of %d kHz, got %d", faster, got)
	}
	return fmt.Sprintf("%d kHz on %d kHz", got, host), err
}

// on reports whether a module's yes-no parameter is set, if it says so.
func on(parameter string) bool { return strings.HasPrefix(parameter, "Y") || parameter == "1" }
