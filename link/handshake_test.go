package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"coalesce/link"
	"coalesce/link/linktest"
)

// report is what a Listener told Options.OnError.
type report struct {
	remote string
	err    error
}

// listen starts a Listener; what it reports comes from the channel.
func listen(t *testing.T, opts link.Options) (*link.Listener, <-chan report) {
	t.Helper()
	linktest.CheckLeaks(t)
	reports := make(chan report, 1000)
	opts.OnError = func(remote string, err error) { reports <- report{remote, err} }
	l, err := link.Listen("127.0.0.1:0", opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("closing the listener: %v", err)
		}
	})
	return l, reports
}

// welcome answers every peer with h until the Listener closes; the connections
// are closed when the test ends.
func welcome(t *testing.T, l *link.Listener, h link.Hello) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			if c, err := in.Welcome(h); err == nil {
				t.Cleanup(func() { c.Close() })
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
}

// connect opens a bare TCP connection, closed when the test ends.
func connect(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return nc
}

func dial(addr string, h link.Hello, opts link.Options) error {
	c, err := link.Dial(context.Background(), addr, h, opts)
	if err == nil {
		c.Close()
	}
	return err
}

func TestHelloAndWelcome(t *testing.T) {
	l, _ := listen(t, link.Options{})
	mine := link.Hello{
		Build: "client build", Session: link.NewSessionID(), From: 0, To: 3, Class: link.Interrupt,
		PageSize: 4096, TSCKHz: 2_500_000, CPU: []byte("cpuid"), Payload: []byte(`{"want":1}`),
	}
	theirs := link.Hello{Build: "lender build", PageSize: 16384, TSCKHz: 2_500_001, Payload: []byte("granted")}
	type answer struct {
		in  *link.Incoming
		c   *link.Conn
		err error
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		if a.in, a.err = l.Accept(); a.err == nil {
			a.c, a.err = a.in.Welcome(theirs)
		}
		answers <- a
	}()
	c, err := link.Dial(context.Background(), l.Addr(), mine, link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	a := <-answers
	if a.err != nil {
		t.Fatal(a.err)
	}
	defer a.c.Close()

	mine.Protocol = link.ProtocolVersion
	if !reflect.DeepEqual(a.in.Hello, mine) || !reflect.DeepEqual(*a.c.Peer(), mine) {
		t.Errorf("the lender sees %+v, want %+v", a.in.Hello, mine)
	}
	want := theirs
	want.Protocol, want.Session, want.From, want.To, want.Class = link.ProtocolVersion, mine.Session, 3, 0, link.Interrupt
	got := *c.Peer()
	got.CPU = nil // empty, not nil, once parsed
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the client sees %+v, want %+v", got, want)
	}
	if a.in.Remote != c.LocalAddr() {
		t.Errorf("the lender sees %s, the client is %s", a.in.Remote, c.LocalAddr())
	}
	mustSend(t, a.c, link.Header{Kind: 1}, []byte("first"))
	if _, p := mustRecv(t, c, make([]byte, 10)); string(p) != "first" {
		t.Errorf("the first frame brings %q", p)
	}
}

func TestRefuse(t *testing.T) {
	l, _ := listen(t, link.Options{})
	go func() {
		if in, err := l.Accept(); err == nil {
			in.Refuse(link.CodeRole+1, "wants 4 CPUs, lends 2")
		}
	}()
	err := dial(l.Addr(), link.Hello{}, link.Options{})
	var re *link.RefusedError
	if !errors.As(err, &re) || *re != (link.RefusedError{Code: link.CodeRole + 1, Text: "wants 4 CPUs, lends 2"}) {
		t.Fatalf("%v, want a *RefusedError", err)
	}
	if want := "control connection to " + l.Addr() + ": refused: wants 4 CPUs, lends 2"; err.Error() != want {
		t.Errorf("says %q, want %q", err, want)
	}
}

