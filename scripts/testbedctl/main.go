// Command testbedctl boots the testbed, an emulated host that stands in for hardware on machines whose own KVM cannot
// run a stock kernel, and runs commands in it. scripts/testbed builds and starts it.
//
// The same program is the emulated host's init: it puts itself into the initial ramdisk (see package agent).
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"coalesce/scripts/testbedctl/agent"
)

const usage = `usage: scripts/testbed run   [FLAGS] -- COMMAND [ARG...]   run a command in the emulated host
       scripts/testbed test  [FLAGS] PACKAGE... [-- FLAG...]  run Go packages' tests there, with FLAGs for the test binary
       scripts/testbed shell [FLAGS]                          a shell in it (Ctrl-] leaves at once)

The emulated host is an AMD machine with nested paging (QEMU's software emulation) and Debian's stock kernel; kvm_amd is
loaded, /dev/kvm and /dev/userfaultfd are there, and so are bash, busybox, ip and tc. It starts anew each time, with
everything in memory. Tests run in folders of the same name as here, with their testdata. What the command prints comes as it comes; its exit status is ours. Other statuses: 2 usage, 124 out of time,
125 the testbed failed, 127 no such command, 128+N killed by signal N. When it fails, the emulated host's console and
kernel log are kept and named.

FLAGS
`

// exitError carries an exit status to main; a message is printed if there is one.
type exitError struct {
	status  int
	message string
}

func (e *exitError) Error() string { return e.message }

// usageErrorf is a mistake of the caller: exit status 2.
func usageErrorf(format string, args ...any) error {
	return &exitError{2, fmt.Sprintf(format, args...) + " (see scripts/testbed --help)"}
}

func main() {
	if len(os.Args) > 0 && os.Args[0] == "/init" {
		inside()
		return
	}
	// Children die with the thread that started them (Pdeathsig): start them all from the first one.
	runtime.LockOSThread()
	err := outside(os.Args[1:])
	if err == nil {
		return
	}
	status := 125
	var e *exitError
	if errors.As(err, &e) {
		status = e.status
	}
	if err.Error() != "" {
		fmt.Fprintln(os.Stderr, "testbed:", err)
	}
	os.Exit(status)
}

// inside is the program's part in the emulated host.
func inside() {
	if os.Getpid() == 1 {
		agent.Init()
	}
	if err := agent.Work(); err != nil {
		fmt.Fprintln(os.Stderr, "testbed agent:", err)
		os.Exit(1)
	}
}

// outside is the program's part on the machine that emulates.
func outside(args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		newOptions("run").printFlags(os.Stderr)
		return &exitError{status: 2}
	}
	switch args[0] {
	case "run", "test", "shell":
		o := newOptions(args[0])
		if err := o.parse(args[1:]); err != nil {
			return err
		}
		if o.help {
			fmt.Print(usage)
			o.printFlags(os.Stdout)
			return nil
		}
		return execute(o)
	case "-h", "-help", "--help", "help":
		fmt.Print(usage)
		newOptions("run").printFlags(os.Stdout)
		return nil
	}
	return usageErrorf("unknown subcommand %q", args[0])
}
