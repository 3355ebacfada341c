package vcpu

import (
	"fmt"
	"math/bits"
)

// The policy: which CPUID leaves a guest sees, how those of several hosts are
// combined, and which bits it never gets. A leaf without a rule is not shown.
//
// Never shown, whatever the host has:
//   - TSC-deadline timer: KVM swallows its MSR, and the timer is ours;
//   - MONITOR/MWAIT: a halted vCPU must exit;
//   - performance counters, debug store, last-branch records, PT: per host;
//   - VMX, SVM, SMX, SGX, SEV: no nesting, no enclaves;
//   - CET: part of its state is not in MSRs that KVM would save;
//   - MPX, which Linux has given up;
//   - RDT (monitoring and allocation), AVX10, key locker: per host, or with
//     leaves whose combination has no rule yet.

// combination says how a register of two hosts becomes one.
type combination uint8

const (
	hide      combination = iota // not shown
	features                     // one bit per feature: and
	lower                        // a number: the smaller
	lowerByte                    // a number per byte: the smaller of each
	clients                      // informative: the first host's
	identical                    // a number that must be the same, else 0
)

// regRule is the rule for one register.
type regRule struct {
	how  combination
	deny uint32      // bits never shown
	or   uint32      // with features: bits that say what is missing, combined by or
	name *[32]string // of the bits, nil if they have none
}

// leafRule is the rule for one leaf.
type leafRule struct{ reg [4]regRule }

// allow removes what is never shown.
func (r regRule) allow(x uint32) uint32 {
	if r.how == hide {
		return 0
	}
	return x &^ r.deny
}

// combine gives the value both hosts can keep.
func (r regRule) combine(x, y uint32) uint32 {
	switch r.how {
	case features:
		return x&y | (x|y)&r.or
	case lower:
		return min(x, y)
	case lowerByte:
		var v uint32
		for i := 0; i < 32; i += 8 {
			v |= min(x>>i&0xff, y>>i&0xff) << i
		}
		return v
	case clients:
		return x
	case identical:
		if x == y {
			return x
		}
	}
	return 0
}

// missing names what the leaf promises in register i and a host that has
// there lacks.
func (r regRule) missing(l cpuidLeaf, i int, there uint32) []string {
	here := l.reg[i]
	where := fmt.Sprintf("CPUID %x.%x %s", l.function, l.index, [4]string{"EAX", "EBX", "ECX", "EDX"}[i])
	switch r.how {
	case features:
		var names []string
		for m := here &^ there &^ r.or; m != 0; m &= m - 1 {
			bit := bits.TrailingZeros32(m)
			s := fmt.Sprintf("%s bit %d", where, bit)
			if r.name != nil && r.name[bit] != "" {
				s = fmt.Sprintf("%s (%s)", r.name[bit], s)
			}
			names = append(names, s)
		}
		for m := there &^ here & r.or; m != 0; m &= m - 1 {
			names = append(names, fmt.Sprintf("%s bit %d clear", where, bits.TrailingZeros32(m)))
		}
		return names
	case lower, lowerByte:
		if r.combine(here, there) != here {
			return []string{fmt.Sprintf("%s of %#x (there: %#x)", where, here, there)}
		}
	case identical:
		if here != 0 && here != there {
			return []string{fmt.Sprintf("%s of %#x (there: %#x)", where, here, there)}
		}
	}
	return nil
}

// Shorthands for the table.
var (
	own  = regRule{how: clients}
	same = regRule{how: identical}
)

func feat(names *[32]string, deny uint32) regRule {
	return regRule{how: features, deny: deny, name: names}
}

// bit mask of several positions.
func mask(positions ...uint) (m uint32) {
	for _, p := range positions {
		m |= 1 << p
	}
	return m
}

