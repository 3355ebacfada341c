package main

import "golang.org/x/sys/unix"

// mounts are the file systems every program expects, in the order they are mounted.
var mounts = []struct {
	fstype, target, options string
	flags                   uintptr
}{
	{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID},
	{"tmpfs", "/tmp", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV},
	{"tmpfs", "/run", "mode=0755", unix.MS_NOSUID | unix.MS_NODEV},
}

// mountAll mounts them. One that is mounted already is as good: a kernel may mount devtmpfs itself.
func mountAll() error {
	for _, m := range mounts {
		if err := unix.Mkdir(m.target, 0o755); err != nil && err != unix.EEXIST {
			return failed("making "+m.target, err)
		}
		err := unix.Mount(m.fstype, m.target, m.fstype, m.flags, m.options)
		if err != nil && err != unix.EBUSY {
			return failed("mounting "+m.fstype+" on "+m.target, err)
		}
	}
	return nil
}
