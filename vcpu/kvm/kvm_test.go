package kvm

import (
	"bytes"
	"errors"
	"io/fs"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

// open opens the host's KVM; a test is skipped only if there is none.
func open(t *testing.T) *System {
	t.Helper()
	s, err := Open(Device)
	if errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	}
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newVCPU(t *testing.T, s *System) *VCPU {
	t.Helper()
	vm, err := s.CreateVM()
	must(t, err)
	t.Cleanup(func() { vm.Close() })
	v, err := vm.CreateVCPU(0)
	must(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open("/dev/null"); !errors.Is(err, ErrNotSupported) || !errors.Is(err, unix.ENOTTY) {
		t.Errorf("not KVM: %v", err)
	}
	if _, err := Open("/dev/none"); !errors.Is(err, ErrNotSupported) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("not there: %v", err)
	}
	var f *FeatureError
	if err := error(&FeatureError{Feature: "X", Since: "9.9", Err: unix.EINVAL}); !errors.As(err, &f) ||
		err.Error() != "X is not supported by this host (Linux 9.9 and newer have it): invalid argument" {
		t.Error(err)
	}
}

func TestSystem(t *testing.T) {
	s := open(t)
	cpuid, err := s.SupportedCPUID()
	must(t, err)
	if len(cpuid) == 0 || cpuid[0].Function != 0 {
		t.Errorf("CPUID %+v", cpuid)
	}
	for name, list := range map[string]func() ([]uint32, error){"MSRs": s.MSRIndexList, "feature MSRs": s.MSRFeatureIndexList} {
		l, err := list()
		must(t, err)
		if len(l) == 0 {
			t.Errorf("no %s", name)
		}
	}
	khz, err := s.TSCKHz()
	must(t, err)
	if khz < 1000 {
		t.Errorf("TSC of %d kHz", khz)
	}
	if n, err := s.CheckExtension(KVM_CAP_IMMEDIATE_EXIT); err != nil || n != 1 {
		t.Errorf("KVM_CAP_IMMEDIATE_EXIT: %d, %v", n, err)
	}
	vm, err := s.CreateVM()
	must(t, err)
	defer vm.Close()
	if err := vm.EnableCap(Cap(9999)); !errors.Is(err, ErrNotSupported) {
		t.Errorf("a capability that is not there: %v", err)
	}
	if err := vm.SetUserMemoryRegion(0, 1, 4096, 0, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("memory at an odd address: %v", err)
	}
}

// What is set is what is got.
func TestRegistersRoundTrip(t *testing.T) {
	s := open(t)
	v := newVCPU(t, s)
	cpuid, err := s.SupportedCPUID()
	must(t, err)
	must(t, v.SetCPUID2(cpuid))

	regs := Regs{RAX: 1, RBX: 2, RSP: 3, R15: 15, RIP: 0x1000, RFLAGS: 0x246}
	must(t, v.SetRegs(regs))
	if got, err := v.Regs(); err != nil || got != regs {
		t.Errorf("regs %+v, %v", got, err)
	}

	sregs, err := v.Sregs()
	must(t, err)
	sregs.CR2 = 0x1234
	sregs.GDT = DTable{Base: 0x5000, Limit: 0x7f}
	must(t, v.SetSregs(sregs))
	if got, err := v.Sregs(); err != nil || got != sregs {
		t.Errorf("sregs %+v, %v", got, err)
	}

	debug := DebugRegs{DR6: 0xffff_0ff0, DR7: 0x400}
	debug.DB[0] = 0x42
	must(t, v.SetDebugRegs(debug))
	if got, err := v.DebugRegs(); err != nil || got != debug {
		t.Errorf("debug registers %+v, %v", got, err)
	}

	image, err := v.XSAVE()
	must(t, err)
	if len(image) != v.XSAVELen() || len(image) < legacyXSAVE {
		t.Errorf("XSAVE image of %d bytes, XSAVELen %d", len(image), v.XSAVELen())
	}
	image[160] = 0x77 // XMM0
	image[512] |= 2   // XSTATE_BV: SSE
	must(t, v.SetXSAVE(image))
	if got, err := v.XSAVE(); err != nil || !bytes.Equal(got, image) {
		t.Errorf("XSAVE image differs: %v", err)
	}
	if err := v.SetXSAVE(image[1:]); err == nil {
		t.Error("took an XSAVE image of another length")
	}

	x, err := v.XCRs()
	must(t, err)
	must(t, v.SetXCRs(x))
	e, err := v.Events()
	must(t, err)
	e.Flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW
	e.NMI.Pending = 1
	must(t, v.SetEvents(e))
	if got, err := v.Events(); err != nil || got.NMI.Pending != 1 {
		t.Errorf("events %+v, %v", got, err)
	}
}

func TestMSRsStopAtTheOneRefused(t *testing.T) {
	v := newVCPU(t, open(t))
	const sysenter, absent, pat = 0x175, 0x1234_5678, 0x277
	n, err := v.SetMSRs([]MSR{{Index: sysenter, Value: 0x42}, {Index: absent, Value: 1}, {Index: pat, Value: 0}})
	if n != 1 || err != nil {
		t.Errorf("set %d, %v", n, err)
	}
	got, err := v.MSRs([]uint32{sysenter, absent, pat})
	must(t, err)
	if want := []MSR{{Index: sysenter, Value: 0x42}}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, err := v.MSRs(make([]uint32, MaxMSRs+1)); err == nil {
		t.Error("asked for too many")
	}
	if err := v.SetCPUID2(make([]CPUIDEntry, maxCPUID+1)); err == nil {
		t.Error("set too many CPUID entries")
	}
}

// An entry that is told to leave at once is a result, not an error.
func TestImmediateExit(t *testing.T) {
	v := newVCPU(t, open(t))
	v.SetImmediateExit(true)
	interrupted, err := v.Enter()
	if !interrupted || err != nil {
		t.Errorf("interrupted %t, %v", interrupted, err)
	}
}

func TestTSCOffset(t *testing.T) {
	s := open(t)
	v := newVCPU(t, s)
	const want = 1 << 44
	if probe, set := s.ProbeTSCOffset(), v.SetTSCOffset(want); (probe == nil) != (set == nil) {
		t.Errorf("the probe says %v, setting one %v", probe, set)
	}
	if err := v.SetTSCOffset(want); errors.Is(err, ErrNotSupported) {
		t.Skip(err)
	} else {
		must(t, err)
	}
	if got, err := v.TSCOffset(); got != want || err != nil {
		t.Errorf("got %#x, %v", got, err)
	}
}
