package sim

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// build builds this package's tests with simulated locks, and with what flags
// change.
func build(dir string, flags ...string) (program string, err error) {
	program = filepath.Join(dir, "simulated.test")
	args := append([]string{"test", "-c", "-vet=off", "-tags", "simulated", "-o", program}, flags...)
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build the simulation: %w\n%s", err, out)
	}
	return program, nil
}

// TestWithLocks runs the seeds on engines whose locks are simulated: wherever a
// thread takes one, lets one go, or calls the kernel, others may run.
func TestWithLocks(t *testing.T) {
	if locks {
		t.Log("this is with locks")
		return
	}
	program, err := build(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", "^(TestKnownSeeds|TestFreshSeeds|TestSeedDecidesAll)$", "-for", period().String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}
