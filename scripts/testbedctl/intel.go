package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"coalesce/scripts/testbedctl/pty"
)

// Files of Debian's packages that an emulated Intel host is made of.
const (
	isolinuxBin = "/usr/lib/ISOLINUX/isolinux.bin"
	ldlinuxC32  = "/usr/lib/syslinux/modules/bios/ldlinux.c32"
	bochsBIOS   = "/usr/share/bochs/BIOS-bochs-latest"
	bochsVGA    = "/usr/share/vgabios/vgabios.bin"
)

// bootIntel starts Bochs. It knows no direct kernel boot and no virtio: the kernel comes on a CD, frames come out through
// the second serial line, which waits when we are slow, and go in through the third, which is a terminal. Call it from the thread that started the program: Bochs dies with it.
func bootIntel(o *options, kernel string, ramdisk *os.File) (*machine, error) {
	bochs, err := exec.LookPath("bochs")
	if err != nil {
		return nil, fmt.Errorf("%w: use scripts/testbed-intel, which installs it", err)
	}
	disc, err := makeDisc(o, kernel, ramdisk)
	if err != nil {
		return nil, fmt.Errorf("make the boot disc: %w", err)
	}
	m := newMachine()
	theirs := []*os.File{disc}
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	fail := func(err error) (*machine, error) {
		m.closeFiles()
		return nil, err
	}
	var logs *os.File
	for _, end := range []**os.File{&m.console, &m.out, &logs} {
		r, w, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		*end, theirs = r, append(theirs, w)
	}
	input, err := pty.Open(24, 80)
	if err != nil {
		return fail(err)
	}
	m.in = input.File
	inputName, err := input.PeerName()
	if err != nil {
		return fail(err)
	}
	// File descriptors from 3 up: disc, console, out, logs, configuration, debugger's commands.
	for _, content := range []string{bochsConfig(o, inputName), "c\n"} {
		f, err := memoryFile("bochs", []byte(content))
		if err != nil {
			return fail(err)
		}
		theirs = append(theirs, f)
	}
	if m.display, err = pty.Open(50, 132); err != nil {
		return fail(err)
	}
	tty, err := m.display.OpenPeer()
	if err != nil {
		return fail(err)
	}
	theirs = append(theirs, tty)
	m.cmd = exec.Command(bochs, "-q", "-f", "/proc/self/fd/7", "-rc", "/proc/self/fd/8")
	m.cmd.ExtraFiles = theirs[:6]
	m.cmd.Env = append(os.Environ(), "TERM=linux")
	if err := m.start(tty); err != nil {
		return fail(err)
	}
	go func() {
		_, _ = io.Copy(&m.errors, logs) // until Bochs ends
		logs.Close()
	}()
	go watchDisplay(m.display, &m.errors)
	return m, nil
}

// screenLine is where a debugger build, whose terminal is the debugger's, says which other one it draws its screen on.
var screenLine = regexp.MustCompile(`Bochs connected to screen "(/dev/pts/\d+)"`)

// watchDisplay keeps in said what comes on Bochs' terminal until Bochs ends, and takes what Bochs draws on its other one
// from there: without a reader that is full after some minutes, and Bochs waits for ever.
func watchDisplay(display io.Reader, said io.Writer) {
	lines := bufio.NewReader(display)
	for {
		line, err := lines.ReadString('\n')
		_, _ = io.WriteString(said, line) // never fails
		if name := screenLine.FindStringSubmatch(line); name != nil {
			go func() {
				if err := drain(name[1]); err != nil {
					fmt.Fprintf(said, "testbed: Bochs' screen: %v\n", err)
				}
			}()
		}
		if err != nil {
			return
		}
	}
}

// drain reads what is written to the other side of a terminal, until that is closed.
func drain(name string) error {
	tty, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if _, err := term.MakeRaw(int(tty.Fd())); err != nil { // neither waits for line ends nor echoes
		return err
	}
	if _, err := io.Copy(io.Discard, tty); !errors.Is(err, unix.EIO) {
		return err
	}
	return nil
}

// bochsConfig is Bochs' configuration file. It is a debugger build: -rc lets it go.
func bochsConfig(o *options, input string) string {
	return strings.Join([]string{
		fmt.Sprintf("memory: guest=%d, host=%d", o.memory, o.memory),
		fmt.Sprintf("cpu: model=%s, count=%d, ips=200000000, reset_on_triple_fault=0", o.cpu, o.cpus),
		"romimage: file=" + bochsBIOS,
		"vgaromimage: file=" + bochsVGA,
		"display_library: term",
		"clock: sync=none",
		"boot: cdrom",
		"ata0-master: type=cdrom, path=/proc/self/fd/3, status=inserted",
		"com1: enabled=1, mode=file, dev=/proc/self/fd/4",
		"com2: enabled=1, mode=file, dev=/proc/self/fd/5",
		"com3: enabled=1, mode=term, dev=" + input,
		"log: /proc/self/fd/6",
		"panic: action=fatal",
		"error: action=ignore",
		"info: action=ignore",
		"debug: action=ignore",
		"",
	}, "\n")
}

// makeDisc makes a bootable CD image of the kernel and the ramdisk, in memory.
func makeDisc(o *options, kernel string, ramdisk *os.File) (disc *os.File, err error) {
	xorriso, err := exec.LookPath("xorriso")
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "testbed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.Symlink(kernel, filepath.Join(dir, "kernel")); err != nil {
		return nil, err
	}
	config := "default linux\nprompt 0\nlabel linux\n kernel /kernel\n append initrd=/initrd " +
		strings.TrimSpace(commandLine+" testbed.out=ttyS1 testbed.in=ttyS2 "+o.append) + "\n"
	if err := os.WriteFile(filepath.Join(dir, "isolinux.cfg"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	for _, file := range []string{isolinuxBin, ldlinuxC32} {
		if err := os.Symlink(file, filepath.Join(dir, filepath.Base(file))); err != nil {
			return nil, err
		}
	}
	if err := copyMemory(ramdisk, filepath.Join(dir, "initrd")); err != nil {
		return nil, err
	}
	if disc, err = memoryFile("disc", nil); err != nil {
		return nil, err
	}
	var complaints bytes.Buffer
	cmd := exec.Command(xorriso, "-as", "mkisofs", "-quiet", "-f", "-J", "-R", "-b", "isolinux.bin", "-c", "boot.cat",
		"-no-emul-boot", "-boot-load-size", "4", "-boot-info-table", "-o", "-", dir)
	cmd.Stdout, cmd.Stderr = disc, &complaints
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %s", err, bytes.TrimSpace(complaints.Bytes())), disc.Close())
	}
	return disc, nil
}

// copyMemory writes a memory file's content to a new file.
func copyMemory(from *os.File, name string) (err error) {
	to, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, 0, info.Size()))
	return err
}

// memoryFile returns a file without a name that holds content.
func memoryFile(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("testbed-"+name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create a memory file: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, fmt.Errorf("write a memory file: %w", err)
	}
	return f, nil
}
