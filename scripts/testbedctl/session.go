package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"coalesce/scripts/testbedctl/wire"
)

// session is one run of an emulated host.
type session struct {
	o       *options
	labels  []string // test: each command's package
	m       *machine
	send    *wire.Writer
	console tail           // the emulated host's console
	kernel  tail           // its kernel log, after a failure
	outs    []*receiver    // one per --out
	signals chan os.Signal // those that end us
	resized chan os.Signal // SIGWINCH
	leave   chan struct{}  // Ctrl-] on the terminal
	hello   chan wire.HelloBody
	ended   chan error // from readFrames, once
	restore func()     // gives the terminal back; nil without one
}

// execute runs what the options ask for.
func execute(o *options) error {
	root, err := projectRoot()
	if err != nil {
		return err
	}
	s := &session{
		o: o, hello: make(chan wire.HelloBody, 1), ended: make(chan error, 1),
		signals: make(chan os.Signal, 4), resized: make(chan os.Signal, 1), leave: make(chan struct{}, 1),
	}
	s.console.limit, s.kernel.limit = 1<<20, 1<<20
	signal.Notify(s.signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	build := filepath.Join(root, "build")
	host := kinds[o.machine]
	kernel := filepath.Join(build, "kernel", host.kernel)
	if !isFile(kernel) {
		return fmt.Errorf("build/kernel is missing: run scripts/setup")
	}
	if !filepath.IsAbs(o.logs) {
		o.logs = filepath.Join(root, o.logs)
	}

	plan := wire.Plan{Params: append(host.params, o.params...), Terminal: o.tty, Rows: 24, Cols: 80}
	if plan.Modules, err = loadOrder(filepath.Join(build, "kernel"), append(host.modules, commonModules...)); err != nil {
		return err
	}
	if cols, rows, err := term.GetSize(int(os.Stdin.Fd())); o.tty && err == nil && cols > 0 && rows > 0 {
		plan.Rows, plan.Cols = uint16(rows), uint16(cols)
	}
	ramdisk, err := newInitrd()
	if err != nil {
		return err
	}
	defer ramdisk.file.Close()
	if err := s.fill(ramdisk, root, &plan); err != nil {
		return err
	}
	for _, c := range o.outs {
		r, err := newReceiver(c.to)
		if err != nil {
			return err
		}
		s.outs = append(s.outs, r)
		plan.Outs = append(plan.Outs, c.from)
	}
	if err := ramdisk.finish(plan); err != nil {
		return fmt.Errorf("write the initial ramdisk: %w", err)
	}

	start := time.Now()
	if s.m, err = host.boot(o, kernel, ramdisk.file); err != nil {
		return err
	}
	err = s.attend(start, host)
	s.m.stop()
	if s.restore != nil {
		s.restore()
	}
	if err != nil {
		return s.keepLogs(err)
	}
	return nil
}

// projectRoot is the folder above build/, where scripts/testbed puts this program.
func projectRoot() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(self)), nil
}

// fill puts everything but the plan into the ramdisk, and the commands into the plan.
func (s *session) fill(ramdisk *initrd, root string, plan *wire.Plan) error {
	if err := ramdisk.base(filepath.Join(root, "build"), *plan); err != nil {
		return fmt.Errorf("fill the initial ramdisk: %w", err)
	}
	for _, group := range []struct {
		list []copied
		add  func(from, to string) error
	}{{s.o.files, ramdisk.copyFile}, {s.o.trees, ramdisk.copyTree}, {s.o.progs, ramdisk.copyProgram}} {
		for _, c := range group.list {
			if err := group.add(c.from, c.to); err != nil {
				return usageErrorf("cannot put in %s: %v", c.from, err)
			}
		}
	}
	for _, p := range s.o.needs {
		add := ramdisk.copyProgram
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			add = ramdisk.copyTree
		}
		if err := add(p, p); err != nil {
			return usageErrorf("cannot put in %s: %v", p, err)
		}
	}
	if s.o.tty {
		kind, file := terminfo()
		if file != "" {
			if err := ramdisk.copyFile(file, file); err != nil {
				return fmt.Errorf("fill the initial ramdisk: %w", err)
			}
		}
		s.o.env = append([]string{"TERM=" + kind}, s.o.env...)
	}
	if s.o.verb != "test" {
		plan.Commands = []wire.Command{{Args: s.o.args, Dir: s.o.dir, Env: s.o.env}}
		return nil
	}
	tests, err := s.buildTests(root)
	if err != nil {
		return err
	}
	for _, t := range tests {
		if err := t.addTo(ramdisk); err != nil {
			return fmt.Errorf("put in %s: %w", t.pkg, err)
		}
		s.labels = append(s.labels, t.pkg)
		plan.Commands = append(plan.Commands, wire.Command{Args: t.command(s.o), Dir: t.src, Env: s.o.env})
	}
	return nil
}