func TestVersionMismatch(t *testing.T) {
	l, reports := listen(t, link.Options{})
	welcome(t, l, link.Hello{})
	const other = link.ProtocolVersion + 7
	err := dial(l.Addr(), link.Hello{Protocol: other, Payload: make([]byte, link.MaxHelloPayload)}, link.Options{})
	var ve *link.VersionError
	if !errors.Is(err, link.ErrVersion) || !errors.As(err, &ve) || *ve != (link.VersionError{Ours: other, Theirs: link.ProtocolVersion}) {
		t.Errorf("the client: %v", err)
	}
	if !strings.Contains(err.Error(), fmt.Sprint("version ", other)) || !strings.Contains(err.Error(), fmt.Sprint("version ", link.ProtocolVersion)) {
		t.Errorf("%q does not name both versions", err)
	}
	if r := <-reports; !errors.As(r.err, &ve) || *ve != (link.VersionError{Ours: link.ProtocolVersion, Theirs: other}) {
		t.Errorf("the listener: %v", r.err)
	}
	if err := dial(l.Addr(), link.Hello{}, link.Options{}); err != nil {
		t.Errorf("the next client: %v", err)
	}
}

func TestListenerSurvivesGarbage(t *testing.T) {
	l, reports := listen(t, link.Options{HandshakeTimeout: 30 * time.Second})
	welcome(t, l, link.Hello{})
	preface := func(typ byte, n uint32) string {
		return string([]byte{'C', 'L', 'S', 'C', typ, 0, 0, 0, link.ProtocolVersion, 0, 0, 0, byte(n), byte(n >> 8), byte(n >> 16), byte(n >> 24)})
	}
	var he *link.HelloError
	for _, test := range []struct {
		name, bytes string
		check       func(error) bool
	}{
		{"HTTP", "GET / HTTP/1.1\r\n\r\n", func(err error) bool { return errors.Is(err, link.ErrNotCoalesce) }},
		{"a few bytes", "SSH-", func(err error) bool { return errors.Is(err, link.ErrNotCoalesce) }},
		{"a Welcome", preface(2, 0), func(err error) bool { return errors.As(err, &he) }},
		{"unknown message", preface(9, 0), func(err error) bool { return errors.As(err, &he) }},
		{"a body of 4 GiB", preface(1, 1<<32-1), func(err error) bool { return errors.As(err, &he) }},
		{"a short body", preface(1, 5) + "12345", func(err error) bool { return errors.As(err, &he) }},
		{"a body of zeros and then some", preface(1, 40) + string(make([]byte, 40)), func(err error) bool { return errors.As(err, &he) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc := connect(t, l.Addr())
			if _, err := io.WriteString(nc, test.bytes); err != nil {
				t.Fatal(err)
			}
			r := <-reports
			if !test.check(r.err) || r.remote != nc.LocalAddr().String() || !strings.Contains(r.err.Error(), r.remote) {
				t.Errorf("reported for %s: %v", r.remote, r.err)
			}
			io.Copy(io.Discard, nc) // returns: the listener has closed it
			if err := dial(l.Addr(), link.Hello{}, link.Options{}); err != nil {
				t.Errorf("the next client: %v", err)
			}
		})
	}
	// A peer that goes in the middle.
	for _, start := range []string{"", "CL", preface(1, 40), preface(1, 40) + "abc"} {
		nc := connect(t, l.Addr())
		io.WriteString(nc, start)
		nc.Close()
		if r := <-reports; !errors.Is(r.err, io.ErrUnexpectedEOF) {
			t.Errorf("gone after %q: %v", start, r.err)
		}
	}
}

