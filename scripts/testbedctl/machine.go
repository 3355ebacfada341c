package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/scripts/testbedctl/agent"
	"coalesce/scripts/testbedctl/pty"
)

// machine is a running emulated host.
type machine struct {
	cmd     *exec.Cmd
	errors  tail          // what the emulator says
	out     *os.File      // frames from the agent
	in      *os.File      // frames to the agent
	console *os.File      // the kernel's console
	display *pty.Terminal // what the emulator takes for its screen; nil if it needs none
	exited  chan struct{} // closed when the emulator has ended
}

// kind is a kind of emulated host.
type kind struct {
	name      string
	kernel    string        // file in build/kernel that boot wants
	modules   []string      // loaded in it, besides commonModules
	params    []string      // of modules, as wire.Plan has them
	bootLimit time.Duration // how long it may take until its agent speaks

	// What the command line may change.
	cpus    int
	memory  int // MiB
	cpu     string
	timeout time.Duration

	boot func(o *options, kernel string, ramdisk *os.File) (*machine, error)
}

// commonModules are loaded in every emulated host.
var commonModules = []string{"msr", "veth", "bridge", "tun", "sch_netem", "sch_tbf", "sch_htb"}

// kinds by the value of --machine.
var kinds = map[string]kind{
	"amd": {
		name: "AMD", kernel: "vmlinux", modules: []string{"kvm-amd"}, bootLimit: 2 * time.Minute, // 4 s is usual
		cpus: 2, memory: 3000, cpu: "EPYC,+svm,+npt", timeout: 10 * time.Minute,
		boot: bootAMD,
	},
	"intel": {
		name: "Intel", kernel: "vmlinuz", modules: []string{"kvm-intel"}, bootLimit: 15 * time.Minute, // 100 s is usual
		params: []string{"kvm-intel.ko eptad=0"}, // with A/D bits, EPT counts page walks as writes
		cpus:   1, memory: 1024, cpu: "corei7_haswell_4770", timeout: 30 * time.Minute,
		boot: bootIntel,
	},
}

// commandLine is the kernel's command line: a panic ends the emulator (-no-reboot), so it is noticed at once.
const commandLine = "console=ttyS0 rdinit=/init reboot=t panic=-1 oops=panic mitigations=off tsc=reliable quiet"

// bootAMD starts QEMU. kernel is an ELF image: entered by PVH, it saves the decompression. Call it from the thread that started the program: the emulator dies with it.
func bootAMD(o *options, kernel string, ramdisk *os.File) (*machine, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return nil, fmt.Errorf("%w: run scripts/setup", err)
	}
	m := newMachine()
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	for _, end := range []**os.File{&m.console, &m.out} {
		ours, their, err := socketPair()
		if err != nil {
			m.closeFiles()
			return nil, err
		}
		*end, theirs = ours, append(theirs, their)
	}
	m.in = m.out
	// File descriptors from 3 up: console, port, ramdisk.
	m.cmd = exec.Command(qemu,
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread="+o.thread, "-cpu", o.cpu, "-smp", fmt.Sprint(o.cpus), "-m", fmt.Sprint(o.memory),
		"-kernel", kernel, "-initrd", "/proc/self/fd/5", "-append", strings.TrimSpace(commandLine+" "+o.append),
		"-chardev", "socket,id=console,fd=3", "-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=port,fd=4",
		"-device", "virtserialport,chardev=port,name="+agent.PortName,
	)
	m.cmd.ExtraFiles = []*os.File{theirs[0], theirs[1], ramdisk}
	m.cmd.Stderr = &m.errors
	if err := m.start(nil); err != nil {
		m.closeFiles()
		return nil, err
	}
	return m, nil
}

func newMachine() *machine {
	return &machine{errors: tail{limit: 64 << 10}, exited: make(chan struct{})}
}

// start starts the emulator, with a terminal of its own if tty is not nil.
func (m *machine) start(tty *os.File) error {
	// A group of its own: Ctrl-C is for us, we end it.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if tty != nil {
		m.cmd.Stdin, m.cmd.Stdout, m.cmd.Stderr = tty, tty, tty
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	}
	if err := m.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", m.cmd.Path, err)
	}
	go func() {
		_ = m.cmd.Wait() // how it ended does not matter: what counts is the last frame
		close(m.exited)
	}()
	return nil
}

// stop ends the emulator, if it has not ended, and waits until it is gone.
func (m *machine) stop() {
	_ = m.cmd.Process.Kill() // os.ErrProcessDone: it has ended
	<-m.exited
	m.closeFiles()
}

func (m *machine) closeFiles() {
	for _, f := range []*os.File{m.console, m.out, m.in} {
		if f != nil {
			f.Close() // in may be out: once is enough
		}
	}
	if m.display != nil {
		m.display.Close()
	}
}

// socketPair returns two connected stream sockets, the first one non-blocking on our side.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("create a socket pair: %w", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, nil, fmt.Errorf("set a socket to non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

// tail keeps the last bytes written to it. It may be used by several goroutines.
type tail struct {
	limit int // bytes kept, at least

	mu  sync.Mutex
	buf []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if extra := len(t.buf) - 2*t.limit; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[len(t.buf)-t.limit:]...)
	}
	return len(b), nil
}

// bytes returns a copy of what is kept.
func (t *tail) bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.buf)
}
