package main

import "golang.org/x/sys/unix"

// allCPUs is the set init found when it started.
var allCPUs unix.CPUSet

// keepToFirstCPU binds the calling thread, which must be locked, to CPU 0: the devices are beside it, while every
// access from another host's CPU is a message. A kernel that refuses costs time only.
func keepToFirstCPU() {
	if allCPUs.Count() == 0 && unix.SchedGetaffinity(0, &allCPUs) != nil {
		return
	}
	var first unix.CPUSet
	first.Set(0)
	_ = unix.SchedSetaffinity(0, &first)
}

// useAllCPUs takes the binding back, for what init starts.
func useAllCPUs() {
	if allCPUs.Count() != 0 {
		_ = unix.SchedSetaffinity(0, &allCPUs)
	}
}
