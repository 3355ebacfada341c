package agent

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/scripts/testbedctl/pty"
	"coalesce/scripts/testbedctl/wire"
)

// worker runs a plan.
type worker struct {
	plan  wire.Plan
	in    *os.File
	send  *wire.Writer
	group atomic.Int64 // process group of the running command; 0: none

	terminal *pty.Terminal // the commands'; nil without one
}

// Work is the worker process: it runs the plan and returns once everything was reported.
func Work() error {
	out, in, err := openPort()
	if err != nil {
		return err
	}
	w := &worker{in: in, send: wire.NewWriter(out)}
	done := wire.DoneBody{}
	if done.Status, err = w.run(); err != nil {
		done = wire.DoneBody{Status: 125, Error: err.Error()}
	}
	if done.Status != 0 {
		if err := w.sendLog(); err != nil {
			return err
		}
	}
	if err := w.sendJSON(wire.Done, done); err != nil {
		return err
	}
	// A serial line may still hold the frame; the other end ends the machine when it has it.
	time.Sleep(5 * time.Second)
	return nil
}

// run does what the plan says and returns the exit status of the first command that failed.
func (w *worker) run() (int, error) {
	b, err := os.ReadFile(PlanFile)
	if err != nil {
		return 0, err
	}
	if err := json.Unmarshal(b, &w.plan); err != nil {
		return 0, fmt.Errorf("%s: %w", PlanFile, err)
	}
	if err := loadModules(w.plan.Modules, w.plan.Params); err != nil {
		return 0, err
	}
	if err := w.hello(); err != nil {
		return 0, err
	}
	if w.plan.Terminal {
		if w.terminal, err = pty.Open(w.plan.Rows, w.plan.Cols); err != nil {
			return 0, err
		}
	}
	go w.listen()

	status := 0
	for i, c := range w.plan.Commands {
		if err := w.sendJSON(wire.Began, wire.BeganBody{Index: i}); err != nil {
			return 0, err
		}
		start := time.Now()
		ended := wire.EndedBody{Index: i}
		if ended.Status, err = w.command(c); err != nil {
			ended.Error = err.Error()
		}
		ended.Seconds = time.Since(start).Seconds()
		if err := w.sendJSON(wire.Ended, ended); err != nil {
			return 0, err
		}
		if status == 0 {
			status = ended.Status
		}
	}
	for i, out := range w.plan.Outs {
		if err := w.sendTree(byte(i), out); err != nil {
			return 0, fmt.Errorf("hand back %s: %w", out, err)
		}
	}
	return status, nil
}

func (w *worker) hello() error {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	var up unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return fmt.Errorf("read the boot time: %w", err)
	}
	return w.sendJSON(wire.Hello, wire.HelloBody{
		Kernel: unix.ByteSliceToString(uts.Release[:]),
		Uptime: time.Duration(up.Nano()).Seconds(),
	})
}

func (w *worker) sendJSON(kind wire.Kind, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return w.send.Send(kind, nil, b)
}

// listen acts on what comes from outside, until the port fails.
func (w *worker) listen() {
	r := wire.NewReader(w.in)
	for {
		kind, payload, err := r.Next()
		if err != nil {
			return
		}
		switch kind {
		case wire.Stdin:
			if w.terminal != nil {
				_, _ = w.terminal.Write(payload) // nobody reads it once the command has ended
			}
		case wire.Resize:
			var size wire.ResizeBody
			if w.terminal != nil && json.Unmarshal(payload, &size) == nil {
				_ = w.terminal.Resize(size.Rows, size.Cols) // keeps the old size
			}
		case wire.Signal:
			if group := w.group.Load(); group > 0 && len(payload) == 1 {
				_ = unix.Kill(-int(group), unix.Signal(payload[0])) // it may have ended meanwhile
			}
		}
	}
}

