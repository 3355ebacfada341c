package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
)

// Client asks one instance.
type Client struct {
	name string
	http http.Client
}

// NewClient returns a client of an instance with a socket in dir. It opens nothing
// yet.
func NewClient(dir, name string) (*Client, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, name+suffix)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "unix", path)
	}
	return &Client{name: name, http: http.Client{Transport: &http.Transport{DialContext: dial}}}, nil
}

// Name is the instance's.
func (c *Client) Name() string { return c.name }

// Close gives the connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get decodes what the instance answers to GET path into v. An answer that is an
// error comes back as an *Error.
func (c *Client) Get(ctx context.Context, path string, v any) error {
	return c.Do(ctx, http.MethodGet, path, nil, v)
}

// Do sends in as JSON, if it is not nil, and decodes the answer into out, unless
// that is nil.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	resp, err := c.send(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return c.broken(err)
	}
	return nil
}

// Stream calls f with each line of what the instance answers to GET path, until f
// fails or the instance ends the stream.
func (c *Client) Stream(ctx context.Context, path string, f func(line []byte) error) error {
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var last failure
		if bytes.HasPrefix(lines.Bytes(), []byte(`{"error":`)) && json.Unmarshal(lines.Bytes(), &last) == nil {
			return errors.New(last.Error)
		}
		if err := f(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return c.broken(err)
	}
	return nil
}

// maxLine bounds a line of a stream, in bytes.
const maxLine = 16 << 20

func (c *Client) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://coalesce"+path, body)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.name, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.broken(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		var why failure
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&why); err != nil || why.Error == "" {
			why.Error = fmt.Sprintf("%s does not know %s %s: is it another version?", c.name, method, path)
		}
		return nil, &Error{resp.StatusCode, why.Error}
	}
	return resp, nil
}

// ErrGone is wrapped when an instance is not there, or ends before it has answered.
var ErrGone = errors.New("it does not run (any more)")

// broken says what a failed connection means.
func (c *Client) broken(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("ask %s: it does not answer: %w", c.name, context.DeadlineExceeded)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("ask %s: another user runs it: %w", c.name, os.ErrPermission)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("ask %s: %w", c.name, ErrGone)
	}
	return fmt.Errorf("ask %s: %w", c.name, err)
}
