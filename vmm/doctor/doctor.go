package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"coalesce/vcpu/kvm"
)

// patient is the host under examination, and what is known of it so far.
type patient struct {
	root   fs.FS       // "/", for what the kernel says in /proc and /sys
	device string      // KVM's
	sys    *kvm.System // nil if there is no usable KVM
	facts
}

// probes in the order in which they depend on each other. The names are the
// Checks'.
var probes = []struct {
	name string
	run  func(*patient) Check
}{
	{"kernel", probeKernel},
	{"kvm", probeKVM},
	{"ring 0 speed", needKVM(probeRing0)},
	{"nested paging", needKVM(probeNestedPaging)},
	{"page-table walks", needKVM(probeWalks)},
	{"user-space MSRs", needKVM(probeMSRExits)},
	{"halt exits", needKVM(probeHaltExits)},
	{"memfd", probeMemfd},
	{"userfaultfd", probeUserfaultfd},
	{"kernel faults", probeKernelFaults},
	{"TSC", probeTSC},
	{"TSC scaling", needKVM(probeTSCScaling)},
	{"huge pages", probeHugePages},
	{"CPU latency", probeCPULatency},
	{"locked memory", probeLockedMemory},
}

// Run examines this host, with the KVM device at this path. It takes a fraction of a second on real hardware. When
// ctx ends, the probes not yet begun are reported as missing.
func Run(ctx context.Context, device string) Report {
	// A vCPU belongs to the thread that runs it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := &patient{root: os.DirFS("/"), device: device}
	defer func() {
		if p.sys != nil {
			p.sys.Close()
		}
	}()
	var r Report
	for _, probe := range probes {
		var c Check
		if err := ctx.Err(); err != nil {
			c = Check{Status: Missing, Measured: fmt.Sprintf("not probed: %v", err)}
		} else {
			c = probe.run(p)
		}
		c.Name = probe.name
		r.Checks = append(r.Checks, c)
	}
	r.Verdict = verdict(p.facts)
	return r
}

// needKVM wraps a probe that works with /dev/kvm.
func needKVM(run func(*patient) Check) func(*patient) Check {
	return func(p *patient) Check {
		if p.sys == nil {
			return Check{Status: Missing, Measured: "not probed: needs kvm"}
		}
		return run(p)
	}
}

// ok is the Check of a requirement that is met.
func ok(format string, args ...any) Check {
	return Check{Status: OK, Measured: fmt.Sprintf(format, args...)}
}

// file returns what a file of /proc or /sys says, without surrounding space, or
// "" if it cannot be read. path has no leading slash.
func (p *patient) file(path string) string {
	b, err := fs.ReadFile(p.root, path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// cpuFlag reports whether the first processor of /proc/cpuinfo has a flag.
func (p *patient) cpuFlag(flag string) bool {
	for line := range strings.Lines(p.file("proc/cpuinfo")) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "flags" {
			for f := range strings.FieldsSeq(value) {
				if f == flag {
					return true
				}
			}
			return false
		}
	}
	return false
}
