// Package product knows the program under test from outside: where it and a guest's files are, how it is started, and
// what it says. The whole-system tests, the demo and the benchmark share it.
package product

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"coalesce/tests/lab"
	"coalesce/vmm"
)

// Files are the program and what a Linux guest boots from, by absolute path.
type Files struct {
	Program string // build/coalesce
	Kernel  string // build/kernel/vmlinuz, the stock kernel
	Initrd  string // build/guest-tiny.cpio: init and the coherence check
	Shell   string // build/guest.cpio: a shell and its commands, too
}

// ProgramVariable names an environment variable that, when set, names the program to use instead of build/coalesce.
const ProgramVariable = "COALESCE_PROGRAM"

// Find looks for build/ in the working folder and those above it. The files themselves may be missing; see Check.
func Find() (Files, error) {
	f, err := find()
	if program := os.Getenv(ProgramVariable); program != "" {
		f.Program = program
	}
	return f, err
}

func find() (Files, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Files{}, err
	}
	for {
		build := filepath.Join(dir, "build")
		if info, err := os.Stat(build); err == nil && info.IsDir() {
			return Files{
				Program: filepath.Join(build, "coalesce"),
				Kernel:  filepath.Join(build, "kernel/vmlinuz"),
				Initrd:  filepath.Join(build, "guest-tiny.cpio"),
				Shell:   filepath.Join(build, "guest.cpio"),
			}, nil
		}
		if dir == "/" {
			return Files{}, errors.New("no folder build here or above: run make build")
		}
		dir = filepath.Dir(dir)
	}
}

// Check says which of the files is missing and what makes it.
func (f Files) Check() error {
	for file, maker := range map[string]string{f.Program: "make build", f.Kernel: "scripts/kernel", f.Initrd: "make build"} {
		if _, err := os.Stat(file); err != nil {
			return fmt.Errorf("%w: run %s", err, maker)
		}
	}
	return nil
}

// Build brings the files up to date where the sources and the Go command are; elsewhere, as in the testbed, they are
// taken as they are.
func (f Files) Build(ctx context.Context) error {
	root := filepath.Dir(filepath.Dir(f.Initrd))
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil || os.Getenv(ProgramVariable) != "" {
		return nil
	}
	if _, err := exec.LookPath("go"); err != nil {
		return nil
	}
	// As the Makefile does it.
	for _, args := range [][]string{
		{"build", "-trimpath", "-o", f.Program, "./cmd/coalesce"},
		{"run", "./guest/initramfs/cmd", "-o", f.Shell, "--kernel-modules", filepath.Dir(f.Kernel) + "/modules"},
		{"run", "./guest/initramfs/cmd", "-o", f.Initrd, "--tiny", "--kernel-modules", filepath.Dir(f.Kernel) + "/modules"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// Port is where lenders listen here.
const Port = "7411"

// Lender is a running `coalesce lend`.
type Lender struct {
	*lab.Process
	Addr string // host:port
}

// Lend starts a lender on h, which listens on ip, and waits until it lends.
func (f Files) Lend(ctx context.Context, h *lab.Host, ip string, flags ...string) (*Lender, error) {
	l := &Lender{Addr: ip + ":" + Port}
	var err error
	l.Process, err = h.Start(lab.Command{Name: h.Name, Path: f.Program, Args: append([]string{"lend", "--listen", l.Addr}, flags...)})
	if err != nil {
		return nil, err
	}
	if _, err := l.Stderr.Await(ctx, "lending"); err != nil {
		return nil, err
	}
	return l, nil
}

// What a lender's log says when a client's session has given everything back: however it ended, and that it ended in order.
const (
	SessionEnded = "ready for the next client"
	SessionOver  = "session over, " + SessionEnded
)

// Run starts `coalesce run` with these flags on h.
func (f Files) Run(h *lab.Host, c lab.Command, flags ...string) (*lab.Process, error) {
	if c.Name == "" {
		c.Name = h.Name
	}
	c.Path = f.Program
	c.Args = append([]string{"run"}, flags...)
	return h.Start(c)
}

// Report finds the report that a client with --json has printed.
func Report(p *lab.Process) (*vmm.Result, error) {
	for line := range strings.Lines(p.Stderr.String()) {
		if !strings.HasPrefix(line, `{"outcome"`) {
			continue
		}
		var r vmm.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			return nil, fmt.Errorf("the closing report: %w", err)
		}
		return &r, nil
	}
	return nil, fmt.Errorf("%s has printed no closing report; its last lines:\n%s", p.Command.Name, p.Stderr.Tail(10))
}