// command runs one command in a session of its own, whose processes are killed when its first one ends. It returns the
// exit status as a shell would, and an error if the command could not be started.
func (w *worker) command(c wire.Command) (int, error) {
	if c.Dir != "" {
		if err := os.MkdirAll(c.Dir, 0o755); err != nil {
			return 126, err
		}
	}
	cmd := exec.Command(c.Args[0], c.Args[1:]...)
	cmd.Dir = c.Dir
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}

	var sources, theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	kinds := []wire.Kind{wire.Stdout, wire.Stderr}
	if w.terminal != nil {
		tty, err := w.terminal.OpenPeer()
		if err != nil {
			return 126, err
		}
		theirs = []*os.File{tty}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = tty, tty, tty
		cmd.SysProcAttr.Setctty = true
		sources = []*os.File{w.terminal.File}
		if err := w.terminal.SetReadDeadline(time.Time{}); err != nil {
			return 126, err
		}
	} else {
		for range kinds {
			r, wr, err := os.Pipe()
			if err != nil {
				return 126, err
			}
			defer r.Close()
			sources, theirs = append(sources, r), append(theirs, wr)
		}
		cmd.Stdout, cmd.Stderr = theirs[0], theirs[1]
	}

	if err := cmd.Start(); err != nil {
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
			return 127, err
		}
		return 126, err
	}
	w.group.Store(int64(cmd.Process.Pid))
	defer w.group.Store(0)
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	copied := make(chan struct{})
	for i, f := range sources {
		go func() {
			w.copyOut(kinds[i], f)
			copied <- struct{}{}
		}()
	}

	waitErr := cmd.Wait()
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // ESRCH: nothing was left
	// A process that left the session may hold the pipe for ever; what is in the pipe by now still comes.
	for _, f := range sources {
		_ = f.SetReadDeadline(time.Now().Add(2 * time.Second))
	}
	for range sources {
		<-copied
	}
	if waitErr != nil && cmd.ProcessState == nil {
		return 126, waitErr
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// copyOut sends what comes from r until its end: EOF for a pipe, EIO for a terminal that nobody has open.
func (w *worker) copyOut(kind wire.Kind, r io.Reader) {
	buf := make([]byte, wire.MaxPayload)
	for {
		n, err := r.Read(buf)
		if n > 0 && w.send.Send(kind, nil, buf[:n]) != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// sendLog sends the kernel's log.
func (w *worker) sendLog() error {
	const readAll, sizeBuffer = 3, 10 // SYSLOG_ACTION_*, linux/syslog.h
	size, err := unix.Klogctl(sizeBuffer, nil)
	if err != nil {
		return fmt.Errorf("read the kernel log: %w", err)
	}
	buf := make([]byte, size)
	n, err := unix.Klogctl(readAll, buf)
	if err != nil {
		return fmt.Errorf("read the kernel log: %w", err)
	}
	return w.send.Send(wire.Log, nil, buf[:n])
}

// sendTree sends a folder's contents, or one file, as a tar stream. What is not there is an empty stream.
func (w *worker) sendTree(index byte, root string) error {
	archive := tar.NewWriter(fileWriter{w.send, index})
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path == root && errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() && !info.IsDir() {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if name == "." {
			if info.IsDir() {
				return nil
			}
			name = filepath.Base(root)
		}
		return addToArchive(archive, path, name, info)
	})
	if err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return w.send.Send(wire.File, []byte{index}, nil)
}

// addToArchive adds one file or folder under name; a file that grows meanwhile is cut where it ended.
func addToArchive(archive *tar.Writer, path, name string, info fs.FileInfo) error {
	header, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	header.Name = name
	if info.IsDir() {
		return archive.WriteHeader(header)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(archive, f, header.Size)
	return err
}

// fileWriter sends what is written to it as File frames.
type fileWriter struct {
	send  *wire.Writer
	index byte
}

func (f fileWriter) Write(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // an empty frame would be the end
	}
	if err := f.send.Send(wire.File, []byte{f.index}, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
