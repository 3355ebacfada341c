// Init is the guest's first process: it brings a freshly booted Linux to the point where it does what the kernel
// command line asks for, says what came of it, and powers the machine off.
//
// Lines on the console are for whoever started the guest:
//
//	coalesce-guest: up 1.234567    seconds since the kernel started its clock, once the system is usable
//	coalesce-guest: cpu N online 2.345678    for each processor that maxcpus= left to init
//	coalesce-guest: exit N         the last word before power-off; N is the exit status of what was run
//
// The kernel command line chooses what is run (see config). Whatever goes wrong ends in a message, an exit line and a
// power-off: a first process that dies would leave a kernel panic instead.
//
// Every page this program writes moves between the hosts of a distributed guest, so it stays small and quiet: one
// processor; a few KiB of heap, so that the garbage collector, which starts at 4 MiB, never does; nothing that imports
// fmt or os (runtime/debug does, only to switch that collector off); and it keeps to the first CPU, the one that has
// the console's device beside it.
package main

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Exit statuses of init's own; what it runs reports its own status, or 128 plus the signal that ended it.
const (
	exitFailure  = 1   // the system could not be set up
	exitNotFound = 127 // what was to be run could not be started
)

func main() {
	runtime.LockOSThread()
	runtime.GOMAXPROCS(1)
	if unix.Getpid() != 1 {
		say("must be the first process of a machine (it powers the machine off)")
		unix.Exit(2)
	}
	powerOff(boot())
}

// boot sets the system up, runs what the command line asks for and returns the exit status to report.
func boot() (status int) {
	defer func() {
		if r := recover(); r != nil {
			say("init panicked: " + panicText(r))
			status = exitFailure
		}
	}()
	keepToFirstCPU()
	if err := mountAll(); err != nil {
		say(err.Error())
		return exitFailure
	}
	cmdline, err := readFile("/proc/cmdline")
	if err != nil {
		say(err.Error())
		return exitFailure
	}
	cfg, err := parseConfig(string(cmdline))
	if err != nil {
		say(err.Error())
		return exitFailure
	}
	if err := loadModules("/lib/modules"); err != nil {
		say(err.Error())
		return exitFailure
	}
	if err := unix.Sethostname([]byte(cfg.hostname)); err != nil {
		say("setting the host name " + cfg.hostname + ": " + err.Error())
		return exitFailure
	}
	uptime, err := sinceKernelStart()
	if err != nil {
		say(err.Error())
		return exitFailure
	}
	say("up " + seconds(uptime))
	if err := onlineCPUs(); err != nil {
		say(err.Error())
		return exitFailure
	}
	return run(cfg)
}

// panicText returns the message of a recovered panic.
func panicText(r any) string {
	switch r := r.(type) {
	case error:
		return r.Error()
	case string:
		return r
	}
	return "a value without a message"
}
