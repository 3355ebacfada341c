package main

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// powerOff reports status as init's last line, lets the console send it, and powers the machine off. It does not
// return: if the kernel refuses, init says so and waits, since its death would be a panic.
func powerOff(status int) {
	unix.Sync()
	say("exit " + strconv.Itoa(status))
	// tcdrain(3): the line would otherwise be lost in the device's buffer. A console without one refuses.
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	say("power-off failed: " + err.Error())
	for {
		_ = unix.Pause()
	}
}
