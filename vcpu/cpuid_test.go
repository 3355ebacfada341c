package vcpu

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"coalesce/vcpu/kvm"
)

var update = flag.Bool("update", false, "write the golden files anew")

// hosts are KVM_GET_SUPPORTED_CPUID of machines this was tried on.
var hosts = []string{"kvm_amd-epyc", "kvm_intel-haswell", "kvm_pvm-zen4"}

func readHost(t testing.TB, name string) *CPUIDSet {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata/cpuid", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	var entries []kvm.CPUIDEntry
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var e kvm.CPUIDEntry
		if _, err := fmt.Sscanf(line, "%x.%x %x %x %x %x", &e.Function, &e.Index, &e.EAX, &e.EBX, &e.ECX, &e.EDX); err != nil {
			t.Fatalf("%s: %q: %v", name, line, err)
		}
		entries = append(entries, e)
	}
	return NewCPUIDSet(entries)
}

func format(entries []kvm.CPUIDEntry) string {
	var b strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&b, "%08x.%x %08x %08x %08x %08x\n", e.Function, e.Index, e.EAX, e.EBX, e.ECX, e.EDX)
	}
	return b.String()
}

// What a guest sees on each host, in full.
func TestForVCPUGolden(t *testing.T) {
	for _, h := range hosts {
		got := format(readHost(t, h).ForVCPU(Topology{APICID: 0x203, PackageShift: 8, CoresPerPackage: 4}))
		golden := filepath.Join("testdata/cpuid", h+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", h, got, want)
		}
	}
}

// find returns an entry of a vCPU's table, zero if it is not there.
func find(entries []kvm.CPUIDEntry, function, index uint32) kvm.CPUIDEntry {
	for _, e := range entries {
		if e.Function == function && e.Index == index {
			return e
		}
	}
	return kvm.CPUIDEntry{}
}

// everything is a host with every bit set in every leaf there could be.
func everything() *CPUIDSet {
	var entries []kvm.CPUIDEntry
	for _, base := range []uint32{0, 0x4000_0000, 0x8000_0000} {
		for f := range uint32(0x30) {
			for i := range uint32(8) {
				const ones = ^uint32(0)
				entries = append(entries, kvm.CPUIDEntry{Function: base + f, Index: i, EAX: ones, EBX: ones, ECX: ones, EDX: ones})
			}
		}
	}
	return NewCPUIDSet(entries)
}

// Whatever a host claims, a guest never gets these, and always gets those.
func TestPolicy(t *testing.T) {
	sets := map[string]*CPUIDSet{"everything": everything(), "nothing": NewCPUIDSet(nil)}
	for _, h := range hosts {
		sets[h] = readHost(t, h)
	}
	for name, s := range sets {
		e := s.ForVCPU(Topology{APICID: 1, PackageShift: 1, CoresPerPackage: 2})
		never := []struct {
			what string
			got  uint32
			bits uint32
		}{
			{"MONITOR", find(e, 1, 0).ECX, 1 << 3},
			{"VMX", find(e, 1, 0).ECX, 1 << 5},
			{"TSC-deadline timer", find(e, 1, 0).ECX, 1 << 24},
			{"PDCM", find(e, 1, 0).ECX, 1 << 15},
			{"debug store", find(e, 1, 0).EDX, 1 << 21},
			{"SGX", find(e, 7, 0).EBX, 1 << 2},
			{"PT", find(e, 7, 0).EBX, 1 << 25},
			{"shadow stacks", find(e, 7, 0).ECX, 1 << 7},
			{"IBT", find(e, 7, 0).EDX, 1 << 20},
			{"SVM", find(e, 0x8000_0001, 0).ECX, 1 << 2},
			{"AMD counters", find(e, 0x8000_0001, 0).ECX, 1<<23 | 1<<24 | 1<<28},
			{"MWAITX", find(e, 0x8000_0001, 0).ECX, 1 << 29},
			{"KVM features", find(e, 0x4000_0001, 0).EAX, ^uint32(0)},
			{"TSC frequency leaf", find(e, 0x15, 0).EAX | find(e, 0x16, 0).EAX, ^uint32(0)},
			{"counters", find(e, 0xa, 0).EAX | find(e, 0x8000_0022, 0).EAX, ^uint32(0)},
			{"MONITOR leaf", find(e, 5, 0).EAX, ^uint32(0)},
			{"SVM leaf", find(e, 0x8000_000a, 0).EDX, ^uint32(0)},
			{"SEV leaf", find(e, 0x8000_001f, 0).EAX, ^uint32(0)},
			{"supervisor XSAVE states", find(e, 0xd, 1).ECX, ^uint32(0)},
		}
		for _, n := range never {
			if n.got&n.bits != 0 {
				t.Errorf("%s: %s is shown: %#x", name, n.what, n.got&n.bits)
			}
		}
		always := []struct {
			what      string
			got, bits uint32
		}{
			{"x2APIC", find(e, 1, 0).ECX, 1 << 21},
			{"hypervisor", find(e, 1, 0).ECX, 1 << 31},
			{"ARAT", find(e, 6, 0).EAX, 1 << 2},
			{"invariant TSC", find(e, 0x8000_0007, 0).EDX, 1 << 8},
		}
		for _, a := range always {
			if a.got&a.bits == 0 {
				t.Errorf("%s: %s is not shown", name, a.what)
			}
		}
		h := find(e, 0x4000_0000, 0)
		if h.EBX != 0x4b4d564b || h.ECX != 0x564b4d56 || h.EDX != 0x4d || h.EAX != 0x4000_0001 {
			t.Errorf("%s: hypervisor leaf %+v", name, h)
		}
	}
}

