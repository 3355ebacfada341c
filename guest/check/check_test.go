package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// program is the check built once for all tests here.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "coalesce-check-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "check")
	return path, Build(context.Background(), path)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := program(); path != "" {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// run runs the program on the first two CPUs there are, for a short time, and returns its results and exit status.
func run(t *testing.T, args ...string) (results map[string]Result, output string, status int) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	common := []string{"--json", "--cpus", twoCPUs(t), "--seconds", "0.1", "--seed", "1"}
	out, err := exec.Command(path, append(common, args...)...).CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit != nil {
		status = exit.ExitCode()
	}
	results = make(map[string]Result)
	for line := range strings.Lines(string(out)) {
		if r, ok := ParseResult(line); ok {
			results[r.Test] = r
		}
	}
	return results, string(out), status
}

// twoCPUs returns two CPUs this process may use, as --cpus takes them.
func twoCPUs(t *testing.T) string {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	var cpus []string
	for cpu := 0; len(cpus) < 2; cpu++ {
		if cpu == 1024 {
			t.Fatal("the coherence check needs two CPUs")
		}
		if set.IsSet(cpu) {
			cpus = append(cpus, fmt.Sprint(cpu))
		}
	}
	return strings.Join(cpus, ",")
}

// tests returns the tests that two CPUs are enough for, and their groups.
func tests(t *testing.T) map[string]string {
	t.Helper()
	_, out, _ := run(t, "--list")
	groups := make(map[string]string)
	for line := range strings.Lines(out) {
		var name, group string
		var cpus int
		if _, err := fmt.Sscan(line, &name, &group, &cpus); err != nil {
			t.Fatalf("--list: %q: %v", line, err)
		}
		if cpus <= 2 {
			groups[name] = group
		}
	}
	return groups
}

// TestCoherentMachine runs all tests where they must pass: on this machine.
func TestCoherentMachine(t *testing.T) {
	results, out, status := run(t)
	if status != 0 {
		t.Errorf("exit status %d:\n%s", status, out)
	}
	for name := range tests(t) {
		if r := results[name]; r.Verdict != OK || r.Rounds == 0 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if ratio := results["compute"].Metrics; len(ratio) == 0 {
		t.Errorf("compute has no metrics:\n%s", out)
	}
}

// TestSabotage breaks each test in turn, in the way it is there to find: it must.
func TestSabotage(t *testing.T) {
	for name, group := range tests(t) {
		t.Run(name, func(t *testing.T) {
			args := []string{"--sabotage", name, name}
			if group == "litmus" {
				// A matter of chance where CPUs are busy; it ends with the first forbidden outcome.
				args = append(args, "--seconds", "10")
			}
			results, out, status := run(t, args...)
			if r := results[name]; status != 1 || r.Verdict != Failed || r.Error == "" {
				t.Errorf("exit status %d, want 1 and an error:\n%s", status, out)
			}
		})
	}
}

func TestExpectations(t *testing.T) {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		t.Fatal(err)
	}
	var last int
	if _, err := fmt.Sscanf(string(online), "0-%d\n", &last); err != nil {
		t.Fatalf("CPUs online: %q: %v", online, err)
	}
	tests := []struct {
		name   string
		args   []string
		status int
		want   string
	}{
		{"right number of CPUs", []string{"--expect-cpus", fmt.Sprint(last + 1)}, 0, `"result":"ok"`},
		{"wrong number of CPUs", []string{"--expect-cpus", "99"}, 1, "CPUs online, expected 99"},
		{"a node that is not there", []string{"--expect-nodes", "63:0-1"}, 1, "there is no node 63"},
		{"more distances than nodes", []string{"--expect-distance", strings.Repeat("10/20;", 63)}, 1, "expected"},
		{"not a node", []string{"--expect-nodes", "0=1"}, 2, "not NODE:CPULIST"},
		{"not a distance", []string{"--expect-distance", "ten"}, 2, "not numbers"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, out, status := run(t, append(tt.args, "topology")...)
			if status != tt.status || !strings.Contains(out, tt.want) {
				t.Errorf("exit status %d, want %d and %q:\n%s", status, tt.status, tt.want, out)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"no-such-test"}, "no test is called no-such-test"},
		{[]string{"--sabotage", "nothing"}, "no test is called nothing"},
		{[]string{"--cpus", "0"}, "CPU 0 twice"},
		{[]string{"--cpus", "x"}, "not a list"},
		{[]string{"--cpus", "7-5"}, "not a list"},
		{[]string{"--seconds", "-1"}, "not a number"},
		{[]string{"--unknown"}, "usage:"},
	}
	for _, tt := range tests {
		_, out, status := run(t, tt.args...)
		if status != 2 || !strings.Contains(out, tt.want) {
			t.Errorf("%q: exit status %d, want 2 and %q:\n%s", tt.args, status, tt.want, out)
		}
	}
}

// TestTooFewCPUs: a test that cannot run is no test passed, unless it is optional and nobody asked for it.
func TestTooFewCPUs(t *testing.T) {
	if results, out, status := run(t, "iriw"); status != 1 || results["iriw"].Verdict != Failed {
		t.Errorf("asked for by name: exit status %d, want 1:\n%s", status, out)
	}
	if results, out, status := run(t, "litmus"); status != 0 || results["iriw"].Verdict != Skipped {
		t.Errorf("asked for by group: exit status %d, want 0:\n%s", status, out)
	}
}

// TestHang: a test that does not end is ended, with its name.
func TestHang(t *testing.T) {
	results, out, status := run(t, "--timeout", "1", "--seconds", "60", "--rounds", "1e12", "clock")
	if status != 3 || results["clock"].Verdict != Hung || !strings.Contains(out, "clock hangs") {
		t.Errorf("exit status %d, want 3:\n%s", status, out)
	}
}

// TestBuild: the same sources make the same bytes, without a warning.
func TestBuild(t *testing.T) {
	first, err := program()
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "again")
	if err := Build(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	a, errA := os.ReadFile(first)
	b, errB := os.ReadFile(second)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("two builds differ (%v, %v)", errA, errB)
	}
	if err := compile(t.Context(), append(flags, "-Werror", "-fsyntax-only")...); err != nil {
		t.Error(err)
	}
}

func TestParseResult(t *testing.T) {
	r, ok := ParseResult(`{"test":"mp","result":"ok","seconds":0.5,"rounds":64,"detail":"a \"b\"","error":"","forbidden":0}` + "\r\n")
	if !ok || r.Test != "mp" || r.Verdict != OK || r.Rounds != 64 || r.Detail != `a "b"` || len(r.Metrics) != 1 {
		t.Errorf("got %+v, %v", r, ok)
	}
	for _, line := range []string{"", "mp ok", `{"summary":true}`, `{"test":"mp"`, `{"test":1}`} {
		if r, ok := ParseResult(line); ok {
			t.Errorf("%q was read as %+v", line, r)
		}
	}
}
