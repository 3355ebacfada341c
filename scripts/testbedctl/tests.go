package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// testBinary is a Go package's test program.
type testBinary struct {
	pkg    string // import path
	src    string // the package's folder, here and in the emulated host
	binary []byte
}

// buildTests builds the test programs of the packages named on the command line, without cgo: static. Packages without
// tests are left out.
func (s *session) buildTests(root string) ([]testBinary, error) {
	list, err := s.goTool(root, append([]string{"list", "-f",
		`{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}	{{.Dir}}{{end}}`}, s.o.args...)...)
	if err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp("", "testbed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(scratch)
	var tests []testBinary
	for line := range strings.Lines(string(list)) {
		pkg, src, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		file := filepath.Join(scratch, "test")
		if _, err := s.goTool(root, "test", "-c", "-o", file, pkg); err != nil {
			return nil, err
		}
		binary, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		tests = append(tests, testBinary{pkg: pkg, src: src, binary: binary})
	}
	if len(tests) == 0 {
		return nil, usageErrorf("no tests in %s", strings.Join(s.o.args, " "))
	}
	return tests, nil
}

// goTool runs the go command in the project and returns its standard output; a signal for us ends it.
func (s *session) goTool(root string, args ...string) ([]byte, error) {
	var out bytes.Buffer
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &out, os.Stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("run the go command: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err := <-exited:
		var failed *exec.ExitError
		if errors.As(err, &failed) {
			return nil, &exitError{1, "go " + strings.Join(args, " ") + " failed"}
		}
		return out.Bytes(), err
	case sig := <-s.signals:
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // it may have ended meanwhile
		<-exited
		return nil, &exitError{128 + int(sig.(syscall.Signal)), fmt.Sprintf("ended by signal: %v", sig)}
	}
}

// program is the test program's path in the emulated host.
func (t *testBinary) program() string { return path.Join(t.src, path.Base(t.src)+".test") }

// addTo puts the program and the package's testdata into the ramdisk.
func (t *testBinary) addTo(ramdisk *initrd) error {
	if err := ramdisk.bytes(t.program(), t.binary, 0o755); err != nil {
		return err
	}
	data := filepath.Join(t.src, "testdata")
	if info, err := os.Stat(data); err != nil || !info.IsDir() {
		return nil
	}
	return ramdisk.copyTree(data, data)
}

// command is how the test is run.
func (t *testBinary) command(o *options) []string {
	args := []string{t.program(), "-test.paniconexit0", "-test.timeout=" + o.timeout.String()}
	return append(args, o.rest...)
}
