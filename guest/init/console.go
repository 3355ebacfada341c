package main

import (
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// say prints one line of init's on the console, in a single write so that the kernel's lines do not split it.
func say(text string) {
	line := []byte("coalesce-guest: " + text + "\n")
	for len(line) > 0 {
		n, err := unix.Write(1, line)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return // there is no other place to report it
		}
		line = line[n:]
	}
}

// seconds formats d as seconds with microseconds, as the kernel's log does.
func seconds(d time.Duration) string {
	us := d.Microseconds()
	frac := strconv.FormatInt(us%1e6, 10)
	return strconv.FormatInt(us/1e6, 10) + "." + strings.Repeat("0", 6-len(frac)) + frac
}

// sinceKernelStart returns the time since the kernel started its clock, suspends included.
func sinceKernelStart() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0, failed("reading CLOCK_BOOTTIME", err)
	}
	return time.Duration(ts.Nano()), nil
}

// terminal opens the console's real device for an interactive program: /dev/console itself cannot be the controlling
// terminal of a session. The kernel names the device last in the list of active consoles.
func terminal() (fd int, err error) {
	list, err := readFile("/sys/class/tty/console/active")
	if err != nil {
		return -1, err
	}
	names := strings.Fields(string(list))
	if len(names) == 0 {
		return -1, failed("looking for the console's terminal", unix.ENODEV)
	}
	path := "/dev/" + names[len(names)-1]
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, failed("opening "+path, err)
	}
	return fd, nil
}