// All leaves that speak of topology agree, and no cache is shared by two
// packages.
func TestTopologyAgrees(t *testing.T) {
	for _, h := range hosts {
		for _, tp := range []Topology{
			{APICID: 0, PackageShift: 0, CoresPerPackage: 1},
			{APICID: 5, PackageShift: 2, CoresPerPackage: 3},
			{APICID: 0x1_0007, PackageShift: 8, CoresPerPackage: 200},
		} {
			e := readHost(t, h).ForVCPU(tp)
			name := fmt.Sprintf("%s %+v", h, tp)
			one := find(e, 1, 0)
			if one.EBX>>24 != tp.APICID&0xff {
				t.Errorf("%s: initial APIC id %#x", name, one.EBX>>24)
			}
			if htt := one.EDX&(1<<28) != 0; htt != (tp.CoresPerPackage > 1) {
				t.Errorf("%s: HTT %t", name, htt)
			}
			for _, leaf := range []uint32{0xb, 0x1f} {
				smt, core, end := find(e, leaf, 0), find(e, leaf, 1), find(e, leaf, 2)
				if smt.EAX != 0 || smt.EBX != 1 || smt.ECX != 0x100 ||
					core.EAX != uint32(tp.PackageShift) || core.EBX != tp.CoresPerPackage || core.ECX != 0x201 ||
					end.EAX != 0 || end.EBX != 0 || end.ECX != 2 {
					t.Errorf("%s: leaf %x: %+v %+v %+v", name, leaf, smt, core, end)
				}
				for _, l := range []kvm.CPUIDEntry{smt, core, end} {
					if l.EDX != tp.APICID {
						t.Errorf("%s: leaf %x.%x has APIC id %#x", name, leaf, l.Index, l.EDX)
					}
				}
			}
			for _, l := range e {
				if l.Function != 4 && l.Function != 0x8000_001d {
					continue
				}
				sharers, level := l.EAX>>14&0xfff+1, l.EAX>>5&7
				if sharers > 1<<tp.PackageShift || level < 3 && sharers != 1 {
					t.Errorf("%s: cache %x.%x of level %d is shared by %d", name, l.Function, l.Index, level, sharers)
				}
			}
			if h == "kvm_intel-haswell" {
				if find(e, 0x8000_001e, 0).EAX != 0 || find(e, 0x8000_0008, 0).ECX != 0 {
					t.Errorf("%s: AMD's topology leaves on Intel", name)
				}
				continue
			}
			if x := find(e, 0x8000_001e, 0); x.EAX != tp.APICID || x.ECX != tp.APICID>>tp.PackageShift&0xff {
				t.Errorf("%s: 8000001e %+v", name, x)
			}
			if x := find(e, 0x8000_0008, 0).ECX; x&0xff != tp.CoresPerPackage-1 || x>>12&0xf != uint32(tp.PackageShift) {
				t.Errorf("%s: 80000008 ECX %#x", name, x)
			}
		}
	}
}

// change returns a copy of s with bits of a register flipped.
func change(s *CPUIDSet, function, index uint32, reg int, flip uint32) *CPUIDSet {
	b := s.builder()
	k := cpuidKey{function, index}
	v := b[k]
	v[reg] ^= flip
	b[k] = v
	return b.set()
}

func TestIntersectAndMissing(t *testing.T) {
	full := readHost(t, "kvm_amd-epyc")
	for _, c := range []struct {
		name    string
		other   *CPUIDSet
		missing []string
	}{
		{"the same", full, nil},
		{"without AVX2", change(full, 7, 0, ebx, 1<<5), []string{"avx2 (CPUID 7.0 EBX bit 5)"}},
		{"without AES and RDRAND", change(full, 1, 0, ecx, 1<<25|1<<30), []string{"aes (CPUID 1.0 ECX bit 25)", "rdrand (CPUID 1.0 ECX bit 30)"}},
		{"with something more", change(full, 7, 0, ecx, 1<<2), nil},
		{"another stepping", change(full, 1, 0, eax, 3), nil},
		{"another cache", change(full, 0x8000_001d, 2, ecx, 0x400), nil},
		{"fewer address bits", change(full, 0x8000_0008, 0, eax, 0x28^0x27), []string{"CPUID 80000008.0 EAX of 0x3028 (there: 0x3027)"}},
		{"without FPU pointers", change(full, 7, 0, ebx, 1<<13), []string{"CPUID 7.0 EBX bit 13 clear"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := full.Missing(c.other); !slices.Equal(got, c.missing) {
				t.Errorf("missing %q, want %q", got, c.missing)
			}
			both, err := Intersect(full, c.other)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []*CPUIDSet{full, c.other} {
				if m := both.Missing(s); len(m) != 0 {
					t.Errorf("the intersection is missing %q on one of them", m)
				}
			}
			if again, err := Intersect(both, full, c.other); err != nil || !reflect.DeepEqual(again, both) {
				t.Errorf("intersecting again changes it: %v", err)
			}
		})
	}
}

