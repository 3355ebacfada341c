package doctor

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "write the golden files anew")

// reports are hosts of the README's table; the golden files show how they look.
var reports = map[string]Report{
	"everything": {
		Checks: []Check{
			{Name: "kernel", Status: OK, Measured: "Linux 6.12.1"},
			{Name: "kvm", Status: OK, Measured: "/dev/kvm opens and makes a VM (kvm_intel)"},
			{Name: "page-table walks", Status: OK, Measured: "reads only: hosts can share page tables"},
		},
		Verdict: verdict(healthy()),
	},
	"amd": {
		Checks: []Check{
			{Name: "kernel", Status: OK, Measured: "Linux 6.12.1"},
			{Name: "page-table walks", Status: Degraded, Measured: "writes", Costs: "they bounce", Mend: "none here"},
			{Name: "TSC scaling", Status: Degraded, Measured: "KVM_CAP_TSC_CONTROL is 0", Costs: "no other speed"},
		},
		Verdict: verdict(with(func(f *facts) { f.walksWrite = true })),
	},
	"shadow": {
		Checks: []Check{
			{Name: "ring 0 speed", Status: Missing, Measured: "emulated: 700 ns <&> more", Costs: "no Linux", Mend: "run elsewhere"},
			{Name: "nested paging", Status: Missing, Measured: "shadow paging", Costs: "no other hosts"},
		},
		Verdict: verdict(with(func(f *facts) { f.ring0Native, f.nested = false, false })),
	},
	"no-kvm": {
		Checks: []Check{
			{Name: "kvm", Status: Missing, Measured: "open /dev/kvm: permission denied", Costs: "nothing runs", Mend: "sudo setfacl"},
			{Name: "ring 0 speed", Status: Missing, Measured: "not probed: needs kvm"},
		},
		Verdict: verdict(facts{memfd: true, uffd: true, tsc: true}),
	},
}

func TestReportGolden(t *testing.T) {
	for name, r := range reports {
		for ext, write := range map[string]func(io.Writer) error{"txt": r.WriteText, "json": r.WriteJSON} {
			t.Run(name+"."+ext, func(t *testing.T) {
				var b bytes.Buffer
				if err := write(&b); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join("testdata", name+"."+ext)
				if *update {
					if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b.Bytes(), want) {
					t.Errorf("got\n%s\nwant\n%s", b.Bytes(), want)
				}
			})
		}
	}
}

// command runs the doctor command on a report.
func command(t *testing.T, r Report, asJSON bool, out io.Writer) error {
	t.Helper()
	cmd := &cobra.Command{}
	cmd.SetOut(out)
	return report(cmd, r, asJSON)
}

func TestCommandResult(t *testing.T) {
	if err := command(t, reports["amd"], false, io.Discard); err != nil {
		t.Errorf("a host that runs Linux: %v", err)
	}
	var out bytes.Buffer
	err := command(t, reports["shadow"], true, &out)
	var cannot *CannotRunError
	if !errors.As(err, &cannot) || cannot.Reason != reports["shadow"].Verdict.RunLinuxReason {
		t.Errorf("a host that does not: %v", err)
	}
	var got Report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Verdict != reports["shadow"].Verdict || len(got.Checks) != 2 || got.Checks[0] != reports["shadow"].Checks[0] {
		t.Errorf("JSON does not come back: %+v", got)
	}
	if err := command(t, reports["amd"], false, failingWriter{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a report that cannot be printed: %v", err)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }

func TestCommandUsage(t *testing.T) {
	device := "/no/such/kvm"
	cmd := Command(&device)
	cmd.SetArgs([]string{"surplus"})
	if err := cmd.Execute(); err == nil {
		t.Error("an argument was accepted")
	}
}
