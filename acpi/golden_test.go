package acpi

import (
	"bytes"
	"context"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

// acpica returns the path of one of ACPICA's tools, which Debian has in
// acpica-tools. Without it the test is left out, but not in CI.
func acpica(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err == nil {
		return path
	}
	const hint = "apt-get install --no-install-recommends acpica-tools"
	if os.Getenv("CI") == "true" {
		t.Fatalf("%v: %s", err, hint)
	}
	t.Skipf("tables not checked: %v: %s", err, hint)
	return ""
}

// run runs a tool in dir and returns what it printed.
func run(t *testing.T, dir, path string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(path), strings.Join(args, " "), err, out)
	}
	return string(out)
}

// signatures are those that iasl knows: all but the RSDP's.
func signatures(tables map[string][]byte) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(tables)), func(s string) bool { return s == "RSD PTR " })
}

// TestGolden takes every table of every machine apart with iasl, compares the
// text with testdata, puts it together again and compares the bytes.
func TestGolden(t *testing.T) {
	iasl := acpica(t, "iasl")
	for name, machine := range machines {
		t.Run(name, func(t *testing.T) {
			tables, err := machine().Tables()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for _, sig := range signatures(tables) {
				table := tables[sig]
				if err := os.WriteFile(filepath.Join(dir, sig+".aml"), table, 0o600); err != nil {
					t.Fatal(err)
				}
				out := run(t, dir, iasl, "-d", sig+".aml")
				if complaint.MatchString(out) {
					t.Errorf("%s: iasl -d:\n%s", sig, out)
				}
				compareGolden(t, iasl, filepath.Join("testdata", name, sig+".dsl"), readDisassembly(t, filepath.Join(dir, sig+".dsl")))
				recompile(t, iasl, dir, sig, table)
			}
		})
	}
	t.Run("no others", func(t *testing.T) {
		files, err := filepath.Glob("testdata/*/*.dsl")
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			machine, ok := machines[filepath.Base(filepath.Dir(f))]
			if !ok {
				t.Errorf("%s: no such machine", f)
				continue
			}
			tables, err := machine().Tables()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := tables[strings.TrimSuffix(filepath.Base(f), ".dsl")]; !ok {
				t.Errorf("%s: the machine has no such table", f)
			}
		}
	})
}

var (
	complaint = regexp.MustCompile(`(?i)\b(error|warning|invalid|unknown|mismatch)\b`)

	// firstComment is the one with the tool's version, the path and the date.
	firstComment = regexp.MustCompile(`(?s)\A/\*.*?\*/\s*`)

	// verdict is the compiler's last line.
	verdict = regexp.MustCompile(`(\d+) Errors, (\d+) Warnings, (\d+) Remarks`)
)

func readDisassembly(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stripped := firstComment.ReplaceAllString(string(text), "")
	if stripped == string(text) {
		t.Errorf("%s does not begin with a comment", file)
	}
	if complaint.MatchString(stripped) {
		t.Errorf("%s: iasl complains:\n%s", filepath.Base(file), stripped)
	}
	return strings.TrimSpace(stripped) + "\n"
}

func compareGolden(t *testing.T, iasl, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -run TestGolden -update writes it)", err)
	}
	if got == string(want) {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	i := 0
	for i < len(gotLines) && i < len(wantLines) && gotLines[i] == wantLines[i] {
		i++
	}
	line := func(lines []string) string {
		if i < len(lines) {
			return lines[i]
		}
		return "(end)"
	}
	t.Errorf("%s:%d differs\n got %s\nwant %s\n(if that is right: go test -run TestGolden -update; written by iasl 20200925, this is %s)",
		file, i+1, line(gotLines), line(wantLines), strings.Join(strings.Fields(run(t, t.TempDir(), iasl, "-v")), " "))
}