// terminfo returns the kind of this terminal and the file that describes it; a plain one if there is no such file.
func terminfo() (kind, file string) {
	if kind = os.Getenv("TERM"); kind != "" && kind == filepath.Base(kind) {
		for _, dir := range []string{"/lib/terminfo", "/usr/share/terminfo"} {
			if file = filepath.Join(dir, kind[:1], kind); isFile(file) {
				return kind, file
			}
		}
	}
	return "dumb", ""
}

// attend waits for the emulated host and passes on what it says, until it is done, out of time, broken or we are told
// to end.
func (s *session) attend(start time.Time, host kind) error {
	bootLimit := min(host.bootLimit, s.o.timeout)
	s.send = wire.NewWriter(s.m.in)
	go s.readConsole()
	go s.readFrames()
	limit := time.NewTimer(s.o.timeout)
	defer limit.Stop()
	bootTimer := time.NewTimer(bootLimit)
	defer bootTimer.Stop()
	// After the limit the command has a moment to say where it is, and whatever it says then, it was too late.
	var quit <-chan time.Time
	late := &exitError{124, fmt.Sprintf("out of time after %v", s.o.timeout)}
	for {
		select {
		case h := <-s.hello:
			bootTimer.Stop()
			if !s.o.quiet {
				fmt.Fprintf(os.Stderr, "testbed: up in %.1f s: %s, CPUs: %d, memory: %d MiB, Linux %s\n",
					time.Since(start).Seconds(), host.name, s.o.cpus, s.o.memory, h.Kernel)
			}
			if s.o.tty {
				s.connectTerminal()
			}
		case err := <-s.ended:
			if quit != nil {
				return late
			}
			return err
		case <-bootTimer.C:
			return fmt.Errorf("not up after %v", bootLimit)
		case <-limit.C:
			// A Go program answers SIGQUIT with its goroutines' stacks.
			s.tell(wire.Signal, []byte{byte(unix.SIGQUIT)})
			quit = time.After(5 * time.Second)
		case <-quit:
			return late
		case sig := <-s.signals:
			return &exitError{128 + int(sig.(syscall.Signal)), fmt.Sprintf("ended by signal: %v", sig)}
		case <-s.leave:
			return &exitError{130, "left"}
		case <-s.resized:
			if cols, rows, err := term.GetSize(int(os.Stdin.Fd())); err == nil {
				s.tellJSON(wire.Resize, wire.ResizeBody{Rows: uint16(rows), Cols: uint16(cols)})
			}
		}
	}
}

// readConsole keeps the console's output, and shows it if asked to.
func (s *session) readConsole() {
	var w io.Writer = &s.console
	if s.o.console {
		w = io.MultiWriter(w, os.Stderr)
	}
	_, _ = io.Copy(w, s.m.console) // until the emulator ends
}

// readFrames acts on the agent's frames until the last one and says in s.ended how it went.
func (s *session) readFrames() {
	s.ended <- func() error {
		r := wire.NewReader(s.m.out)
		for {
			kind, payload, err := r.Next()
			if err != nil {
				return fmt.Errorf("the emulated host died: %w", err)
			}
			if kind == wire.Done {
				return s.verdict(payload)
			}
			if err := s.take(kind, payload); err != nil {
				return err
			}
		}
	}()
}

// take acts on one frame that is not the last.
func (s *session) take(kind wire.Kind, payload []byte) error {
	switch kind {
	case wire.Hello:
		var h wire.HelloBody
		if err := json.Unmarshal(payload, &h); err != nil {
			return fmt.Errorf("the agent's hello: %w", err)
		}
		select {
		case s.hello <- h:
		default:
			return errors.New("the agent said hello twice")
		}
	case wire.Stdout:
		if _, err := os.Stdout.Write(payload); err != nil {
			return fmt.Errorf("write standard output: %w", err)
		}
	case wire.Stderr:
		if _, err := os.Stderr.Write(payload); err != nil {
			return fmt.Errorf("write standard error: %w", err)
		}
	case wire.Ended:
		var e wire.EndedBody
		if err := json.Unmarshal(payload, &e); err != nil {
			return fmt.Errorf("the agent's report: %w", err)
		}
		s.report(e)
	case wire.File:
		if len(payload) == 0 || int(payload[0]) >= len(s.outs) {
			return errors.New("the agent sent a file that nobody asked for")
		}
		return s.outs[payload[0]].take(payload[1:])
	case wire.Log:
		_, _ = s.kernel.Write(payload) // never fails
	}
	return nil
}

// report says how a command ended: in the words of go test for tests, else only when it could not be started.
func (s *session) report(e wire.EndedBody) {
	if e.Error != "" {
		fmt.Fprintln(os.Stderr, "testbed:", e.Error)
	}
	if e.Index < 0 || e.Index >= len(s.labels) {
		return
	}
	word := "ok  "
	if e.Status != 0 {
		word = "FAIL"
	}
	fmt.Printf("%s\t%s\t%.3fs\n", word, s.labels[e.Index], e.Seconds)
}

