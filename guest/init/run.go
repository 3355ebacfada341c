package main

import (
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// environment is what every program of the guest starts with.
var environment = []string{"PATH=/bin:/bbin:/sbin:/usr/bin", "HOME=/", "TERM=linux"}

// run runs what cfg says, on the console, until it ends, and returns its exit status. All other processes that end
// meanwhile are init's to reap.
func run(cfg config) int {
	if len(cfg.argv) == 0 {
		return 0
	}
	path := cfg.argv[0]
	// Found out beforehand for the better message: execve's ENOENT can also mean an interpreter.
	if err := unix.Access(path, unix.X_OK); err != nil {
		say(path + " cannot be run: " + err.Error() + " (the initramfs may be the tiny one, which has no shell)")
		return exitNotFound
	}
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   environment,
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if cfg.terminal {
		fd, err := terminal()
		if err != nil {
			say(err.Error())
			return exitFailure
		}
		attr.Files = []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)}
		attr.Sys.Setctty = true // Ctty 0: the child's descriptor 0
	}
	useAllCPUs() // the child inherits the set
	pid, err := syscall.ForkExec(path, cfg.argv, attr)
	keepToFirstCPU()
	if err != nil {
		say("starting " + path + ": " + err.Error())
		return exitNotFound
	}
	return reapUntil(pid)
}

// reapUntil waits for children until pid ends and returns its exit status, 128 plus the number if it was a signal.
func reapUntil(pid int) int {
	for {
		var status unix.WaitStatus
		got, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			say("waiting for process " + strconv.Itoa(pid) + ": " + err.Error())
			return exitFailure
		case got != pid:
		case status.Exited():
			return status.ExitStatus()
		case status.Signaled():
			say("ended by signal " + strconv.Itoa(int(status.Signal())) + " (" + unix.SignalName(status.Signal()) + ")")
			return 128 + int(status.Signal())
		}
	}
}
