package doctor

import (
	"fmt"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

const userfaultfdDevice = "/dev/userfaultfd"

// DeviceAccess says what a device's file mode is, as ls -l shows it, and what gives
// this user the right to read and write it.
func DeviceAccess(path string) string {
	if os.Geteuid() == 0 {
		return "this is root, so a container or a security module keeps the device back: allow it there"
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Sprintf("%v: run as root", err)
	}
	shows := fmt.Sprintf("it is %s %s %s", modeString(st.Mode), userName(st.Uid), groupName(st.Gid))
	const groupMayUse = unix.S_IRGRP | unix.S_IWGRP
	if st.Mode&groupMayUse == groupMayUse && st.Gid != 0 {
		return fmt.Sprintf("%s: join the group (sudo usermod -aG %s $USER, then log in again) or run as root", shows, groupName(st.Gid))
	}
	return fmt.Sprintf("%s: sudo setfacl -m u:$USER:rw %s, or run as root", shows, path)
}

// UserfaultfdAccess says what gives this user the right to handle the page faults
// of the kernel.
func UserfaultfdAccess() string {
	const others = "run as root (CAP_SYS_PTRACE), or sudo sysctl vm.unprivileged_userfaultfd=1"
	if _, err := os.Stat(userfaultfdDevice); err != nil || os.Geteuid() == 0 {
		return others
	}
	return fmt.Sprintf("sudo setfacl -m u:$USER:rw %s, %s", userfaultfdDevice, others)
}

// modeString writes the mode of a device as ls -l does: "crw-rw----".
func modeString(mode uint32) string {
	b := []byte("crwxrwxrwx")
	if mode&unix.S_IFMT != unix.S_IFCHR {
		b[0] = '?'
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[1+i] = '-'
		}
	}
	return string(b)
}

// userName and groupName return a name, or the number if it has none.
func userName(id uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return u.Username
	}
	return strconv.FormatUint(uint64(id), 10)
}

func groupName(id uint32) string {
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return g.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}