func TestSilentPeersHoldUpNobody(t *testing.T) {
	l, reports := listen(t, link.Options{HandshakeTimeout: time.Minute, MaxPending: 8})
	welcome(t, l, link.Hello{})
	for range 8 {
		connect(t, l.Addr())
	}
	for i := range 20 {
		if err := dial(l.Addr(), link.Hello{}, link.Options{}); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
	// Room was made for one at a time, and each left its place to the next.
	if r := <-reports; !errors.Is(r.err, link.ErrCrowded) {
		t.Errorf("%v, want ErrCrowded", r.err)
	}
	if len(reports) != 0 {
		t.Errorf("one more silent peer was dropped than needed: %v", (<-reports).err)
	}
}

func TestHandshakeTimeouts(t *testing.T) {
	const timeout = 50 * time.Millisecond
	t.Run("listener", func(t *testing.T) {
		l, reports := listen(t, link.Options{HandshakeTimeout: timeout})
		nc := connect(t, l.Addr())
		io.WriteString(nc, "CLSC\x01")
		if r := <-reports; !errors.Is(r.err, link.ErrHandshakeTimeout) {
			t.Errorf("%v, want ErrHandshakeTimeout", r.err)
		}
		io.Copy(io.Discard, nc)
	})
	t.Run("listener, nobody accepts", func(t *testing.T) {
		l, reports := listen(t, link.Options{HandshakeTimeout: timeout})
		if err := dial(l.Addr(), link.Hello{}, link.Options{HandshakeTimeout: time.Minute}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the client: %v", err)
		}
		if r := <-reports; !errors.Is(r.err, link.ErrHandshakeTimeout) {
			t.Errorf("%v, want ErrHandshakeTimeout", r.err)
		}
	})
	t.Run("dial", func(t *testing.T) {
		addr := serve(t, func(nc net.Conn) { io.Copy(io.Discard, nc) })
		if err := dial(addr, link.Hello{}, link.Options{HandshakeTimeout: timeout}); !errors.Is(err, link.ErrHandshakeTimeout) {
			t.Errorf("%v, want ErrHandshakeTimeout", err)
		}
	})
	t.Run("dial, context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		addr := serve(t, func(nc net.Conn) {
			io.ReadFull(nc, make([]byte, 16))
			cancel()
			io.Copy(io.Discard, nc)
		})
		if _, err := link.Dial(ctx, addr, link.Hello{}, link.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want context.Canceled", err)
		}
		if _, err := link.Dial(ctx, addr, link.Hello{}, link.Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("again: %v, want context.Canceled", err)
		}
	})
}

