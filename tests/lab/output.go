package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Output keeps what a process writes to one of its streams. Any goroutine may use it.
type Output struct {
	name string // of the stream, for errors

	mu      sync.Mutex // guards all below
	buf     []byte
	ended   bool
	changed chan struct{} // closed and replaced when buf grows or the stream ends
}

func newOutput(name string) *Output { return &Output{name: name, changed: make(chan struct{})} }

// String returns everything written so far, without carriage returns.
func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return clean(o.buf)
}

// Len returns how many bytes were written so far: a place to await from.
func (o *Output) Len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.buf)
}

// Await waits until a whole line with text in it was written, and returns the first such line. It fails when the stream
// or ctx ends before; the error shows the last lines that came.
func (o *Output) Await(ctx context.Context, text string) (line string, err error) {
	return o.AwaitFrom(ctx, 0, text)
}

// AwaitFrom is Await for what was written from the byte at from on; see Len.
func (o *Output) AwaitFrom(ctx context.Context, from int, text string) (line string, err error) {
	for {
		line, found, ended, changed := o.find(from, text)
		switch {
		case found:
			return line, nil
		case ended:
			return "", fmt.Errorf("%s ended without %q; its last lines:\n%s", o.name, text, o.Tail(10))
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", fmt.Errorf("%s did not say %q: %w; its last lines:\n%s", o.name, text, context.Cause(ctx), o.Tail(10))
		}
	}
}

// find looks for a whole line with text in it.
func (o *Output) find(from int, text string) (line string, found, ended bool, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := o.buf[min(from, len(o.buf)):]
	for len(rest) > 0 {
		l, after, whole := bytes.Cut(rest, []byte("\n"))
		if (whole || o.ended) && strings.Contains(clean(l), text) {
			return clean(l), true, o.ended, nil
		}
		rest = after
	}
	return "", false, o.ended, o.changed
}

// Tail returns the last n lines.
func (o *Output) Tail(n int) string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// read keeps what comes from r until its end and passes whole lines on.
func (o *Output) read(r io.Reader, pass func(line []byte)) {
	buf := make([]byte, 64<<10)
	var line []byte
	for {
		n, err := r.Read(buf)
		o.append(buf[:n], err != nil)
		line = append(line, buf[:n]...)
		for {
			l, rest, whole := bytes.Cut(line, []byte("\n"))
			if !whole {
				break
			}
			pass([]byte(clean(l)))
			line = rest
		}
		if err != nil {
			if len(line) > 0 {
				pass([]byte(clean(line)))
			}
			return
		}
	}
}

func (o *Output) append(b []byte, ended bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	o.ended = ended
	close(o.changed)
	o.changed = make(chan struct{})
}

// clean takes the carriage returns away that a serial console puts before line feeds.
func clean(b []byte) string { return strings.ReplaceAll(string(b), "\r", "") }
