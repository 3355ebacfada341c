package main

import (
	"strings"
	"testing"
)

func TestSample(t *testing.T) {
	for want, values := range map[float64][]float64{7: {7}, 1: {2, 1}, 3: {5, 1, 4, 2, 3}} {
		if got := (&sample{values}).median(); got != want {
			t.Errorf("median of %v: %v, want %v", values, got, want)
		}
	}
}

func TestPrint(t *testing.T) {
	var b bench
	b.boot.qemu.add(10)
	b.boot.local.add(12)
	b.boot.local.add(11)
	b.boot.local.add(10.5)
	b.boot.online.add(44)
	b.rest.local.add(12.5)
	b.failures = []string{"round 1, span: not within 5m0s"}
	var out strings.Builder
	if err := b.print(&out); err == nil || !strings.Contains(err.Error(), "round 1, span") {
		t.Errorf("failures: %v", err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(out.String()) {
		what, rest, _ := strings.Cut(line, "  ")
		rows[what] = strings.Join(strings.Fields(rest), " ")
	}
	for what, want := range map[string]string{
		"boot to init: QEMU microvm, 2 vCPUs":      "1 10 s 10 to 10",
		"boot to init: 2 local vCPUs":              "3 11 s 10.5 to 12 1.1 of 10 s at most 1.2 met",
		"boot until the remote one runs, too":      "1 44 s 44 to 44 4 of 11 s at most 3 missed",
		"loop in user mode: CPU 1, remote":         "0 not measured",
		"memory beyond the guest's: 2 local vCPUs": "1 12.5 MiB 12.5 to 12.5 at most 40 MiB met",
	} {
		if rows[what] != want {
			t.Errorf("%s: %q, want %q\n%s", what, rows[what], want, out.String())
		}
	}
}
