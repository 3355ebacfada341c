package vcpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"coalesce/vcpu/kvm"
)

// CPUIDSet is what a host can offer a guest: KVM's supported CPUID after this
// project's policy (cpuidrules.go), without anything that is a vCPU's own
// (APIC id, topology). A leaf of zeros is left out. The zero value offers
// nothing. A CPUIDSet is not changed once made.
type CPUIDSet struct {
	leaves []cpuidLeaf // ascending by function, then index
}

// cpuidLeaf is the answer to one CPUID function and sub-leaf.
type cpuidLeaf struct {
	function, index uint32
	reg             [4]uint32 // EAX, EBX, ECX, EDX
}

const (
	eax = iota
	ebx
	ecx
	edx
)

func (l cpuidLeaf) compare(o cpuidLeaf) int {
	if l.function != o.function {
		return int(int64(l.function) - int64(o.function))
	}
	return int(int64(l.index) - int64(o.index))
}

// HostCPUID returns what this host can offer.
func HostCPUID(sys *kvm.System) (*CPUIDSet, error) {
	entries, err := sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	return NewCPUIDSet(entries), nil
}

// NewCPUIDSet applies the policy to what KVM supports.
func NewCPUIDSet(entries []kvm.CPUIDEntry) *CPUIDSet {
	b := make(cpuidBuilder)
	for _, e := range entries {
		r := ruleFor(e.Function, e.Index)
		if r == nil {
			continue
		}
		reg := [4]uint32{e.EAX, e.EBX, e.ECX, e.EDX}
		for i := range reg {
			reg[i] = r.reg[i].allow(reg[i])
		}
		b[cpuidKey{e.Function, e.Index}] = reg
	}
	b.force()
	return b.set()
}

// get returns the answer to a function and sub-leaf, zeros if there is none.
func (s *CPUIDSet) get(function, index uint32) [4]uint32 {
	i, ok := slices.BinarySearchFunc(s.leaves, cpuidLeaf{function: function, index: index}, cpuidLeaf.compare)
	if !ok {
		return [4]uint32{}
	}
	return s.leaves[i].reg
}

// Vendor is the processor's vendor string, e.g. "GenuineIntel".
func (s *CPUIDSet) Vendor() string {
	r := s.get(0, 0)
	b := binary.LittleEndian.AppendUint32(nil, r[ebx])
	b = binary.LittleEndian.AppendUint32(b, r[edx])
	return string(binary.LittleEndian.AppendUint32(b, r[ecx]))
}

// VendorError says that hosts of different vendors cannot share a guest: a
// kernel patches itself for the one it boots on.
type VendorError struct{ First, Other string }

func (e *VendorError) Error() string {
	return fmt.Sprintf("CPU vendors differ: %q and %q", e.First, e.Other)
}

// Model is the processor's family, model and stepping (CPUID 1 EAX).
func (s *CPUIDSet) Model() uint32 { return s.get(1, 0)[eax] }

// Intersect returns what all hosts can offer. Model, stepping, brand and cache
// sizes, which promise no instruction, are the first host's: the client's. Where
// the models differ, IA32_ARCH_CAPABILITIES is not offered: what it says the first
// is safe from need not be true of the others.
func Intersect(first *CPUIDSet, others ...*CPUIDSet) (*CPUIDSet, error) {
	b := first.builder()
	for _, o := range others {
		if o.Vendor() != first.Vendor() {
			return nil, &VendorError{First: first.Vendor(), Other: o.Vendor()}
		}
		for k, x := range b {
			y := o.get(k.function, k.index)
			r := ruleFor(k.function, k.index)
			for i := range x {
				x[i] = r.reg[i].combine(x[i], y[i])
			}
			b[k] = x
		}
		// A bit that takes something away counts even where first has no leaf.
		for _, l := range o.leaves {
			k := cpuidKey{l.function, l.index}
			if _, ok := b[k]; ok {
				continue
			}
			r := ruleFor(l.function, l.index)
			var x [4]uint32
			for i := range x {
				x[i] = r.reg[i].combine(0, l.reg[i])
			}
			b[k] = x
		}
	}
	for _, o := range others {
		if o.Model() != first.Model() {
			b.edit(7, 0, edx, 1<<29, 0)
		}
	}
	b.dropUnequalXSAVE(first, others)
	b.settle()
	return b.set(), nil
}

