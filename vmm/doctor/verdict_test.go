package doctor

import "testing"

// healthy is a host where everything works.
func healthy() facts {
	return facts{
		kvm: true, ring3: true, ring0Native: true, nested: true, msrExits: true, haltExits: true,
		memfd: true, uffd: true, kernelFaults: true, tsc: true,
	}
}

// with is a healthy host with a difference.
func with(change func(*facts)) facts {
	f := healthy()
	change(&f)
	return f
}

func TestVerdict(t *testing.T) {
	for name, tc := range map[string]struct {
		facts       facts
		linux, span bool
		works       string
	}{
		"healthy":        {healthy(), true, true, "everything"},
		"walks write":    {with(func(f *facts) { f.walksWrite = true }), true, true, "everything; kernel-heavy guests pay for page-table bounces"},
		"nothing":        {facts{}, false, false, "the testbed only (an emulated host, slow)"},
		"no kvm":         {with(func(f *facts) { f.kvm = false }), false, false, "the testbed only (an emulated host, slow)"},
		"shadow paging":  {with(func(f *facts) { f.nested = false }), true, false, "Linux guests that stay on this host"},
		"no uffd":        {with(func(f *facts) { f.uffd = false }), true, false, "Linux guests that stay on this host"},
		"no kernel flt":  {with(func(f *facts) { f.kernelFaults = false }), true, false, "Linux guests that stay on this host"},
		"no tsc":         {with(func(f *facts) { f.tsc = false }), true, false, "Linux guests that stay on this host"},
		"ring 0 slow":    {with(func(f *facts) { f.ring0Native = false }), false, false, "micro guests and benchmarks; Linux guests in the testbed"},
		"no MSR exits":   {with(func(f *facts) { f.msrExits = false }), false, false, "micro guests and benchmarks; Linux guests in the testbed"},
		"no halt exits":  {with(func(f *facts) { f.haltExits = false }), false, false, "micro guests and benchmarks; Linux guests in the testbed"},
		"no memfd":       {with(func(f *facts) { f.memfd = false }), false, false, "micro guests and benchmarks; Linux guests in the testbed"},
		"guests not run": {facts{kvm: true, memfd: true, uffd: true, tsc: true}, false, false, "the testbed only (an emulated host, slow)"},
	} {
		t.Run(name, func(t *testing.T) {
			v := verdict(tc.facts)
			if v.CanRunLinux != tc.linux || v.CanSpanHosts != tc.span || v.Works != tc.works {
				t.Errorf("got %+v", v)
			}
			if v.CanRunLinux == (v.RunLinuxReason != "") || v.CanSpanHosts == (v.SpanHostsReason != "") {
				t.Errorf("answers and reasons disagree: %+v", v)
			}
		})
	}
}
