// Package agent is what runs inside the emulated host: process 1, which sets the machine up as a distribution's init
// would, and a worker, which runs the commands of the plan that came in the initial ramdisk and reports over the port.
//
// Process 1 does nothing but reap, so that what the commands leave behind does not stay as zombies:
//
//	1: mounts ──► starts the worker ──► reaps until the worker ends ──► powers off
//	worker: opens the port ──► loads modules ──► Hello ──► (Began, Stdout/Stderr…, Ended)… ──► File… ──► Done
package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// PlanFile is where the plan lies in the initial ramdisk, as JSON.
const PlanFile = "/testbed.json"

// PortName is the virtio-serial port to the outside.
const PortName = "coalesce.testbed"

// Init is process 1. It does not return.
func Init() {
	err := setUp()
	if err == nil {
		err = superviseWorker()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testbed agent:", err)
	}
	unix.Sync()
	// The other end ends the machine once it has the last frame; this is for when it is not there.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, "testbed agent: power off:", err)
	}
	select {}
}

// superviseWorker runs the worker and reaps every orphan until it ends.
func superviseWorker() error {
	worker, err := syscall.ForkExec("/init", []string{"/init", "worker"}, &syscall.ProcAttr{
		Env: []string{
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"HOME=/root", "TMPDIR=/tmp", "TERM=linux", "USER=root", "LANG=C.UTF-8",
		},
		Files: []uintptr{0, 1, 2},
	})
	if err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the worker: %w", err)
		case pid == worker && status.ExitStatus() != 0:
			return fmt.Errorf("the worker ended with %#x", uint32(status))
		case pid == worker:
			return nil
		}
	}
}

// setUp mounts the kernel's file systems (the root, with /tmp and /run in it, is a tmpfs already) and does the little that programs expect of any init.
func setUp() error {
	for _, m := range []struct{ kind, target, options string }{
		{"devtmpfs", "/dev", ""},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"tmpfs", "/dev/shm", ""},
		{"cgroup2", "/sys/fs/cgroup", ""},
		{"debugfs", "/sys/kernel/debug", ""},
		{"tracefs", "/sys/kernel/tracing", ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s on %s: %w", m.kind, m.target, err)
		}
	}
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, name); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte("testbed")); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	// What service managers give; the kernel's own default is 4096.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 1 << 19}); err != nil {
		return fmt.Errorf("set the limit of open files: %w", err)
	}
	return loopbackUp()
}

// loopbackUp switches the interface lo on.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(s)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("switch on lo: %w", err)
	}
	return nil
}

// openPort opens the way to the outside and the way back: the virtio-serial port for both, or the serial lines that the
// kernel's command line names as testbed.out and testbed.in.
func openPort() (out, in *os.File, err error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, nil, err
	}
	for _, word := range strings.Fields(string(cmdline)) {
		if name, ok := strings.CutPrefix(word, "testbed.out="); ok {
			out, err = openSerial("/dev/" + name)
		} else if name, ok := strings.CutPrefix(word, "testbed.in="); ok {
			in, err = openSerial("/dev/" + name)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if out == nil || in == nil {
		out, err = openVirtio()
		in = out
	}
	return out, in, err
}

// openVirtio opens the virtio-serial port.
func openVirtio() (*os.File, error) {
	// The driver is built in, but its device may answer a moment later than the worker starts.
	deadline := time.Now().Add(10 * time.Second)
	for {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == PortName {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no virtio-serial port named %s", PortName)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// openSerial opens a serial line as a plain path for bytes.
func openSerial(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, &raw); err != nil {
		f.Close()
		return nil, fmt.Errorf("set %s to raw: %w", name, err)
	}
	return f, nil
}

// loadModules loads files below /modules; params has lines "FILE NAME=VALUE...".
func loadModules(files, params []string) error {
	options := map[string]string{}
	for _, p := range params {
		file, values, _ := strings.Cut(p, " ")
		options[file] = strings.TrimSpace(options[file] + " " + values)
	}
	for _, name := range files {
		f, err := os.Open(filepath.Join("/modules", name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), options[name], 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("load module %s: %w", name, err)
		}
	}
	return nil
}
