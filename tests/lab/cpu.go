package lab

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// cpuVariable names the environment variable that keeps the hosts' processes to one CPU of this machine. It is for the
// emulated host, whose CPUs take turns on one thread and do not interrupt each other in between: a message to a process
// on the other CPU may take until the end of this one's turn.
const cpuVariable = "COALESCE_LAB_CPU"

// keepToCPU binds the calling thread, and with it what it starts, to the CPU that the environment names.
func keepToCPU() error {
	name := os.Getenv(cpuVariable)
	if name == "" {
		return nil
	}
	cpu, err := strconv.Atoi(name)
	if err != nil {
		return fmt.Errorf("%s: %w", cpuVariable, err)
	}
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("keep to CPU %d (%s): %w", cpu, cpuVariable, err)
	}
	return nil
}
