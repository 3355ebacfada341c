package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Server answers on one instance's socket.
type Server struct {
	name     string
	listener *net.UnixListener
	mux      *http.ServeMux
	http     http.Server
	serving  sync.WaitGroup
	stop     context.CancelFunc
}

// Listen makes the socket of an instance in dir, mode 0600, and replaces one that
// nobody listens on any more. Nothing is answered before Serve; Close removes it.
func Listen(dir, name string) (*Server, error) {
	l, err := listen(dir, name)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{name: name, listener: l, mux: http.NewServeMux(), stop: stop}
	s.http = http.Server{Handler: s.mux, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, Errorf(http.StatusNotFound, "there is no %s %s", r.Method, r.URL.Path))
	})
	return s, nil
}

// listenPrivate listens on path. The mode is the socket's before it has a name
// (bind(2) takes it from the socket's inode), so that at no time anybody else can
// connect.
func listenPrivate(path string) (*net.UnixListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	return l.(*net.UnixListener), nil
}

// Path is where the socket is.
func (s *Server) Path() string { return s.listener.Addr().String() }

// Name is the instance's.
func (s *Server) Name() string { return s.name }

// Error is an error that the caller is told with an HTTP status of its own; any
// other is one of this side, status 500.
type Error struct {
	Status int
	Text   string
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(status int, format string, args ...any) *Error {
	return &Error{status, fmt.Sprintf(format, args...)}
}

// failure is what goes with any status but 200.
type failure struct {
	Error string `json:"error"`
}

// fail tells the caller of an error, in one line.
func fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var e *Error
	if errors.As(err, &e) {
		status = e.Status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// A caller that is gone does not want to know.
	_ = json.NewEncoder(w).Encode(failure{strings.ReplaceAll(err.Error(), "\n", "; ")})
}

// maxBody bounds what a caller may send, in bytes.
const maxBody = 1 << 20

// Handle answers pattern, such as "GET /v1/status", with what f returns. It is
// called on a goroutine of its own; r.Context() ends with the caller or the
// server. Before Serve only.
func (s *Server) Handle(pattern string, f func(r *http.Request) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		v, err := f(r)
		if err != nil {
			fail(w, err)
			return
		}
		b, err := json.Marshal(v)
		if err != nil {
			fail(w, fmt.Errorf("encode the answer: %w", err))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(b, '\n')) // a caller that is gone does not want to know
	})
}

// Stream answers pattern with a line for each value that f gives to send, until f
// returns. send fails once the caller is gone. An error before the first value is
// answered like Handle's; after it, it is a last line {"error": ...}. Before Serve
// only.
func (s *Server) Stream(pattern string, f func(r *http.Request, send func(v any) error) error) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		sent := false
		enc := json.NewEncoder(w)
		flush := http.NewResponseController(w)
		err := f(r, func(v any) error {
			if !sent {
				w.Header().Set("Content-Type", "application/x-ndjson")
				sent = true
			}
			if err := enc.Encode(v); err != nil {
				return err
			}
			return flush.Flush()
		})
		switch {
		case err == nil || r.Context().Err() != nil:
		case sent:
			_ = enc.Encode(failure{strings.ReplaceAll(err.Error(), "\n", "; ")})
		default:
			fail(w, err)
		}
	})
}

// Serve begins to answer.
func (s *Server) Serve() {
	s.serving.Go(func() {
		_ = s.http.Serve(s.listener) // until Close; nothing else ends it
	})
}

// closeTimeout bounds the wait for answers under way.
const closeTimeout = 2 * time.Second

// Close removes the socket and ends what is under way: the handlers' contexts end,
// and after 2 s their connections do. Serve may not have been called.
func (s *Server) Close() error {
	s.stop()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	err := s.listener.Close() // removes it; a server that never served does not know it
	if e := s.http.Shutdown(ctx); e != nil {
		err = errors.Join(err, s.http.Close())
	}
	s.serving.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
