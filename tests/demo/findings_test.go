package main

import (
	"strings"
	"testing"

	"coalesce/guest/check"
)

// console is of a guest whose litmus test failed.
const console = `coalesce-guest: up 12.345678
check: 2 CPUs from CPU 0, TSC 2596.1 MHz, 0.3 s a test, seed 7
> topology: CPUs, nodes and distances the kernel found
topology     ok      0.46 s         1  2 CPUs online, 2 nodes; node 0: CPUs 0, distances 10 40; node 1: CPUs 1, distances 40 10
  ... sb+mfence: 2 s, 0 rounds
sb+mfence    ok     11.62 s       128  2 different outcomes, 0 forbidden
2+2w         FAIL    1.00 s       128  1 forbidden outcome
iriw         skip    0.00 s         0  needs 4 CPUs
[   12.000000] a line of the kernel  ok  1.00 s  3  that looks like one
`

// closing is what a client prints at the end.
const closing = `12:00:00 INF lender greeted cpus=1
guest powered off after 1m2.5s, booted in 20.1s
                      client  lender 1
            vCPUs          0         1
         vCPU time     30.2s     25.1s
       read faults      3939      2817
      write faults      9278         0
     fault p50/p99  3ms/9ms   3ms/9ms
          pages in     19070     21723
         pages out     21723     19070
          KiB moved   167000    167000
          IPIs sent       69        60
      I/O forwarded        0        12
`

func TestRows(t *testing.T) {
	got := parseRows(console)
	if len(got) != 4 {
		t.Errorf("%d rows: %+v", len(got), got)
	}
	want := check.Result{Test: "sb+mfence", Verdict: check.OK, Seconds: 11.62, Rounds: 128, Detail: "2 different outcomes, 0 forbidden"}
	if r := got["sb+mfence"]; r.Test != want.Test || r.Verdict != want.Verdict || r.Seconds != want.Seconds || r.Rounds != want.Rounds || r.Detail != want.Detail {
		t.Errorf("%+v, want %+v", r, want)
	}
	if r := got["2+2w"]; r.Verdict != "FAIL" || got["iriw"].Verdict != check.Skipped {
		t.Errorf("%+v", got)
	}
}

func TestJudgeTable(t *testing.T) {
	detail, err := judgeTable(closing)
	if err == nil || err.Error() != `node 1 has "0" write faults` {
		t.Errorf("a node without write faults: %v", err)
	}
	if !strings.Contains(detail, "booted in 20.1s; vCPU time 30.2s and 25.1s") {
		t.Errorf("detail: %q", detail)
	}
	if _, err := judgeTable(strings.Replace(closing, "      write faults      9278         0", "      write faults      9278        12", 1)); err != nil {
		t.Errorf("a good table: %v", err)
	}
	if _, err := judgeTable("coalesce: no table\n"); err == nil {
		t.Error("no table is good")
	}
}
