package doctor

import "strings"

// Verdict says what works on this host.
type Verdict struct {
	// Works is a row of the table of hosts in the README, in words.
	Works string `json:"works"`
	// CanRunLinux: a stock Linux guest boots here at a useful speed.
	CanRunLinux    bool   `json:"can_run_linux"`
	RunLinuxReason string `json:"run_linux_reason,omitempty"` // why not
	// CanSpanHosts: this host can be one of several under a Linux guest.
	CanSpanHosts    bool   `json:"can_span_hosts"`
	SpanHostsReason string `json:"span_hosts_reason,omitempty"` // why not
}

// facts are the probes' answers that the verdict rests on. The zero value is a
// host where nothing works.
type facts struct {
	kvm         bool
	ring3       bool // a guest ran code in ring 3
	ring0Native bool // and ring 0 is as fast
	nested      bool // the processor walks guest page tables
	walksWrite  bool // and counts as a writer of them
	msrExits    bool
	haltExits   bool

	memfd        bool
	uffd         bool // all features, and the right to use them
	kernelFaults bool
	tsc          bool // the clock source
}

// shortfall is a fact that is missing and its name.
type shortfall struct {
	holds bool
	name  string
}

// reasons joins the names of what does not hold.
func reasons(of []shortfall) string {
	var r []string
	for _, s := range of {
		if !s.holds {
			r = append(r, s.name)
		}
	}
	return strings.Join(r, "; ")
}

// verdict weighs the facts. A guest on one host needs no nested paging and no
// userfaultfd: none is registered until a lender attaches. Across hosts, shadow
// paging would keep translations from page tables that another host changed.
func verdict(f facts) Verdict {
	if !f.kvm {
		return Verdict{
			Works:           "the testbed only (an emulated host, slow)",
			RunLinuxReason:  "no usable KVM",
			SpanHostsReason: "no usable KVM",
		}
	}
	linux := []shortfall{
		{f.ring0Native, "ring 0 does not run at the processor's speed"},
		{f.msrExits, "MSR accesses do not reach user space"},
		{f.haltExits, "HLT does not reach user space"},
		{f.memfd, "no memfd with two mappings"},
	}
	span := append(linux,
		shortfall{f.nested, "no nested paging"},
		shortfall{f.uffd, "no usable userfaultfd"},
		shortfall{f.kernelFaults, "a vCPU's page fault was not handled"},
		shortfall{f.tsc, "the clock source is not tsc"},
	)
	v := Verdict{RunLinuxReason: reasons(linux), SpanHostsReason: reasons(span)}
	v.CanRunLinux = v.RunLinuxReason == ""
	v.CanSpanHosts = v.SpanHostsReason == ""
	switch {
	case v.CanSpanHosts && f.walksWrite:
		v.Works = "everything; kernel-heavy guests pay for page-table bounces"
	case v.CanSpanHosts:
		v.Works = "everything"
	case v.CanRunLinux:
		v.Works = "Linux guests that stay on this host"
	case f.ring3:
		v.Works = "micro guests and benchmarks; Linux guests in the testbed"
	default:
		v.Works = "the testbed only (an emulated host, slow)"
	}
	return v
}
