package vcpu

import "slices"

// cpuidKey names a leaf.
type cpuidKey struct{ function, index uint32 }

// cpuidBuilder is a CPUIDSet being made.
type cpuidBuilder map[cpuidKey][4]uint32

func (s *CPUIDSet) builder() cpuidBuilder {
	b := make(cpuidBuilder, len(s.leaves))
	for _, l := range s.leaves {
		b[cpuidKey{l.function, l.index}] = l.reg
	}
	return b
}

// set makes the set, without empty leaves.
func (b cpuidBuilder) set() *CPUIDSet {
	s := &CPUIDSet{}
	for k, reg := range b {
		if reg != ([4]uint32{}) {
			s.leaves = append(s.leaves, cpuidLeaf{k.function, k.index, reg})
		}
	}
	slices.SortFunc(s.leaves, cpuidLeaf.compare)
	return s
}

// edit changes one register of a leaf.
func (b cpuidBuilder) edit(function, index uint32, reg int, clear, set uint32) {
	k := cpuidKey{function, index}
	v := b[k]
	v[reg] = v[reg]&^clear | set
	b[k] = v
}

// force sets what every guest gets whether KVM lists it or not: what this
// project provides itself or requires of each host.
func (b cpuidBuilder) force() {
	b.edit(1, 0, ecx, 0, 1<<21)          // x2APIC: ours
	b.edit(1, 0, ecx, 0, 1<<31)          // hypervisor
	b.edit(6, 0, eax, 0, 1<<2)           // ARAT: our timer runs in every C-state
	b.edit(0x8000_0007, 0, edx, 0, 1<<8) // invariant TSC: every host's clocksource
	b.edit(0, 0, eax, ^uint32(0), 0x1f)  // the last leaf: topology()
	lastExtended := uint32(0x8000_0008)
	if b.amd() {
		lastExtended = 0x8000_0021
	}
	b.edit(0x8000_0000, 0, eax, ^uint32(0), lastExtended)
	b.settle()
}

// Register sets of XSAVE that come and go together, and the features that
// need them (CPUID 7 and 1).
const (
	xcr0AVX    = 1 << 2
	xcr0AVX512 = 7 << 5
	xcr0PKRU   = 1 << 9
	xcr0AMX    = 3 << 17
)

// settle restores what must agree after leaves were combined: a register set
// without its layout goes, features without their register set go, and the
// size of the XSAVE area is that of what is left.
func (b cpuidBuilder) settle() {
	d := b[cpuidKey{0xd, 0}]
	xcr0 := d[eax]
	size := uint32(576) // legacy area and header
	for i := uint32(2); i < 32; i++ {
		if _, ok := b[cpuidKey{0xd, i}]; !ok {
			xcr0 &^= 1 << i
		}
	}
	for _, group := range []uint32{xcr0AVX512, xcr0AMX} {
		if xcr0&group != group {
			xcr0 &^= group
		}
	}
	for i := uint32(2); i < 32; i++ {
		k := cpuidKey{0xd, i}
		if xcr0&(1<<i) == 0 {
			delete(b, k)
			continue
		}
		size = max(size, b[k][eax]+b[k][ebx])
	}
	if xcr0 != 0 {
		b[cpuidKey{0xd, 0}] = [4]uint32{eax: xcr0, ebx: size, ecx: size}
	} else {
		delete(b, cpuidKey{0xd, 0})
		delete(b, cpuidKey{0xd, 1})
	}
	if _, ok := b[cpuidKey{7, 0}]; ok {
		var last uint32 // sub-leaf
		for k := range b {
			if k.function == 7 {
				last = max(last, k.index)
			}
		}
		b.edit(7, 0, eax, ^uint32(0), last)
	}
	if xcr0&xcr0PKRU == 0 {
		b.edit(7, 0, ecx, mask(3), 0) // PKU
	}
	if xcr0&xcr0AVX == 0 {
		b.edit(1, 0, ecx, mask(12, 28, 29), 0)       // FMA, AVX, F16C
		b.edit(7, 0, ebx, mask(5), 0)                // AVX2
		b.edit(7, 0, ecx, mask(9, 10), 0)            // VAES, VPCLMULQDQ
		b.edit(7, 1, eax, mask(4, 23), 0)            // AVX-VNNI, AVX-IFMA
		b.edit(7, 1, edx, mask(4, 5, 10), 0)         // AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16
		b.edit(0x8000_0001, 0, ecx, mask(11, 16), 0) // XOP, FMA4
	}
	if xcr0&xcr0AVX512 == 0 {
		b.edit(7, 0, ebx, mask(16, 17, 21, 26, 27, 28, 30, 31), 0)
		b.edit(7, 0, ecx, mask(1, 6, 11, 12, 14), 0)
		b.edit(7, 0, edx, mask(2, 3, 8, 23), 0)
		b.edit(7, 1, eax, mask(5), 0)
	}
	if xcr0&xcr0AMX == 0 {
		b.edit(7, 0, edx, mask(22, 24, 25), 0)
		b.edit(7, 1, eax, mask(21), 0)
		delete(b, cpuidKey{0x1d, 0})
		delete(b, cpuidKey{0x1d, 1})
		delete(b, cpuidKey{0x1e, 0})
	}
}

