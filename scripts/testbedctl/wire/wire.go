// Package wire is what the testbed's two ends say to each other: testbedctl on the machine that emulates, the agent
// inside the emulated host. They speak over one byte stream, a virtio-serial port or a serial line.
//
// A frame is a kind (1 byte), the payload's length (4 bytes, little endian) and the payload.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// Kind tells what a frame's payload is.
type Kind byte

// From the agent.
const (
	Hello  Kind = iota + 1 // HelloBody as JSON: the emulated host is up
	Stdout                 // bytes of the commands' standard output
	Stderr                 // bytes of the commands' standard error
	Began                  // BeganBody as JSON: a command starts
	Ended                  // EndedBody as JSON: a command ended
	File                   // index of the Out (1 byte), then bytes of its tar stream; no bytes: its end
	Log                    // bytes of the emulated host's kernel log, sent when a command failed
	Done                   // DoneBody as JSON: the last frame
)

// To the agent.
const (
	Stdin  Kind = iota + 0x81 // bytes for the terminal of a command that has one
	Resize                    // ResizeBody as JSON: the terminal's new size
	Signal                    // signal number (1 byte) for the commands' session
)

// MaxPayload is the longest payload of a frame, in bytes.
const MaxPayload = 64 << 10

// Plan is what the agent reads at its start: the commands to run and what to hand back.
type Plan struct {
	Modules  []string  // files below /modules to load, each after those it needs
	Params   []string  // parameters of modules, as "FILE NAME=VALUE..."
	Commands []Command // run one after the other
	Outs     []string  // folders or files to send back when the commands have ended
	Terminal bool      // give the commands a terminal, and feed it with Stdin frames
	Rows     uint16    // the terminal's size in characters
	Cols     uint16
}

// Command is one command of a Plan.
type Command struct {
	Args []string
	Dir  string   // working directory; empty: /
	Env  []string // added to the agent's own, as NAME=VALUE
}

// HelloBody is the payload of Hello.
type HelloBody struct {
	Kernel string  // release
	Uptime float64 // seconds since the emulated kernel started
}

// BeganBody is the payload of Began.
type BeganBody struct{ Index int } // of the Plan's command

// EndedBody is the payload of Ended.
type EndedBody struct {
	Index   int
	Status  int     // exit status; 128+N: killed by signal N; 127 and 126: it could not be started
	Seconds float64 // wall-clock time inside the emulated host
	Error   string  // why it could not be started
}

// DoneBody is the payload of Done.
type DoneBody struct {
	Status int    // exit status of the first command that failed, or 0
	Error  string // what the agent itself could not do
}

// ResizeBody is the payload of Resize.
type ResizeBody struct{ Rows, Cols uint16 }

// ErrFrame marks a stream that is not made of frames.
var ErrFrame = errors.New("not a testbed frame")

// Writer writes frames. It may be used by several goroutines at once.
type Writer struct {
	mu sync.Mutex
	w  io.Writer // guarded by mu
}

// NewWriter returns a Writer onto w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes payload as one frame, or as several of the same kind if it is longer than MaxPayload. prefix, at most a
// few bytes, starts each of them.
func (w *Writer) Send(kind Kind, prefix, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n := min(len(payload), MaxPayload-len(prefix))
		frame := make([]byte, 0, 5+len(prefix)+n)
		frame = append(frame, byte(kind))
		frame = binary.LittleEndian.AppendUint32(frame, uint32(len(prefix)+n))
		frame = append(append(frame, prefix...), payload[:n]...)
		if _, err := w.w.Write(frame); err != nil {
			return fmt.Errorf("send a frame: %w", err)
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// Reader reads frames.
type Reader struct {
	r   *bufio.Reader
	buf []byte
}

// NewReader returns a Reader from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, MaxPayload)} }

// Next returns the next frame; the payload is valid until the next call. io.EOF: the stream ended between two frames.
func (r *Reader) Next() (Kind, []byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(r.r, head[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(r.r, head[1:]); err != nil {
		return 0, nil, cut(err)
	}
	kind, n := Kind(head[0]), binary.LittleEndian.Uint32(head[1:])
	if (kind < Hello || kind > Done) && (kind < Stdin || kind > Signal) {
		return 0, nil, fmt.Errorf("%w: kind %#x", ErrFrame, head[0])
	}
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	if cap(r.buf) < int(n) {
		r.buf = make([]byte, n)
	}
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		return 0, nil, cut(err)
	}
	return kind, r.buf[:n], nil
}

// cut turns the end of a stream within a frame into an error of its own.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