// What the client's processor is safe from, another model need not be.
func TestIntersectModels(t *testing.T) {
	const archCapabilities = 1 << 29
	full := readHost(t, "kvm_intel-haswell")
	if full.get(7, 0)[edx]&archCapabilities == 0 {
		full = change(full, 7, 0, edx, archCapabilities)
	}
	for other, want := range map[*CPUIDSet]bool{full: true, change(full, 1, 0, eax, 0x10): false} {
		both, err := Intersect(full, other)
		if err != nil {
			t.Fatal(err)
		}
		if got := both.get(7, 0)[edx]&archCapabilities != 0; got != want || both.Model() != full.Model() {
			t.Errorf("models %#x and %#x: ARCH_CAPABILITIES %v, want %v", full.Model(), other.Model(), got, want)
		}
	}
}

// An XSAVE component that lies elsewhere takes its features with it.
func TestIntersectXSAVELayout(t *testing.T) {
	full := readHost(t, "kvm_amd-epyc")
	moved := change(full, 0xd, 2, ebx, 0x40)
	both, err := Intersect(full, moved)
	if err != nil {
		t.Fatal(err)
	}
	if x := both.get(0xd, 0); x[eax] != 3 || x[ecx] != 576 {
		t.Errorf("leaf d: %x", x)
	}
	if x := both.get(1, 0)[ecx]; x&(1<<28) != 0 {
		t.Error("AVX without its registers")
	}
	if x := both.get(7, 0)[ebx]; x&(1<<5) != 0 {
		t.Error("AVX2 without its registers")
	}
	if m := full.Missing(moved); len(m) == 0 {
		t.Error("a guest with AVX may run there")
	}
}

func TestVendorsDoNotMix(t *testing.T) {
	amd, intel := readHost(t, "kvm_amd-epyc"), readHost(t, "kvm_intel-haswell")
	_, err := Intersect(amd, intel)
	var v *VendorError
	if !errors.As(err, &v) || v.First != "AuthenticAMD" || v.Other != "GenuineIntel" {
		t.Errorf("got %v", err)
	}
	want := []string{"CPU vendor AuthenticAMD (there: GenuineIntel)"}
	if got := amd.Missing(intel); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestCPUIDEncoding(t *testing.T) {
	for _, h := range hosts {
		s := readHost(t, h)
		b := s.Append(nil)
		if len(b) > MaxCPUIDBytes {
			t.Errorf("%s: %d bytes", h, len(b))
		}
		got, err := DecodeCPUID(b)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: %v", h, err)
		}
	}
	good := readHost(t, "kvm_amd-epyc").Append(nil)
	spoil := func(at int, v byte) []byte {
		b := bytes.Clone(good)
		b[at] = v
		return b
	}
	for name, b := range map[string][]byte{
		"empty":              {},
		"cut":                good[:len(good)-1],
		"longer":             append(bytes.Clone(good), 0),
		"more leaves":        spoil(0, 200),
		"out of order":       spoil(2, 9), // the first leaf's function
		"VMX":                spoil(2+24+8+8, 0x23),
		"a leaf of no rule":  spoil(2+24, 5),
		"another first leaf": spoil(4, 1),
	} {
		if _, err := DecodeCPUID(b); !errors.Is(err, ErrBadCPUID) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeCPUID(f *testing.F) {
	for _, h := range hosts {
		f.Add(readHost(f, h).Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeCPUID(b)
		if err != nil {
			if !errors.Is(err, ErrBadCPUID) {
				t.Fatalf("not ErrBadCPUID: %v", err)
			}
			return
		}
		if !bytes.Equal(s.Append(nil), b) {
			t.Fatal("encodes to something else")
		}
		// Whatever it is, it can be worked with.
		host := readHost(t, "kvm_amd-epyc")
		s.Missing(host)
		host.Missing(s)
		s.ForVCPU(Topology{APICID: 3, PackageShift: 1, CoresPerPackage: 2})
		if both, err := Intersect(host, s); err == nil {
			if m := both.Missing(host); len(m) != 0 {
				t.Fatalf("intersection is missing %q", m)
			}
		}
	})
}