// verdict turns the agent's last frame into our result.
func (s *session) verdict(payload []byte) error {
	var done wire.DoneBody
	if err := json.Unmarshal(payload, &done); err != nil {
		return fmt.Errorf("the agent's last word: %w", err)
	}
	for _, r := range s.outs {
		if err := r.close(); err != nil && done.Error == "" {
			done = wire.DoneBody{Status: 125, Error: err.Error()}
		}
	}
	switch {
	case done.Error != "":
		return &exitError{125, "inside the emulated host: " + done.Error}
	case done.Status != 0:
		return &exitError{done.Status, fmt.Sprintf("exit status %d", done.Status)}
	}
	return nil
}

// tell sends a frame to the agent. It does not wait for long: an emulated host that hangs does not read.
func (s *session) tell(kind wire.Kind, payload []byte) {
	_ = s.m.in.SetWriteDeadline(time.Now().Add(time.Second))
	_ = s.send.Send(kind, nil, payload) // if it is gone, readFrames says so
}

func (s *session) tellJSON(kind wire.Kind, body any) {
	if b, err := json.Marshal(body); err == nil {
		s.tell(kind, b)
	}
}

// connectTerminal passes what is typed on, once the emulated host is up. Ctrl-] leaves.
func (s *session) connectTerminal() {
	const escape = 0x1d
	if old, err := term.MakeRaw(int(os.Stdin.Fd())); err == nil {
		s.restore = func() { _ = term.Restore(int(os.Stdin.Fd()), old) }
		signal.Notify(s.resized, unix.SIGWINCH)
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := os.Stdin.Read(buf)
			if s.restore != nil && bytes.IndexByte(buf[:n], escape) >= 0 {
				s.leave <- struct{}{}
				return
			}
			if n > 0 {
				s.tell(wire.Stdin, buf[:n])
			}
			if err != nil {
				s.tell(wire.Stdin, []byte{4}) // end of file, as a terminal says it
				return
			}
		}
	}()
}

// keepLogs writes what is known about a failed run to a file and names it in the error.
func (s *session) keepLogs(failure error) error {
	status, message := 125, failure.Error()
	var e *exitError
	if errors.As(failure, &e) {
		status = e.status
	}
	if s.o.tty && status != 125 {
		return &exitError{status: status} // whoever sat there knows
	}
	var log bytes.Buffer
	fmt.Fprintf(&log, "%s\n\ncommand: %q\n", message, s.o.args)
	for _, part := range []struct {
		title string
		t     *tail
	}{{"emulator", &s.m.errors}, {"console", &s.console}, {"kernel log", &s.kernel}} {
		fmt.Fprintf(&log, "\n== %s\n%s", part.title, part.t.bytes())
	}
	if status == 125 {
		for _, t := range []*tail{&s.m.errors, &s.console} {
			if words := telling(t.bytes(), 12); words != "" {
				fmt.Fprintln(os.Stderr, words)
			}
		}
	}
	if err := os.MkdirAll(s.o.logs, 0o755); err != nil {
		return &exitError{status, fmt.Sprintf("%s (its logs could not be kept: %v)", message, err)}
	}
	pruneLogs(s.o.logs)
	name := filepath.Join(s.o.logs, fmt.Sprintf("%s-%d.log", time.Now().Format("20060102-150405"), os.Getpid()))
	if err := os.WriteFile(name, log.Bytes(), 0o644); err != nil {
		return &exitError{status, fmt.Sprintf("%s (its logs could not be kept: %v)", message, err)}
	}
	return &exitError{status, fmt.Sprintf("%s; the emulated host's logs are in %s", message, name)}
}

// pruneLogs makes room for one more log among the newest ones.
func pruneLogs(dir string) {
	const keep = 20
	names, err := filepath.Glob(filepath.Join(dir, "*-*.log")) // sorted, so oldest first
	if err != nil {
		return
	}
	for _, name := range names[:max(0, len(names)-keep+1)] {
		_ = os.Remove(name) // another run may have removed it
	}
}

// telling returns the at most n lines of b that say most about a failure: from where the kernel begins to complain, else
// the last ones; without what moves a terminal's cursor, and without QEMU's remarks on features that it does not emulate.
func telling(b []byte, n int) string {
	text := strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, string(b))
	var lines []string
	first := -1
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if strings.Contains(line, "TCG doesn't support requested feature") {
			continue
		}
		if first < 0 && complaint.MatchString(line) {
			first = len(lines)
		}
		lines = append(lines, line)
	}
	if first < 0 {
		first = max(0, len(lines)-n)
	}
	return strings.Join(lines[first:min(len(lines), first+n)], "\n")
}

// complaint matches the line that starts a kernel's report of its own death.
var complaint = regexp.MustCompile(`Kernel panic|BUG:|Oops|panic:|double fault`)