// cpuidRules is the table, by function and index. Entries of leaves whose
// sub-leaves all have one rule are under anyIndex.
var cpuidRules = map[cpuidKey]*leafRule{
	{0, 0}: {[4]regRule{own, same, same, same}}, // EAX: force
	{1, 0}: {[4]regRule{
		own,
		{how: lower, deny: ^uint32(0xff00)}, // CLFLUSH line size; the rest is the vCPU's
		feat(&names1ECX, mask(2, 3, 4, 5, 6, 11, 15, 24, 27)),
		feat(&names1EDX, mask(21, 28, 29, 31)),
	}},
	{2, 0}:        {[4]regRule{own, own, own, own}},
	{4, anyIndex}: {[4]regRule{own, own, own, own}}, // caches; topology() sets who shares them
	{6, 0}:        {[4]regRule{feat(&names6EAX, ^mask(2))}},
	{7, 0}: {[4]regRule{
		own, // settle
		{how: features, deny: mask(2, 12, 14, 15, 25), or: mask(6, 13), name: &names7EBX},
		feat(&names7ECX, mask(4, 7, 13, 23, 30)),
		feat(&names7EDX, mask(18, 19, 20)),
	}},
	{7, 1}:          {[4]regRule{feat(&names71EAX, 0), feat(nil, 0), feat(nil, 0), feat(nil, mask(18, 19))}},
	{7, 2}:          {[4]regRule{{}, {}, {}, feat(nil, 0)}},
	{0xd, 0}:        {[4]regRule{feat(&namesXCR0, mask(3, 4)), own, own}}, // sizes: settle
	{0xd, 1}:        {[4]regRule{feat(&namesD1EAX, 0)}},
	{0xd, anyIndex}: {[4]regRule{same, same, same}},
	{0x1d, 0}:       {[4]regRule{same}},
	{0x1d, 1}:       {[4]regRule{same, same, same}},
	{0x1e, 0}:       {[4]regRule{{}, same}},

	{0x8000_0000, 0}: {[4]regRule{own, same, same, same}},
	{0x8000_0001, 0}: {[4]regRule{
		own, own,
		feat(&names81ECX, mask(1, 2, 3, 10, 12, 13, 15, 23, 24, 28, 29)),
		feat(&names81EDX, 0),
	}},
	{0x8000_0002, 0}:        {[4]regRule{own, own, own, own}}, // brand string
	{0x8000_0003, 0}:        {[4]regRule{own, own, own, own}},
	{0x8000_0004, 0}:        {[4]regRule{own, own, own, own}},
	{0x8000_0005, 0}:        {[4]regRule{own, own, own, own}}, // caches, TLBs
	{0x8000_0006, 0}:        {[4]regRule{own, own, own, own}},
	{0x8000_0007, 0}:        {[4]regRule{{}, {}, {}, feat(&names87EDX, ^mask(8))}},
	{0x8000_0008, 0}:        {[4]regRule{{how: lowerByte, deny: ^uint32(0xffff)}, feat(&names88EBX, mask(1, 3, 6, 23, 27, 31))}},
	{0x8000_0019, 0}:        {[4]regRule{own, own}},
	{0x8000_001a, 0}:        {[4]regRule{feat(nil, 0)}},
	{0x8000_001d, anyIndex}: {[4]regRule{own, own, own, own}}, // caches, as leaf 4
	{0x8000_0021, 0}:        {[4]regRule{feat(&names821EAX, 0), {}, feat(nil, 0)}},
}

// anyIndex stands for the sub-leaves without a rule of their own.
const anyIndex = ^uint32(0)

// ruleFor returns the rule for a leaf, nil if it is not shown.
func ruleFor(function, index uint32) *leafRule {
	if r := cpuidRules[cpuidKey{function, index}]; r != nil {
		return r
	}
	if index == anyIndex || index > 63 {
		return nil
	}
	return cpuidRules[cpuidKey{function, anyIndex}]
}

// hasSubleaves says which of the leaves shown depend on ECX.
func hasSubleaves(function uint32) bool {
	switch function {
	case 4, 7, 0xb, 0xd, 0x1d, 0x1e, 0x1f, 0x8000_001d:
		return true
	}
	return false
}
