package main

import (
	"errors"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// allCPUs is the set that what init starts may use: every CPU that is online.
var allCPUs unix.CPUSet

// keepToFirstCPU binds the calling thread, which must be locked, to CPU 0: the devices are beside it, while every
// access from another host's CPU is a message. A kernel that refuses costs time only.
func keepToFirstCPU() {
	if allCPUs.Count() == 0 && unix.SchedGetaffinity(0, &allCPUs) != nil {
		return
	}
	keepToCPU(0)
}

// keepToCPU binds the calling thread to one CPU.
func keepToCPU(cpu int) {
	var one unix.CPUSet
	one.Set(cpu)
	_ = unix.SchedSetaffinity(0, &one)
}

// useAllCPUs takes the binding back, for what init starts.
func useAllCPUs() {
	if allCPUs.Count() != 0 {
		_ = unix.SchedSetaffinity(0, &allCPUs)
	}
}

// cpuDir is where the kernel shows its processors.
const cpuDir = "/sys/devices/system/cpu/"

// onlineCPUs brings up the processors that the kernel found and left alone, as it does with all beyond maxcpus=N. Those
// of other hosts are better started once the kernel has booted: until then nothing has to wait for a page of theirs.
func onlineCPUs() error {
	present, err := readFile(cpuDir + "present")
	if err != nil {
		return err
	}
	cpus, err := parseList(string(present))
	if err != nil {
		return failed("reading the list of processors", err)
	}
	for _, cpu := range cpus {
		name := cpuDir + "cpu" + strconv.Itoa(cpu) + "/online"
		state, err := readFile(name)
		if err != nil || len(state) == 0 || state[0] != '0' {
			continue // the first one has no such file: it cannot leave
		}
		if err := writeFile(name, "1"); err != nil {
			return err
		}
		allCPUs.Set(cpu)
		now, err := sinceKernelStart()
		if err != nil {
			return err
		}
		// It says so itself: the console's device is reached from there, too.
		keepToCPU(cpu)
		say("cpu " + strconv.Itoa(cpu) + " online " + seconds(now))
		keepToFirstCPU()
	}
	return nil
}

// maxCPU bounds the numbers that parseList takes: those a CPUSet holds.
const maxCPU = 1023

// parseList parses the kernel's form of a set of numbers, as "0-2,5".
func parseList(list string) ([]int, error) {
	var all []int
	for _, part := range strings.Split(strings.TrimSpace(list), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.Atoi(first)
		if err != nil {
			return nil, err
		}
		to, err := strconv.Atoi(last)
		if err != nil {
			return nil, err
		}
		if from < 0 || to < from || to > maxCPU {
			return nil, errors.New("bad range " + part)
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}
