package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func serve(t *testing.T, dir, name string, register func(s *Server)) *Server {
	t.Helper()
	s, err := Listen(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	if register != nil {
		register(s)
	}
	s.Serve()
	return s
}

func client(t *testing.T, dir, name string) *Client {
	t.Helper()
	c, err := NewClient(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

type answer struct {
	N int `json:"n"`
}

// TestAnswers: values and errors come back as they were given.
func TestAnswers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	serve(t, dir, "one", func(s *Server) {
		s.Handle("GET /v1/good", func(*http.Request) (any, error) { return answer{7}, nil })
		s.Handle("GET /v1/refused", func(*http.Request) (any, error) { return nil, Errorf(http.StatusConflict, "not now") })
		s.Handle("GET /v1/broken", func(*http.Request) (any, error) { return nil, errors.Join(errors.New("one"), errors.New("two")) })
		s.Handle("POST /v1/echo", func(r *http.Request) (any, error) {
			var a answer
			err := json.NewDecoder(r.Body).Decode(&a)
			return a, err
		})
	})
	ctx, c := t.Context(), client(t, dir, "one")
	var a answer
	if err := c.Get(ctx, "/v1/good", &a); err != nil || a.N != 7 {
		t.Errorf("%+v, %v", a, err)
	}
	if err := c.Do(ctx, http.MethodPost, "/v1/echo", answer{9}, &a); err != nil || a.N != 9 {
		t.Errorf("%+v, %v", a, err)
	}
	for path, want := range map[string]Error{
		"/v1/refused": {http.StatusConflict, "not now"},
		"/v1/broken":  {http.StatusInternalServerError, "one; two"},
		"/v1/none":    {http.StatusNotFound, "there is no GET /v1/none"},
	} {
		var got *Error
		if err := c.Get(ctx, path, &a); !errors.As(err, &got) || *got != want {
			t.Errorf("%s: %v, want %+v", path, err, want)
		}
	}
}

// TestStream: lines come as they are sent, an error ends them, and a caller that
// goes ends the stream.
func TestStream(t *testing.T) {
	dir := t.TempDir()
	next, gone := make(chan int), make(chan error, 1)
	serve(t, dir, "s", func(s *Server) {
		s.Stream("GET /v1/stream", func(r *http.Request, send func(any) error) error {
			for {
				select {
				case n := <-next:
					if n < 0 {
						return errors.New("enough")
					}
					if err := send(answer{n}); err != nil {
						return err
					}
				case <-r.Context().Done():
					gone <- r.Context().Err()
					return r.Context().Err()
				}
			}
		})
		s.Stream("GET /v1/never", func(*http.Request, func(any) error) error { return Errorf(http.StatusTeapot, "no") })
	})
	c := client(t, dir, "s")
	go func() { next <- 1 }()
	var got []string
	err := c.Stream(t.Context(), "/v1/stream", func(line []byte) error {
		got = append(got, string(line))
		n := -1
		if len(got) < 3 {
			n = 2
		}
		go func() { next <- n }() // only now: each line has come before the next is sent
		return nil
	})
	if err == nil || err.Error() != "enough" || !slices.Equal(got, []string{`{"n":1}`, `{"n":2}`, `{"n":2}`}) {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { next <- 1 }()
	err = c.Stream(ctx, "/v1/stream", func([]byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	<-gone
	var refused *Error
	if err := c.Stream(t.Context(), "/v1/never", nil); !errors.As(err, &refused) || refused.Status != http.StatusTeapot {
		t.Errorf("%v", err)
	}
}

// TestSocket: its mode, and that it is gone afterwards.
func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	s, err := Listen(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700 | os.ModeDir, s.Path(): 0o600 | os.ModeSocket} {
		if st, err := os.Stat(path); err != nil || st.Mode() != want {
			t.Errorf("%s: %v %v, want %v", path, st.Mode(), err, want)
		}
	}
	if names, err := List(dir); err != nil || !slices.Equal(names, []string{"a"}) {
		t.Errorf("listed: %v, %v", names, err)
	}
	if err := s.Close(); err != nil { // never served
		t.Error(err)
	}
	if _, err := os.Stat(s.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
	var v any
	if err := client(t, dir, "a").Get(t.Context(), "/v1/status", &v); !errors.Is(err, ErrGone) {
		t.Errorf("asked afterwards: %v", err)
	}
	if names, err := List(filepath.Join(dir, "none")); err != nil || names != nil {
		t.Errorf("in no folder: %v, %v", names, err)
	}
}

// leave makes a socket that nobody listens on, as a killed process leaves it.
func leave(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// TestStale: a socket left behind is not listed and is replaced; one in use is not,
// nor is a file.
func TestStale(t *testing.T) {
	dir := t.TempDir()
	leave(t, filepath.Join(dir, "old.sock"))
	if err := os.WriteFile(filepath.Join(dir, "file.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var v any
	if err := client(t, dir, "old").Get(t.Context(), "/v1/status", &v); !errors.Is(err, ErrGone) {
		t.Errorf("asked: %v", err)
	}
	if names, err := List(dir); err != nil || len(names) != 0 {
		t.Errorf("listed: %v, %v", names, err)
	}
	leave(t, filepath.Join(dir, "older.sock"))
	serve(t, dir, "old", nil)
	if _, err := os.Lstat(filepath.Join(dir, "older.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("another that was left behind: %v", err)
	}
	if _, err := Listen(dir, "old"); err == nil || !strings.Contains(err.Error(), "another coalesce is called old") {
		t.Errorf("taken: %v", err)
	}
	if _, err := Listen(dir, "file"); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	for _, name := range []string{"", "../x", "a/b", ".x", strings.Repeat("x", 65)} {
		if _, err := Listen(dir, name); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// TestOneOfMany: of many that want a name whose socket was left behind, one gets it,
// and keeps it.
func TestOneOfMany(t *testing.T) {
	dir := t.TempDir()
	for round := range 20 {
		name := fmt.Sprint("n", round)
		leave(t, filepath.Join(dir, name+".sock"))
		var all sync.WaitGroup
		var mu sync.Mutex
		var got []*Server
		for range 4 {
			all.Go(func() {
				if s, err := Listen(dir, name); err == nil {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, s)
				}
			})
		}
		all.Wait()
		if len(got) != 1 || !alive(got[0].Path()) {
			t.Fatalf("round %d: %d have it", round, len(got))
		}
		got[0].Close()
	}
}

// TestForeignDir: a folder that others may write to is not used.
func TestForeignDir(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(dir, "a"); err == nil || !strings.Contains(err.Error(), "written by others") {
		t.Errorf("%v", err)
	}
}

// TestCloseEndsHandlers: Close does not wait for one that goes on and on.
func TestCloseEndsHandlers(t *testing.T) {
	dir := t.TempDir()
	entered := make(chan struct{})
	s, err := Listen(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	s.Handle("GET /v1/slow", func(r *http.Request) (any, error) {
		close(entered)
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
	s.Serve()
	done := make(chan error, 1)
	go func() {
		var v any
		done <- client(t, dir, "a").Get(context.Background(), "/v1/slow", &v)
	}()
	<-entered
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("an answer came")
	}
}

func TestDir(t *testing.T) {
	mine := t.TempDir()
	for runtime, want := range map[string]string{mine: mine + "/coalesce", mine + "/none": rootDir, ".": rootDir, "": rootDir} {
		t.Setenv("XDG_RUNTIME_DIR", runtime)
		if d := Dir(); d != want {
			t.Errorf("%q: %s, want %s", runtime, d, want)
		}
	}
}
