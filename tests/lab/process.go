package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to run on a host.
type Command struct {
	Name  string // for messages and in front of its output: "lender"
	Path  string
	Args  []string
	Env   []string // added to ours
	Stdin *os.File // nil: no input; it is not closed here
	// NoStdin starts it without a descriptor 0.
	NoStdin bool
	// User runs it as this user and group, without any other; 0 stays as we are.
	User uint32
	// Console is in front of its standard output instead of Name.
	Console string
	// Quiet keeps its output from the lab's.
	Quiet bool
}

// Process is a program that runs, or ran, on a host. Any goroutine may use it.
type Process struct {
	Command Command
	Host    *Host
	Pid     int
	Started time.Time
	// Stdout and Stderr are what it has written.
	Stdout, Stderr *Output

	cmd  *exec.Cmd
	gone chan struct{} // closed once it has ended and its output is complete

	mu    sync.Mutex // guards all below; held for sending a signal, so that the pid cannot be another's by then
	ended time.Time  // zero while it runs
}

// Exit is how a process ended.
type Exit struct {
	Status int            // as a shell has it: 128 + N when signal N ended it
	Signal syscall.Signal // 0 if it ended by itself
	Ran    time.Duration
}

func (e Exit) String() string {
	if e.Signal != 0 {
		return fmt.Sprintf("ended by signal %d (%v) after %v", int(e.Signal), e.Signal, e.Ran.Round(time.Millisecond))
	}
	return fmt.Sprintf("exit status %d after %v", e.Status, e.Ran.Round(time.Millisecond))
}

// drainTimeout bounds the wait for output that a process's own children still hold open when it has ended.
const drainTimeout = 2 * time.Second

// Start starts a program in the host's network namespace, in a process group of its own. It dies when our process does.
func (h *Host) Start(c Command) (*Process, error) {
	p := &Process{Command: c, Host: h, gone: make(chan struct{}),
		Stdout: newOutput(c.Name + "'s standard output"), Stderr: newOutput(c.Name + "'s standard error")}
	started := make(chan error, 1)
	// The kernel kills the child when the thread that made it ends (PR_SET_PDEATHSIG), so that thread stays until then.
	onOwnThread(func() {
		defer close(p.gone)
		if err := h.enter(); err != nil {
			started <- err
			return
		}
		readers, err := p.launch()
		started <- err
		if err == nil {
			p.attend(readers)
		}
	})
	err := <-started
	if err == nil {
		err = h.lab.add("run it", func() { h.lab.processes = append(h.lab.processes, p) })
	}
	if err != nil {
		p.Kill()
		<-p.gone
		return nil, fmt.Errorf("start %s on host %s: %w", c.Name, h.Name, err)
	}
	return p, nil
}

// launch starts the program on the calling thread and returns our ends of its outputs.
func (p *Process) launch() (readers [2]*os.File, err error) {
	if err := keepToCPU(); err != nil {
		return readers, err
	}
	c := p.Command
	cmd := exec.Command(c.Path, c.Args...)
	if c.NoStdin {
		// os/exec cannot start a program with a descriptor closed, a shell can.
		cmd = exec.Command("/bin/sh", append([]string{"-c", `exec "$0" "$@" <&-`, c.Path}, c.Args...)...)
	}
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if c.User != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: c.User, Gid: c.User}
	}
	if c.Stdin != nil {
		cmd.Stdin = c.Stdin
	}
	var writers [2]*os.File
	for i := range readers {
		if readers[i], writers[i], err = os.Pipe(); err != nil {
			return readers, fmt.Errorf("make a pipe: %w", err)
		}
		defer writers[i].Close()
	}
	cmd.Stdout, cmd.Stderr = writers[0], writers[1]
	p.Started = time.Now()
	if err := cmd.Start(); err != nil {
		return readers, errors.Join(err, readers[0].Close(), readers[1].Close())
	}
	p.cmd, p.Pid = cmd, cmd.Process.Pid
	return readers, nil
}

// attend copies the program's output, waits for its end and reaps it.
func (p *Process) attend(readers [2]*os.File) {
	names := [2]string{p.Command.Console, p.Command.Name}
	if names[0] == "" {
		names[0] = p.Command.Name
	}
	var copying sync.WaitGroup
	for i, o := range []*Output{p.Stdout, p.Stderr} {
		copying.Go(func() {
			o.read(readers[i], func(line []byte) {
				if !p.Command.Quiet {
					p.Host.lab.out.line(names[i], line)
				}
			})
			readers[i].Close()
		})
	}
	// First without reaping: as long as the zombie is there, its pid is nobody else's.
	for errors.Is(unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	p.mu.Lock()
	p.ended = time.Now()
	_ = p.cmd.Wait() // ProcessState says more
	p.mu.Unlock()
	for _, r := range readers {
		_ = r.SetReadDeadline(time.Now().Add(drainTimeout)) // it may be closed already
	}
	copying.Wait()
}

// Signal sends a signal to the program; it does nothing if that has ended.
func (p *Process) Signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.ended.IsZero() {
		_ = unix.Kill(p.Pid, sig) // it is our child, so there is nothing that could fail
	}
}

// Kill ends the program at once, with all of its process group.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.ended.IsZero() {
		_ = unix.Kill(-p.Pid, unix.SIGKILL)
	}
}

// Running tells whether the program has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil && p.ended.IsZero()
}

// Wait waits until the program has ended and its output is complete. It fails only when ctx ends before.
func (p *Process) Wait(ctx context.Context) (Exit, error) {
	select {
	case <-p.gone:
	case <-ctx.Done():
		return Exit{}, fmt.Errorf("%s (process %d) does not end: %w; its last lines:\n%s",
			p.Command.Name, p.Pid, context.Cause(ctx), p.Stderr.Tail(10))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e := Exit{Ran: p.ended.Sub(p.Started), Status: p.cmd.ProcessState.ExitCode()}
	if ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		e.Signal = ws.Signal()
		e.Status = 128 + int(ws.Signal())
	}
	return e, nil
}
