package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/sys/unix"
)

// sample is the values of one thing measured.
type sample struct{ values []float64 }

func (s *sample) add(v float64) { s.values = append(s.values, v) }

// median returns the middle value, the lower one of two.
func (s *sample) median() float64 {
	return slices.Sorted(slices.Values(s.values))[(len(s.values)-1)/2]
}

// row is a line of the table. Its ratio is that of its median to another sample's; a row without one is a base, or has
// an absolute target.
type row struct {
	what   string
	unit   string
	s, to  *sample
	target float64 // at most; 0: none
}

// print writes the table.
func (b *bench) print(w io.Writer) error {
	fmt.Fprintln(w, machine())
	rows := []row{
		{"boot to init: QEMU microvm, 2 vCPUs", "s", &b.boot.qemu, nil, 0},
		{"boot to init: 2 local vCPUs", "s", &b.boot.local, &b.boot.qemu, 1.2},
		{"boot to init: 1 local vCPU, 1 remote", "s", &b.boot.span, &b.boot.local, 0},
		{"boot until the remote one runs, too", "s", &b.boot.online, &b.boot.local, 3},
	}
	if b.early {
		rows = append(rows, row{"boot to init: both from the start", "s", &b.boot.early, &b.boot.local, 3})
	}
	if b.delay > 0 {
		rows = append(rows,
			row{"timer's tick: CPU 0", "ms", &b.tick.local, nil, 0},
			row{"timer's tick: CPU 1, over the slow link", "ms", &b.tick.remote, nil, 0},
			row{"  what it takes more, in round trips", "ms", &b.tick.added, &b.tick.rtt, roundTrips()},
		)
	}
	rows = append(rows,
		row{"loop in user mode: CPU 0 of 2 local", "ns", &b.loop.local[0], nil, 0},
		row{"loop in user mode: CPU 1 of 2 local", "ns", &b.loop.local[1], nil, 0},
		row{"loop in user mode: CPU 0 beside a remote", "ns", &b.loop.span[0], nil, 0},
		row{"loop in user mode: CPU 1, remote", "ns", &b.loop.span[1], &b.loop.span[0], 1.03},
		row{"  the same against CPU 1 of 2 local", "ns", &b.loop.span[1], &b.loop.local[1], 1.03},
		row{"memory beyond the guest's: 2 local vCPUs", "MiB", &b.rest.local, nil, 40},
		row{"memory beyond the guest's: client", "MiB", &b.rest.client, nil, 40},
		row{"memory beyond the guest's: lender", "MiB", &b.rest.lender, nil, 40},
	)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "what\tn\tmedian\tleast to most\tratio\ttarget\t")
	for _, r := range rows {
		if len(r.s.values) == 0 {
			fmt.Fprintf(t, "%s\t0\t\t\t\t\tnot measured\n", r.what)
			continue
		}
		fmt.Fprintf(t, "%s\t%d\t%.3g %s\t%.3g to %.3g\t%s\n", r.what, len(r.s.values), r.s.median(), r.unit,
			slices.Min(r.s.values), slices.Max(r.s.values), r.judge())
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if len(b.failures) > 0 {
		return fmt.Errorf("%d runs failed:\n%s", len(b.failures), strings.Join(b.failures, "\n"))
	}
	return nil
}

// judge compares a row with its base, whose value it names, and its target.
func (r row) judge() string {
	measured, ratio := r.s.median(), ""
	if r.to != nil && len(r.to.values) == 0 {
		return "\t\tnothing to compare with"
	}
	if r.to != nil {
		measured /= r.to.median()
		ratio = fmt.Sprintf("%.3g of %.3g %s", measured, r.to.median(), r.unit)
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

// roundTrips is what a tick may take more over a slow link: where page walks write to the guest's page tables, two more.
func roundTrips() float64 {
	eptad, err := os.ReadFile("/sys/module/kvm_intel/parameters/eptad")
	if err == nil && strings.TrimSpace(string(eptad)) == "N" {
		return 3
	}
	return 5
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