// dropUnequalXSAVE removes XSAVE components whose place differs between the
// hosts: an image would not fit.
func (b cpuidBuilder) dropUnequalXSAVE(first *CPUIDSet, others []*CPUIDSet) {
	for i := uint32(2); i < 64; i++ {
		for _, o := range others {
			if o.get(0xd, i) != first.get(0xd, i) {
				delete(b, cpuidKey{0xd, i})
			}
		}
	}
}

// topology makes the leaves that place a vCPU: leaf 1, 0xB, 0x1F, and AMD's
// 0x80000008 and 0x8000001E; and says of each cache who shares it.
func (b cpuidBuilder) topology(t Topology) {
	ids := uint32(1) << t.PackageShift // APIC ids of a package
	core := t.APICID & (ids - 1)
	several := t.CoresPerPackage > 1

	// SDM volume 2, CPUID: EBX 23:16 counts addressable ids, valid with HTT.
	b.edit(1, 0, ebx, 0xffff_0000, t.APICID&0xff<<24|min(ids, 255)<<16)
	b.edit(1, 0, edx, 1<<28, bitIf(several, 28)) // HTT

	// Levels: SMT (one thread per core), core, end.
	for _, leaf := range []uint32{0xb, 0x1f} {
		b[cpuidKey{leaf, 0}] = [4]uint32{0, 1, 0 | 1<<8, t.APICID}
		b[cpuidKey{leaf, 1}] = [4]uint32{uint32(t.PackageShift), t.CoresPerPackage, 1 | 2<<8, t.APICID}
		b[cpuidKey{leaf, 2}] = [4]uint32{0, 0, 2, t.APICID}
	}

	b.shareCaches(4, ids)
	b.shareCaches(0x8000_001d, ids)
	for k, reg := range b {
		// Leaf 4 EAX 31:26: core ids of a package, minus 1, six bits.
		if k.function == 4 {
			reg[eax] = reg[eax]&^(0x3f<<26) | min(ids-1, 63)<<26
			b[k] = reg
		}
	}

	if b.amd() {
		b.edit(0x8000_0001, 0, ecx, 0, bitIf(several, 1)) // CmpLegacy
		// AMD APM volume 3, Fn8000_0008 ECX: ApicIdSize 15:12, NC 7:0.
		b.edit(0x8000_0008, 0, ecx, 0, uint32(t.PackageShift&0xf)<<12|min(t.CoresPerPackage-1, 255))
		// Fn8000_001E: extended APIC id; core id; node id, one node per package.
		b[cpuidKey{0x8000_001e, 0}] = [4]uint32{t.APICID, core & 0xff, t.APICID >> t.PackageShift & 0xff, 0}
	}
}

// shareCaches says of each cache in leaf 4 or 0x8000001D that it belongs to one
// core, or from level 3 on to the package: never to two nodes. EAX 25:14 is
// the number of APIC ids that share it, minus 1.
func (b cpuidBuilder) shareCaches(function, ids uint32) {
	for k, reg := range b {
		if k.function != function {
			continue
		}
		var sharers uint32
		if level := reg[eax] >> 5 & 7; level >= 3 {
			sharers = min(ids-1, 0xfff)
		}
		reg[eax] = reg[eax]&^(0xfff<<14) | sharers<<14
		b[k] = reg
	}
}

// amd reports whether the vendor is AMD or Hygon.
func (b cpuidBuilder) amd() bool {
	switch b[cpuidKey{0, 0}][ecx] {
	case 0x444d_4163, 0x656e_6975: // "cAMD", "uine"
		return true
	}
	return false
}

// hypervisor adds the KVM signature with no paravirtual feature: it alone makes
// Linux accept x2APIC without interrupt remapping. Every feature bit would let
// the kernel write guest memory behind the DSM's back, or is of no use here.
func (b cpuidBuilder) hypervisor() {
	const lastHypervisor = 0x4000_0001
	// "KVMKVMKVM\0\0\0" in EBX, ECX, EDX.
	b[cpuidKey{0x4000_0000, 0}] = [4]uint32{lastHypervisor, 0x4b4d_564b, 0x564b_4d56, 0x0000_004d}
	b[cpuidKey{0x4000_0001, 0}] = [4]uint32{}
}

func bitIf(on bool, position uint) uint32 {
	if on {
		return 1 << position
	}
	return 0
}