// recompile turns the disassembly back into a table. The compiler must find
// nothing to object to, and arrive at the same bytes: an encoding that is
// merely understood is not good enough. Optimizations are off, so that names
// stay as they are written.
func recompile(t *testing.T, iasl, dir, sig string, table []byte) {
	t.Helper()
	out := run(t, dir, iasl, "-oa", "-p", "again-"+sig, sig+".dsl")
	v := verdict.FindStringSubmatch(out)
	if v == nil || v[1] != "0" || v[2] != "0" {
		t.Errorf("%s: iasl on its own disassembly:\n%s", sig, out)
		return
	}
	if v[3] != "0" {
		t.Logf("%s: %s remarks:\n%s", sig, v[3], out)
	}
	again, err := os.ReadFile(filepath.Join(dir, "again-"+sig+".aml"))
	if err != nil {
		t.Fatal(err)
	}
	// The compiler signs its work: its id, version and the checksum differ.
	const creatorOffset = 28
	for _, b := range [][]byte{table, again} {
		if len(b) < headerLength {
			t.Fatalf("%s: %d bytes", sig, len(b))
		}
		b[checksumOffset] = 0
		clear(b[creatorOffset:headerLength])
	}
	if sig == "APIC" {
		// This iasl is older than the Online Capable flag and forgets it. Its
		// dump of the table in testdata holds the flag.
		return
	}
	if !bytes.Equal(again, table) {
		t.Errorf("%s: compiled again it is\n%x\nnot\n%x", sig, again, table)
	}
}

// TestInterpreter loads each DSDT into ACPICA's interpreter, the one in Linux,
// and runs what Linux runs. The interpreter's registers are plain memory, so
// no CPU is there and no event pending.
func TestInterpreter(t *testing.T) {
	acpiexec := acpica(t, "acpiexec")
	const nothing = "No object was returned"
	type evaluation struct{ object, want string }
	for name, evaluations := range map[string][]evaluation{
		"one-cpu": {
			{`\_S5`, "[Integer] = 0000000000000005"},
			{`\_SB.COM1._HID`, "[Integer] = 000000000105D041"},
		},
		"two-nodes": {
			{`\_SB.CPUS.C001._PXM`, "[Integer] = 0000000000000001"},
			{`\_SB.GED._EVT 5`, nothing},
		},
		"slots": {
			{`\_SB.CPUS.C004._STA`, "[Integer] = 0000000000000000"},
			{`\_SB.V001._UID`, "[Integer] = 0000000000000001"},
		},
		"hotplug": {
			{`\_SB.CPUS.C003._STA`, "[Integer] = 0000000000000000"},
			{`\_SB.CPUS.C003._MAT`, "09 10 00 00 00 01 00 00 01 00 00 00 00 01 00 00"},
			{`\_SB.CPUS.C003._EJ0 1`, nothing},
			{`\_SB.CPUS.C003._OST 3 4 (00)`, nothing},
			{`\_SB.CPUS.CNFY 3 1`, nothing},
			{`\_SB.CPUS.CSCN`, nothing},
			{`\_SB.GED._EVT 5`, nothing},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // the interpreter sleeps for a second before it ends
			tables, err := machines[name]().Tables()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "DSDT.aml"), tables["DSDT"], 0o600); err != nil {
				t.Fatal(err)
			}
			var batch []string
			for _, e := range evaluations {
				batch = append(batch, "evaluate "+e.object)
			}
			out := run(t, dir, acpiexec, "-b", strings.Join(batch, ";"), "DSDT.aml")
			if interpreterComplaint.MatchString(out) {
				t.Errorf("the interpreter complains:\n%s", out)
			}
			answers := strings.Split(out, "\nEvaluating ")[1:]
			if len(answers) != len(evaluations) {
				t.Fatalf("%d answers to %d questions:\n%s", len(answers), len(evaluations), out)
			}
			for i, e := range evaluations {
				if !strings.Contains(answers[i], e.want) {
					t.Errorf("%s: want %q in\n%s", e.object, e.want, answers[i])
				}
			}
		})
	}
}

var interpreterComplaint = regexp.MustCompile(`ACPI (BIOS )?(Error|Warning)|AE_[A-Z]|Could not`)