// Missing names what the guest has been promised in s and have lacks, e.g.
// "avx2 (CPUID 7.0 EBX bit 5)"; empty if a vCPU of s's guest can run there.
func (s *CPUIDSet) Missing(have *CPUIDSet) []string {
	if s.Vendor() != have.Vendor() {
		return []string{fmt.Sprintf("CPU vendor %s (there: %s)", s.Vendor(), have.Vendor())}
	}
	var missing []string
	for _, l := range s.leaves {
		r := ruleFor(l.function, l.index)
		there := have.get(l.function, l.index)
		for i := range l.reg {
			missing = append(missing, r.reg[i].missing(l, i, there[i])...)
		}
	}
	return missing
}

// Topology places a vCPU. Each node of the cluster is one package; there are
// no hardware threads.
type Topology struct {
	// APICID is the vCPU's x2APIC id. Its bits from PackageShift up are the
	// package, those below the core.
	APICID       uint32
	PackageShift uint8
	// CoresPerPackage is how many cores a package can have, 1 to
	// 1<<PackageShift: a constant of the guest, since the guest looks at it
	// when it boots.
	CoresPerPackage uint32
}

// ForVCPU returns what to give to KVM_SET_CPUID2 for one vCPU.
func (s *CPUIDSet) ForVCPU(t Topology) []kvm.CPUIDEntry {
	b := s.builder()
	b.topology(t)
	b.hypervisor()
	full := b.set()
	entries := make([]kvm.CPUIDEntry, len(full.leaves))
	for i, l := range full.leaves {
		entries[i] = kvm.CPUIDEntry{
			Function: l.function, Index: l.index,
			EAX: l.reg[eax], EBX: l.reg[ebx], ECX: l.reg[ecx], EDX: l.reg[edx],
		}
		if hasSubleaves(l.function) {
			entries[i].Flags = kvm.KVM_CPUID_FLAG_SIGNIFCANT_INDEX
		}
	}
	return entries
}

// Encoding of a CPUIDSet, little endian: u16 number of leaves, then per leaf
// function, index, EAX, EBX, ECX, EDX as u32, ascending.
const (
	maxCPUIDLeaves = 128
	cpuidLeafBytes = 24
	// MaxCPUIDBytes bounds an encoded CPUIDSet.
	MaxCPUIDBytes = 2 + maxCPUIDLeaves*cpuidLeafBytes
)

// ErrBadCPUID is wrapped by the errors of DecodeCPUID.
var ErrBadCPUID = errors.New("malformed CPUID set")

// Append appends the encoded set to b.
func (s *CPUIDSet) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(len(s.leaves)))
	for _, l := range s.leaves {
		b = binary.LittleEndian.AppendUint32(b, l.function)
		b = binary.LittleEndian.AppendUint32(b, l.index)
		for _, r := range l.reg {
			b = binary.LittleEndian.AppendUint32(b, r)
		}
	}
	return b
}

// DecodeCPUID decodes a set from another node. A leaf that the policy does not
// know, or a bit it does not allow, is an error: both sides run one version.
func DecodeCPUID(b []byte) (*CPUIDSet, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("%w: %d bytes", ErrBadCPUID, len(b))
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n > maxCPUIDLeaves || len(b) != 2+n*cpuidLeafBytes {
		return nil, fmt.Errorf("%w: %d leaves in %d bytes", ErrBadCPUID, n, len(b))
	}
	s := &CPUIDSet{leaves: make([]cpuidLeaf, n)}
	for i := range s.leaves {
		var w [cpuidLeafBytes / 4]uint32
		if _, err := binary.Decode(b[2+i*cpuidLeafBytes:], binary.LittleEndian, &w); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadCPUID, err)
		}
		l := cpuidLeaf{function: w[0], index: w[1], reg: [4]uint32(w[2:])}
		if i > 0 && s.leaves[i-1].compare(l) >= 0 {
			return nil, fmt.Errorf("%w: leaf %x.%x out of order", ErrBadCPUID, l.function, l.index)
		}
		r := ruleFor(l.function, l.index)
		if r == nil {
			return nil, fmt.Errorf("%w: leaf %x.%x", ErrBadCPUID, l.function, l.index)
		}
		for j, x := range l.reg {
			if r.reg[j].allow(x) != x {
				return nil, fmt.Errorf("%w: leaf %x.%x is %x", ErrBadCPUID, l.function, l.index, l.reg)
			}
		}
		if l.reg == ([4]uint32{}) {
			return nil, fmt.Errorf("%w: leaf %x.%x is empty", ErrBadCPUID, l.function, l.index)
		}
		s.leaves[i] = l
	}
	return s, nil
}
