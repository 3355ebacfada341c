package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"coalesce/guest/check"
	"coalesce/tests/lab"
)

// Lines of the guest's init.
const (
	guestUp   = "coalesce-guest: up"
	guestExit = "coalesce-guest: exit 0"
)

// hosts looks whether the two halves of the guest are apart: while both run.
func (s *show) hosts() {
	var namespaces [2]string
	var memory [2]lab.Usage
	for i, p := range []*lab.Process{s.client, s.lender} {
		var err error
		if namespaces[i], err = p.Namespace(); err == nil {
			memory[i], err = p.Usage()
		}
		if err != nil {
			s.found("two hosts", "", err)
			return
		}
	}
	var err error
	if namespaces[0] == namespaces[1] || s.client.Pid == s.lender.Pid {
		err = fmt.Errorf("both in %s", namespaces[0])
	}
	s.found("two hosts", fmt.Sprintf("process %d in %s, process %d in %s", s.client.Pid, namespaces[0], s.lender.Pid, namespaces[1]), err)

	a, b := memory[0].Memfds(), memory[1].Memfds()
	err = nil
	if len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(inode uint64) bool { return slices.Contains(b, inode) }) {
		err = fmt.Errorf("memfds %d and %d", a, b)
	}
	s.found("a memory each", fmt.Sprintf("%d MiB resident of memfd %d, %d MiB of memfd %d",
		memory[0].Resident((*lab.Mapping).Memfd)>>20, a, memory[1].Resident((*lab.Mapping).Memfd)>>20, b), err)
}

// row is a line of the check's output: test, verdict, seconds, rounds, what it saw.
var row = regexp.MustCompile(`^([a-z0-9+-]+) +(ok|FAIL|skip) +([0-9.]+) s +([0-9]+)  (.*)$`)

// rows returns the check's results by test.
func (s *show) rows() map[string]check.Result { return parseRows(s.client.Stdout.String()) }

func parseRows(console string) map[string]check.Result {
	results := map[string]check.Result{}
	for line := range strings.Lines(console) {
		m := row.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		seconds, _ := strconv.ParseFloat(m[3], 64) // the expression has checked them
		rounds, _ := strconv.ParseUint(m[4], 10, 64)
		results[m[1]] = check.Result{Test: m[1], Verdict: m[2], Seconds: seconds, Rounds: rounds, Detail: m[5]}
	}
	return results
}

// topology is what the guest's kernel made of the machine. The check has compared it with what it was told to expect.
func (s *show) topology() {
	r := s.rows()["topology"]
	var err error
	if r.Verdict != check.OK {
		err = fmt.Errorf("%q %s", r.Verdict, r.Detail)
	}
	s.found("2 CPUs, a NUMA node each", r.Detail, err)
}

// group is tests about one thing.
type group struct {
	what  string
	tests []string
}

func (g group) has(test string) bool { return slices.Contains(g.tests, test) }

// groups are the coherence tests that must have passed, by what they are about.
var groups = []group{
	{"exact sums of lock xadd", []string{"counters", "words"}},
	{"lock across two pages", []string{"split-lock"}},
	{"message passing", []string{"mp"}},
	{"store buffering", []string{"sb", "sb+mfence"}},
	{"load buffering", []string{"lb"}},
	{"more forbidden outcomes: none", []string{"s", "r+mfence", "2+2w", "corr"}},
	{"TLB shootdown, both ways", []string{"tlb-remap", "tlb-unmap", "tlb-protect"}},
	{"futex ping-pong, signals", []string{"futex", "signal"}},
	{"sleep on each CPU", []string{"sleep"}},
	{"one time on both CPUs", []string{"clock"}},
	{"computing on both at once", []string{"compute"}},
	{"fork, random pages", []string{"fork", "storm"}},
}

// coherence is what the check found about the memory that the two CPUs share.
func (s *show) coherence() {
	results := s.rows()
	for _, g := range groups {
		var seen []string
		var errs []error
		for _, test := range g.tests {
			r, ok := results[test]
			switch {
			case !ok:
				errs = append(errs, fmt.Errorf("%s did not run to its end", test))
			case r.Verdict != check.OK:
				errs = append(errs, fmt.Errorf("%s: %s", test, r.Detail))
			}
			seen = append(seen, fmt.Sprintf("%s: %d rounds in %.1f s", test, r.Rounds, r.Seconds))
		}
		s.found(g.what, strings.Join(seen, ", "), errors.Join(errs...))
	}
	for _, r := range results {
		if r.Verdict == "FAIL" && !slices.ContainsFunc(groups, func(g group) bool { return g.has(r.Test) }) {
			s.found(r.Test, "", errors.New(r.Detail))
		}
	}
}

// tableRow is a line of the closing table with two columns.
var tableRow = regexp.MustCompile(`^ *(\S.*?\S) {2,}(\S+) {2,}(\S+)$`)

// booted is the closing table's heading.
var booted = regexp.MustCompile(`guest powered off after (\S+), booted in (\S+)`)

// table looks for what the closing table must say of each node.
func (s *show) table() {
	detail, err := judgeTable(s.client.Stderr.String())
	s.found("the closing table", detail, err)
}

func judgeTable(text string) (detail string, err error) {
	rows := map[string][2]string{}
	boot := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if m := tableRow.FindStringSubmatch(line); m != nil {
			rows[strings.TrimSpace(m[1])] = [2]string{m[2], m[3]}
		}
		if m := booted.FindStringSubmatch(line); m != nil {
			boot = m[2]
		}
	}
	var errs []error
	if boot == "" {
		errs = append(errs, errors.New("it has no boot time"))
	}
	for _, name := range []string{"vCPU time", "read faults", "write faults", "pages in", "pages out", "KiB moved", "IPIs sent"} {
		row, ok := rows[name]
		if !ok {
			errs = append(errs, fmt.Errorf("it has no row %q", name))
			continue
		}
		for node, value := range row {
			if !positive(value) {
				errs = append(errs, fmt.Errorf("node %d has %q %s", node, value, name))
			}
		}
	}
	// Only a lender's accesses have to be forwarded.
	if n := rows["I/O forwarded"][1]; !positive(n) {
		errs = append(errs, fmt.Errorf("the lender forwarded %q device accesses", n))
	}
	return fmt.Sprintf("booted in %s; vCPU time %s and %s; %s and %s pages came in", boot,
		rows["vCPU time"][0], rows["vCPU time"][1], rows["pages in"][0], rows["pages in"][1]), errors.Join(errs...)
}

// positive tells whether a cell of the table is a number or a time above 0.
func positive(cell string) bool {
	if n, err := strconv.ParseUint(cell, 10, 64); err == nil {
		return n > 0
	}
	d, err := time.ParseDuration(cell)
	return err == nil && d > 0
}

// powerOff is how the guest and the client ended.
func (s *show) powerOff(exit lab.Exit) {
	var err error
	if exit.Status != 0 {
		err = fmt.Errorf("the client: %v", exit)
	} else if !strings.Contains(s.client.Stdout.String(), guestExit) {
		err = errors.New("the guest's check did not end with status 0")
	}
	s.found("a clean power-off", exit.String(), err)
}
