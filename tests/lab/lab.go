package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// ErrNotSupported matches, with errors.Is, every error that says that this machine lacks something a lab needs.
var ErrNotSupported = errors.New("not supported by this machine")

// closeTimeout bounds how long Close waits for processes that were killed. The kernel has to free a guest's memory.
const closeTimeout = 20 * time.Second

// Lab is a set of hosts and what runs on them. Any goroutine may use it.
type Lab struct {
	out *lineWriter

	mu        sync.Mutex // guards all below
	hosts     []*Host
	wires     int
	processes []*Process
	closed    bool
}

// New returns an empty lab. Processes' output goes to out as it comes, each line behind its process's name; nil for
// nowhere. The lab must be closed.
func New(out io.Writer) *Lab {
	if out == nil {
		out = io.Discard
	}
	return &Lab{out: &lineWriter{w: out}}
}

// Close kills every process, waits until it is gone, closes the hosts and checks that nothing is left in them.
func (l *Lab) Close() error {
	l.mu.Lock()
	processes, hosts := l.processes, l.hosts
	l.closed, l.processes, l.hosts = true, nil, nil
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var errs []error
	for _, p := range processes {
		p.Kill()
	}
	for _, p := range processes {
		if _, err := p.Wait(ctx); err != nil {
			errs = append(errs, err)
		}
	}
	for _, h := range hosts {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// Processes returns the processes started so far, in that order.
func (l *Lab) Processes() []*Process {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]*Process(nil), l.processes...)
}

// add runs f under the lab's lock unless it is closed.
func (l *Lab) add(what string, f func()) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("%s: the lab is closed", what)
	}
	f()
	return nil
}

// lineWriter writes whole lines, those of several processes one after the other.
type lineWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *lineWriter) line(name string, line []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Whoever watches may have gone; the output is kept all the same.
	_, _ = fmt.Fprintf(w.w, "%-6s | %s\n", name, line)
}