// serve answers TCP connections with f, one at a time; its address is returned.
func serve(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	linktest.CheckLeaks(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			f(nc)
			nc.Close()
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func TestDialErrors(t *testing.T) {
	hello := link.Hello{Session: link.SessionID{1}, To: 1, Class: link.Page}
	body, err := link.AppendHello(nil, &link.Hello{Session: hello.Session, From: 1, Class: link.Page})
	if err != nil {
		t.Fatal(err)
	}
	message := func(typ, version byte, body []byte) []byte {
		return append([]byte{'C', 'L', 'S', 'C', typ, 0, 0, 0, version, 0, 0, 0, byte(len(body)), 0, 0, 0}, body...)
	}
	with := func(i int, v byte) []byte {
		b := bytes.Clone(body)
		b[i] = v
		return b
	}
	var he *link.HelloError
	malformed := func(err error) bool { return errors.As(err, &he) }
	for _, test := range []struct {
		name   string
		answer []byte
		check  func(error) bool
	}{
		{"a Welcome as it should be", message(2, link.ProtocolVersion, body), func(err error) bool { return err == nil }},
		{"another protocol", []byte("SSH-2.0-OpenSSH_9.2\r\n"), func(err error) bool { return errors.Is(err, link.ErrNotCoalesce) }},
		{"nothing", nil, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"half a preface", message(2, link.ProtocolVersion, body)[:9], func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"half a body", message(2, link.ProtocolVersion, body)[:30], func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"a Hello", message(1, link.ProtocolVersion, body), malformed},
		{"an empty Welcome", message(2, link.ProtocolVersion, nil), malformed},
		{"an empty Refuse", message(3, link.ProtocolVersion, nil), malformed},
		{"another session", message(2, link.ProtocolVersion, with(0, 9)), malformed},
		{"another class", message(2, link.ProtocolVersion, with(18, byte(link.Bulk))), malformed},
		{"another node", message(2, link.ProtocolVersion, with(16, 9)), malformed},
		{"for another node", message(2, link.ProtocolVersion, with(17, 9)), malformed},
		{"a Welcome of another version", message(2, link.ProtocolVersion+1, []byte("?")), func(err error) bool { return errors.Is(err, link.ErrVersion) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			addr := serve(t, func(nc net.Conn) {
				// All of the Hello is read, or the close would reset the answer away.
				io.ReadFull(nc, make([]byte, 16+len(body)))
				nc.Write(test.answer)
			})
			err := dial(addr, hello, link.Options{})
			if !test.check(err) {
				t.Errorf("unexpected: %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), addr) {
				t.Errorf("%q does not name %s", err, addr)
			}
		})
	}
}

func TestDialNobodyThere(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	err = dial(addr, link.Hello{}, link.Options{})
	if !errors.Is(err, link.ErrUnreachable) || err.Error() != "cannot reach "+addr+": connection refused" {
		t.Errorf("%v, want ErrUnreachable", err)
	}
	if err := dial("127.0.0.1", link.Hello{}, link.Options{}); !errors.Is(err, link.ErrUnreachable) {
		t.Errorf("no port: %v, want ErrUnreachable", err)
	}
	// An address whose host answers nothing.
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // takes no filter
	mute, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	raw, err := mute.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { silence(t, int(fd)) }); err != nil {
		t.Fatal(err)
	}
	addr = mute.Addr().String()
	err = dial(addr, link.Hello{}, link.Options{HandshakeTimeout: 20 * time.Millisecond})
	if !errors.Is(err, link.ErrUnreachable) || err.Error() != "cannot reach "+addr+": no answer within 20ms" {
		t.Errorf("%v, want ErrUnreachable", err)
	}
	var he *link.HelloError
	if err := dial(addr, link.Hello{Class: link.NumClasses}, link.Options{}); !errors.As(err, &he) {
		t.Errorf("no class: %v, want a *HelloError", err)
	}
}

func TestListenErrors(t *testing.T) {
	l, _ := listen(t, link.Options{})
	_, err := link.Listen(l.Addr(), link.Options{})
	if want := fmt.Sprintf("listening on %s: address already in use", l.Addr()); err == nil || err.Error() != want {
		t.Errorf("%v, want %q", err, want)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, link.ErrClosed) {
		t.Errorf("Accept after Close: %v, want ErrClosed", err)
	}
}

func TestCloseDropsPendingPeers(t *testing.T) {
	l, reports := listen(t, link.Options{HandshakeTimeout: time.Minute})
	silent := connect(t, l.Addr())
	waiting := make(chan error, 1)
	go func() { waiting <- dial(l.Addr(), link.Hello{}, link.Options{}) }()
	// One is accepted and stays the acceptor's.
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	io.Copy(io.Discard, silent)
	c, err := in.Welcome(link.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := <-waiting; err != nil {
		t.Errorf("the accepted client: %v", err)
	}
	if len(reports) != 0 {
		t.Errorf("Close was reported as an error: %v", (<-reports).err)
	}
}

func TestAnswerToAPeerThatHasGone(t *testing.T) {
	linktest.CheckLeaks(t)
	l, _ := listen(t, link.Options{})
	nc := connect(t, l.Addr())
	body, err := link.AppendHello(nil, &link.Hello{})
	if err != nil {
		t.Fatal(err)
	}
	nc.Write(append([]byte{'C', 'L', 'S', 'C', 1, 0, 0, 0, link.ProtocolVersion, 0, 0, 0, byte(len(body)), 0, 0, 0}, body...))
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	nc.(*net.TCPConn).SetLinger(0)
	nc.Close()
	// Whether the Welcome itself meets the reset is TCP's timing; the connection does.
	if c, err := in.Welcome(link.Hello{}); err == nil {
		var h link.Header
		if _, err := c.Recv(&h, nil); err == nil {
			t.Error("received a frame from a peer that has gone")
		}
		c.Close()
	}
}
