package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// sample is the values of one thing measured.
type sample struct{ values []float64 }

func (s *sample) add(v float64) { s.values = append(s.values, v) }

// at is the value below which the share p of all lies, the nearest that was measured.
func (s *sample) at(p float64) float64 {
	sorted := slices.Sorted(slices.Values(s.values))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// row is a line of the table. Its ratio is to another sample's median; a row without one is a base, or has an absolute
// target.
type row struct {
	what   string
	unit   string
	s, to  *sample
	target float64 // at most; 0: none
}

// print writes the table.
func (b *bench) print(w io.Writer) error {
	fmt.Fprintln(w, machine())
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "what\tn\tp50\tp99\tratio\ttarget\t")
	for _, r := range []row{
		{"boot to init: QEMU microvm, 2 vCPUs", "s", &b.boot.qemu, nil, 0},
		{"boot to init: 2 local vCPUs", "s", &b.boot.local, &b.boot.qemu, 1.2},
		{"boot to init: 1 local vCPU, 1 remote", "s", &b.boot.span, &b.boot.local, 0},
		{"boot until the remote one runs, too", "s", &b.boot.online, &b.boot.local, 3},
		{"loop in user mode: local vCPU", "ns", &b.loop.local, nil, 0},
		{"loop in user mode: remote vCPU", "ns", &b.loop.remote, &b.loop.local, 1.03},
		{"memory beyond the guest's: 2 local vCPUs", "MiB", &b.rest.local, nil, 40},
		{"memory beyond the guest's: client", "MiB", &b.rest.client, nil, 40},
		{"memory beyond the guest's: lender", "MiB", &b.rest.lender, nil, 40},
	} {
		if len(r.s.values) == 0 {
			fmt.Fprintf(t, "%s\t0\t\t\t\t\tnot measured\n", r.what)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%.3g %s\t%.3g %s\t%s\n", r.what, len(r.s.values), r.s.at(.5), r.unit, r.s.at(.99), r.unit, r.judge())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(b.failures) > 0 {
		return fmt.Errorf("%d runs failed:\n%s", len(b.failures), strings.Join(b.failures, "\n"))
	}
	return nil
}

// judge compares a row with its base and its target.
func (r row) judge() string {
	measured, ratio := r.s.at(.5), ""
	if r.to != nil && len(r.to.values) == 0 {
		return "\t\tnothing to compare with"
	}
	if r.to != nil {
		measured /= r.to.at(.5)
		ratio = fmt.Sprintf("%.3g", measured)
	}
	if r.target == 0 {
		return ratio + "\t\t"
	}
	unit := ""
	if r.to == nil {
		unit = " " + r.unit
	}
	met := "met"
	if measured > r.target {
		met = "missed"
	}
	return fmt.Sprintf("%s\tat most %g%s\t%s", ratio, r.target, unit, met)
}

// machine says what this was measured on.
func machine() string {
	var uts unix.Utsname
	release := "unknown"
	if unix.Uname(&uts) == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	model := "unknown processor"
	// Without it the line says less.
	info, _ := os.ReadFile("/proc/cpuinfo")
	cpus := 0
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			cpus++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("Linux %s, %d CPUs: %s", release, cpus, model)
}
