package tests

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/link"
	"coalesce/tests/bare"
	"coalesce/tests/lab"
	"coalesce/tests/product"
)

// TestUnreachable: lenders that are not there, or not lenders.
func TestUnreachable(t *testing.T) {
	p := newPlace(t)
	k := script(t, "never\n", bare.PowerOff)
	const hint = "is 'coalesce lend' running there?"
	tests := []struct {
		name  string
		addr  string                 // "" for the lender's, where answer listens
		reply func(net.Conn, []byte) // to what the client says first; nil: nobody listens
		want  []string
	}{
		{"nobody listens", "", nil, []string{"refused", hint}},
		{"no such host", "10.77.1.99:7411", nil, []string{"10.77.1.99:7411", hint}},
		{"no such network", "192.0.2.1:7411", nil, []string{"192.0.2.1:7411", "unreachable", hint}},
		{"a web server", "", func(c net.Conn, _ []byte) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, []string{"protocol"}},
		{"closes at once", "", func(net.Conn, []byte) {}, []string{"EOF"}},
		{"another version", "", func(c net.Conn, hello []byte) { c.Write(otherVersion(msgWelcome, hello)) }, []string{"version", "99", "upgrade this side"}},
		{"an older version", "", func(c net.Conn, hello []byte) { c.Write(preface(msgWelcome, 0, hello)) }, []string{"version", "0", "upgrade the peer"}},
		{"refuses for its version", "", func(c net.Conn, hello []byte) { c.Write(otherVersion(msgRefuse, refusal(1, "no"))) }, []string{"version", "99", "upgrade this side"}},
		{"a malformed welcome", "", func(c net.Conn, hello []byte) { c.Write(preface(msgWelcome, link.ProtocolVersion, []byte("welcome"))) }, []string{"handshake"}},
		{"says nothing", "", func(c net.Conn, _ []byte) { io.Copy(io.Discard, c) }, []string{"timed out", hint}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			addr := tt.addr
			if addr == "" {
				addr = p.ip + ":" + product.Port
				if tt.reply != nil {
					answer(t, p.lender, addr, tt.reply)
				}
			}
			c := p.run(t, "--kernel", k, "--memory", "64M", "--lender", addr+",cpus=1")
			exit(t, c, shortly, 1)
			line := complaint(t, c, append(tt.want, "lender", addr)...)
			if strings.Contains(line, hint) && !slices.Contains(tt.want, hint) {
				t.Errorf("a peer answered, and it is asked whether one runs: %q", line)
			}
			saw(t, "%s", line)
			if out := c.Stdout.String(); out != "" {
				t.Errorf("the guest ran: %q", out)
			}
		})
	}
}

// Handshake messages as link/hello.go has them.
const (
	msgWelcome = 2
	msgRefuse  = 3
)

func preface(kind byte, version uint32, body []byte) []byte {
	b := append([]byte("CLSC"), kind, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, version)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	return append(b, body...)
}

func otherVersion(kind byte, body []byte) []byte { return preface(kind, 99, body) }

func refusal(code uint32, text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, code)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return append(b, text...)
}

// answer listens at addr on h until the test's end and lets reply answer what each peer says first.
func answer(t *testing.T, h *lab.Host, addr string, reply func(c net.Conn, first []byte)) {
	t.Helper()
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				first := make([]byte, 256<<10)
				n, _ := c.Read(first) // a peer that says nothing is answered, too
				reply(c, first[:n])
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
}

// TestAskedTooMuch: a lender that does not lend that much says how much it does.
func TestAskedTooMuch(t *testing.T) {
	p := newPlace(t)
	l := p.lend(t, "--cpus", "2", "--memory", "128M")
	k := script(t, "never\n", bare.PowerOff)
	for ask, want := range map[string][]string{
		"cpus=3":             {"3 CPUs", "2 CPUs"},
		"cpus=1,memory=256M": {"256 MiB", "128 MiB"},
	} {
		c := p.run(t, "--kernel", k, "--memory", "64M", p.borrow(ask))
		exit(t, c, shortly, 1)
		line := complaint(t, c, append(want, "lender", p.ip)...)
		if strings.Contains(line, "running there") {
			t.Errorf("the lender answered, and it is asked whether it runs: %q", line)
		}
		saw(t, "%s", line)
	}
	l.Signal(unix.SIGTERM)
	exit(t, l.Process, shortly, 0)
}

// TestTwoAtOnce: two clients share what a lender lends; a third finds nothing left.
func TestTwoAtOnce(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	p.lend(t, "--cpus", "2")
	k := pair(t)
	var running []*lab.Process
	for range 2 {
		c := p.run(t, "--kernel", k, "--memory", "64M", p.borrow("cpus=1"))
		await(t, c.Stdout, shortly, bare.PairAlive)
		running = append(running, c)
	}
	c := p.run(t, "--kernel", k, "--memory", "64M", p.borrow("cpus=1"))
	exit(t, c, shortly, 1)
	saw(t, "%s", complaint(t, c, "lender", p.ip, "1 CPUs", "0 CPUs"))
	running[0].Kill()
	alive(t, running[1], "the other client was killed")
}

// alive checks that a Pair goes on.
func alive(t *testing.T, c *lab.Process, after string) {
	t.Helper()
	from := c.Stdout.Len()
	for range 2 {
		line, err := c.Stdout.AwaitFrom(within(t, shortly), from, bare.PairAlive)
		if err != nil {
			t.Fatalf("after %s: %v\n%s", after, err, c.Stderr.Tail(5))
		}
		from += len(line)
	}
}

// fakeLender greets a client as a lender does, with a Hello that change has altered, and then hands the connection to
// serve.
func fakeLender(t *testing.T, h *lab.Host, addr string, change func(*link.Hello), serve func(*link.Conn, *link.Listener)) {
	t.Helper()
	var ln *link.Listener
	err := h.Do(func() (err error) {
		ln, err = link.Listen(addr, link.Options{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		hello := in.Hello // the client's own features
		hello.Payload = []byte(`{"cpus":1,"memory":0}`)
		change(&hello)
		c, err := in.Welcome(hello)
		if err != nil {
			return // the client has gone; it says why
		}
		defer c.Close()
		serve(c, ln)
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
}

// drain reads control frames until the connection ends, and knows of a stop.
func drain(c *link.Conn) {
	var h link.Header
	buf := make([]byte, link.Control.MaxPayload())
	for {
		if _, err := c.Recv(&h, buf); err != nil {
			return
		}
		if h.Kind == ctlStop {
			_ = c.Send(link.Header{Kind: ctlStop}, []byte("{}")) // a client that has gone needs no answer
		}
	}
}

// cpuLeaf returns one leaf's registers in an encoded CPUID set (vcpu/cpuid.go): a count, then function, sub-leaf, EAX,
// EBX, ECX, EDX of each.
func cpuLeaf(set []byte, function, index uint32) []byte {
	for b := set[2:]; len(b) >= 24; b = b[24:] {
		if binary.LittleEndian.Uint32(b) == function && binary.LittleEndian.Uint32(b[4:]) == index {
			return b[8:24]
		}
	}
	return nil
}

// TestUnfitLender: a lender whose hardware cannot take part in the guest.
func TestUnfitLender(t *testing.T) {
	p := newPlace(t)
	k := script(t, "never\n", bare.PowerOff)
	addr := p.ip + ":" + product.Port
	const cx16 = 1 << 13 // CPUID 1 ECX
	tests := []struct {
		name   string
		flags  []string
		change func(*link.Hello)
		want   []string
	}{
		{"lacks a CPU feature", []string{"--cpu", "host"}, func(h *link.Hello) {
			ecx := cpuLeaf(h.CPU, 1, 0)[8:]
			binary.LittleEndian.PutUint32(ecx, binary.LittleEndian.Uint32(ecx)&^cx16)
		}, []string{"cx16"}},
		{"another CPU vendor", nil, func(h *link.Hello) { copy(cpuLeaf(h.CPU, 0, 0)[4:8], "Sold") }, []string{"vendor"}},
		{"malformed CPU features", nil, func(h *link.Hello) { h.CPU = h.CPU[:len(h.CPU)-3] }, []string{"CPU"}},
		{"another TSC rate", nil, func(h *link.Hello) { h.TSCKHz += h.TSCKHz / 100 }, []string{"time stamp counter", "kHz"}},
		{"other pages", nil, func(h *link.Hello) { h.PageSize = 16 << 10 }, []string{"16384", "4096"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			fakeLender(t, p.lender, addr, tt.change, func(c *link.Conn, _ *link.Listener) { drain(c) })
			c := p.run(t, append(tt.flags, "--kernel", k, "--memory", "64M", p.borrow("cpus=1"))...)
			e := exit(t, c, shortly, 1)
			saw(t, "after %v: %s", e.Ran.Round(time.Millisecond), complaint(t, c, append(tt.want, "lender", addr)...))
			if e.Ran > 10*time.Second {
				t.Errorf("the client took %v to end", e.Ran)
			}
		})
	}
}

// Control messages, as vmm/protocol.go has them.
const (
	ctlSetup = 1 + iota
	ctlReady
	ctlLinked
	ctlStart
	ctlReport
	ctlStop
	ctlFailed
)

// TestTreacherousLender: a lender that joins a guest and then sends what no lender would. The client stops with an error
// that says so.
func TestTreacherousLender(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	k := script(t, "up\n", bare.Spin)
	addr := p.ip + ":" + product.Port
	random := make([]byte, 200)
	chacha := rand.NewChaCha8([32]byte{1})
	_, _ = chacha.Read(random) // never fails
	for _, tt := range []struct {
		name  string
		class link.Class
		kind  uint8
		body  []byte
	}{
		{"control: unknown message", link.Control, 200, []byte("{}")},
		{"control: knows of a stop before there is one", link.Control, ctlStop, []byte("{}")},
		{"control: not JSON", link.Control, ctlFailed, random},
		{"control: a report of another", link.Control, ctlReport, []byte(`{"node":0}`)},
		{"page: unknown message", link.Page, 200, nil},
		{"page: random", link.Page, 1, random},
		{"page: far outside", link.Page, 1, append(binary.LittleEndian.AppendUint64(nil, 1<<60), random...)},
		{"interrupt: unknown message", link.Interrupt, 200, nil},
		{"interrupt: random", link.Interrupt, 1, random},
		{"io: unknown message", link.IO, 200, nil},
		{"io: random", link.IO, 1, random},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fakeLender(t, p.lender, addr, func(*link.Hello) {}, func(control *link.Conn, ln *link.Listener) {
				links, err := join(control, ln)
				if err == nil {
					err = links[tt.class].Send(link.Header{Kind: tt.kind}, tt.body)
				}
				if err != nil {
					t.Error(err)
				}
				drain(control)
				for _, c := range links {
					c.Close()
				}
			})
			c := p.run(t, "--kernel", k, "--memory", "64M", p.borrow("cpus=1"))
			exit(t, c, shortly, 1)
			saw(t, "%s", complaint(t, c, "lender", addr, "sent what no lender sends"))
		})
	}
}

// join is a fake lender's part up to the guest's start.
func join(control *link.Conn, ln *link.Listener) (map[link.Class]*link.Conn, error) {
	buf := make([]byte, link.Control.MaxPayload())
	expect := func(kind uint8) error {
		var h link.Header
		_, err := control.Recv(&h, buf)
		if err == nil && h.Kind != kind {
			err = fmt.Errorf("control message %d, want %d", h.Kind, kind)
		}
		return err
	}
	links := map[link.Class]*link.Conn{link.Control: control}
	if err := expect(ctlSetup); err != nil {
		return links, err
	}
	if err := control.Send(link.Header{Kind: ctlReady}, []byte("{}")); err != nil {
		return links, err
	}
	for range 3 {
		in, err := ln.Accept()
		if err != nil {
			return links, err
		}
		c, err := in.Welcome(in.Hello)
		if err != nil {
			return links, err
		}
		links[in.Hello.Class] = c
	}
	if err := control.Send(link.Header{Kind: ctlLinked}, []byte("{}")); err != nil {
		return links, err
	}
	return links, expect(ctlStart)
}

// visitor is a fake client of a lender.
type visitor struct {
	t    *testing.T
	p    *place
	addr string
}

// raw sends bytes on a new connection and returns what comes back until its end or a moment has passed.
func (v *visitor) raw(b []byte) []byte {
	v.t.Helper()
	var got []byte
	err := v.p.client.Do(func() error {
		c, err := net.DialTimeout("tcp", v.addr, shortly)
		if err != nil {
			return err
		}
		defer c.Close()
		_, _ = c.Write(b) // the lender may close as soon as it has seen enough
		_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		got, _ = io.ReadAll(c)
		return nil
	})
	if err != nil {
		v.t.Fatal(err)
	}
	return got
}

// greet opens a connection as a client does.
func (v *visitor) greet(class link.Class, session link.SessionID, payload string) (*link.Conn, error) {
	return v.greetAs(1, class, session, payload)
}

// greetAs is greet for a lender that is to be some node.
func (v *visitor) greetAs(node link.NodeID, class link.Class, session link.SessionID, payload string) (c *link.Conn, err error) {
	hello := link.Hello{Build: "visitor", Session: session, To: node, Class: class, PageSize: 4096, TSCKHz: 1e6, Payload: []byte(payload)}
	_ = v.p.client.Do(func() error {
		c, err = link.Dial(context.Background(), v.addr, hello, link.Options{})
		return nil
	})
	return c, err
}

// ended waits until the lender ends a connection and returns why, as far as it said.
func (v *visitor) ended(c *link.Conn) string {
	v.t.Helper()
	defer c.Close()
	watchdog := time.AfterFunc(shortly, func() { c.Abort(errors.New("the test's patience")) })
	defer watchdog.Stop()
	why := ""
	var h link.Header
	buf := make([]byte, link.Control.MaxPayload())
	for {
		b, err := c.Recv(&h, buf)
		if err != nil {
			if strings.Contains(err.Error(), "patience") || errors.Is(err, link.ErrClosed) {
				v.t.Errorf("the lender keeps the session: %v", err)
			}
			if why == "" {
				why = err.Error()
			}
			return why
		}
		if h.Kind == ctlFailed {
			why = string(b)
		}
	}
}

// prepare opens a session and has the lender build its half of a guest. It returns the control connection and what was
// answered: "ready", or what was wrong.
func (v *visitor) prepare(id link.SessionID, change func(m map[string]any)) (control *link.Conn, answer string) {
	v.t.Helper()
	return v.prepareAs(1, id, change)
}

// prepareAs is prepare for a lender that is to be some node.
func (v *visitor) prepareAs(node link.NodeID, id link.SessionID, change func(m map[string]any)) (control *link.Conn, answer string) {
	v.t.Helper()
	control, err := v.greetAs(node, link.Control, id, `{"cpus":1,"memory":0}`)
	if err != nil {
		v.t.Fatal(err)
	}
	body := setup(control.Peer(), func(m map[string]any) {
		m["node"] = node
		change(m)
	})
	if err := control.Send(link.Header{Kind: ctlSetup}, body); err != nil {
		v.t.Fatal(err)
	}
	var h link.Header
	b, err := control.Recv(&h, make([]byte, link.Control.MaxPayload()))
	switch {
	case err != nil:
		return control, err.Error()
	case h.Kind == ctlReady:
		return control, "ready"
	}
	return control, fmt.Sprintf("message %d %s", h.Kind, b)
}

// setup is a control message that prepares a guest on two hosts.
func setup(lender *link.Hello, change func(m map[string]any)) []byte {
	m := map[string]any{
		"node": 1, "view": 1, "cpuid": lender.CPU, "tsc_khz": lender.TSCKHz, "tsc_offset": 0, "hold_ns": 100000,
		"shares": []map[string]any{{"CPUs": 1, "Memory": 64 << 20, "Distance": 0}, {"CPUs": 1, "Memory": 0, "Distance": 20}},
	}
	change(m)
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // a map of plain values
	}
	return b
}

// TestSilentClient: a client that does not go on keeps nothing of a lender for long, and one that goes while the lender
// works for it keeps nothing at all.
func TestSilentClient(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	l := p.lend(t, "--cpus", "1", "--patience", "300ms")
	v := &visitor{t: t, p: p, addr: p.ip + ":" + product.Port}
	nothing := func(map[string]any) {}
	for name, reach := range map[string]func() *link.Conn{
		"after the greeting": func() *link.Conn {
			c, err := v.greet(link.Control, link.NewSessionID(), `{"cpus":1,"memory":0}`)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		"after the set-up": func() *link.Conn {
			c, answer := v.prepare(link.NewSessionID(), nothing)
			if answer != "ready" {
				t.Fatal(answer)
			}
			return c
		},
		"after the stop": func() *link.Conn {
			c, _ := v.prepare(link.NewSessionID(), nothing)
			if err := c.Send(link.Header{Kind: ctlStop}, []byte("{}")); err != nil {
				t.Fatal(err)
			}
			return c
		},
	} {
		from := l.Stderr.Len()
		c := reach()
		why := v.ended(c)
		saw(t, "%s: %s", name, why)
		if name != "after the stop" && !strings.Contains(why, "not gone on for 300ms") {
			t.Errorf("%s: %s", name, why)
		}
		awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
	}

	// A fellow lender that accepts and says nothing: the lender would wait for it for 5 s.
	dialled := make(chan struct{})
	answer(t, p.client, "10.77.1.1:7412", func(c net.Conn, _ []byte) {
		close(dialled) // the first connection is the only one
		io.Copy(io.Discard, c)
	})
	from := l.Stderr.Len()
	c, got := v.prepareAs(2, link.NewSessionID(), func(m map[string]any) {
		m["shares"] = []map[string]any{{"CPUs": 1, "Memory": 64 << 20}, {"CPUs": 1, "Distance": 20}, {"CPUs": 1, "Distance": 20}}
		m["dial"] = []map[string]any{{"node": 1, "address": "10.77.1.1:7412"}}
	})
	if got != "ready" {
		t.Fatal(got)
	}
	select {
	case <-dialled:
	case <-time.After(shortly):
		t.Fatal("the fellow lender is not dialled")
	}
	gone := time.Now()
	c.Close()
	awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
	took := time.Since(gone)
	saw(t, "client gone while its lender dials: all given back after %v", took.Round(time.Millisecond))
	if took > 3*time.Second {
		t.Errorf("all is given back after %v, 3 s are promised", took)
	}
}

// TestHostileNetwork: whatever comes to a lender's port, it ends that connection or session, says why, and harms nobody:
// another guest goes on, and all that is lent can be lent again.
func TestHostileNetwork(t *testing.T) {
	needSpan(t)
	p := newPlace(t)
	l := p.lend(t, "--cpus", "2", "--memory", "64M", "--guest-memory", "64G")
	k := pair(t)
	guest := p.run(t, "--kernel", k, "--memory", "64M", p.borrow("cpus=1"))
	await(t, guest.Stdout, shortly, bare.PairAlive)
	v := &visitor{t: t, p: p, addr: p.ip + ":" + product.Port}
	chacha := rand.NewChaCha8([32]byte{2})
	random := func(n int) []byte {
		b := make([]byte, n)
		_, _ = chacha.Read(b) // never fails
		return b
	}

	t.Run("bytes", func(t *testing.T) {
		for name, b := range map[string][]byte{
			"nothing":                nil,
			"one byte":               {'C'},
			"random bytes":           random(4096),
			"a web request":          []byte("GET / HTTP/1.1\r\nHost: lender\r\n\r\n"),
			"half a preface":         []byte("CLSC\x01\x00\x00"),
			"a body too long":        binary.LittleEndian.AppendUint32(preface(1, link.ProtocolVersion, nil)[:12], 1<<31),
			"a body that is missing": binary.LittleEndian.AppendUint32(preface(1, link.ProtocolVersion, nil)[:12], 100),
			"a malformed Hello":      preface(1, link.ProtocolVersion, random(100)),
			"another version":        preface(1, 99, nil),
			"an answer":              preface(msgWelcome, link.ProtocolVersion, random(100)),
		} {
			got := v.raw(b)
			if refused := strings.HasPrefix(string(got), "CLSC"); refused != (name == "another version" || name == "a malformed Hello") {
				t.Errorf("%s: answered %q", name, got)
			}
			alive(t, guest, name)
		}
	})

	t.Run("silent peers", func(t *testing.T) {
		var silent []net.Conn
		err := p.client.Do(func() error {
			for range 200 {
				c, err := net.DialTimeout("tcp", v.addr, shortly)
				if err != nil {
					return err
				}
				silent = append(silent, c)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		alive(t, guest, "200 silent connections")
		c, err := v.greet(link.Control, link.NewSessionID(), `{"cpus":1,"memory":0}`)
		if err != nil {
			t.Fatalf("with 200 silent connections: %v", err)
		}
		c.Close()
		for _, c := range silent {
			c.Close()
		}
	})

	t.Run("asks", func(t *testing.T) {
		for _, ask := range []string{"", "{", "[]", `{"cpus":0}`, `{"cpus":-1}`, `{"cpus":1000000000000}`, `{"cpus":1,"memory":1}`,
			`{"cpus":1,"memory":-1}`, `{"cpus":1,"memory":18446744073707454464}`, `{"cpus":1,"price":1}`, `{"cpus":1}{"cpus":1}`, string(random(60000))} {
			c, err := v.greet(link.Control, link.NewSessionID(), ask)
			var refused *link.RefusedError
			if !errors.As(err, &refused) {
				t.Errorf("%.40q: %v, want a refusal", ask, err)
				if c != nil {
					c.Close()
				}
			}
		}
		for _, class := range []link.Class{link.Page, link.Interrupt, link.IO, link.Bulk} {
			if c, err := v.greet(class, link.NewSessionID(), ""); err == nil {
				t.Errorf("a %s link without a session was welcomed", class)
				c.Close()
			}
		}
		alive(t, guest, "bad asks")
	})

	t.Run("control frames", func(t *testing.T) {
		for _, tt := range []struct {
			name string
			kind uint8
			body func(l *link.Hello) []byte
		}{
			{"unknown message", 99, func(*link.Hello) []byte { return []byte("{}") }},
			{"start before setup", ctlStart, func(*link.Hello) []byte { return []byte("{}") }},
			{"report before setup", ctlReport, func(*link.Hello) []byte { return []byte("{}") }},
			{"setup: empty", ctlSetup, func(*link.Hello) []byte { return nil }},
			{"setup: random", ctlSetup, func(*link.Hello) []byte { return random(1000) }},
			{"setup: {}", ctlSetup, func(*link.Hello) []byte { return []byte("{}") }},
			{"setup: unknown field", ctlSetup, func(l *link.Hello) []byte { return setup(l, func(m map[string]any) { m["price"] = 1 }) }},
			{"setup: no CPU features", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["cpuid"] = nil })
			}},
			{"setup: random CPU features", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["cpuid"] = random(500) })
			}},
			{"setup: another node", ctlSetup, func(l *link.Hello) []byte { return setup(l, func(m map[string]any) { m["node"] = 0 }) }},
			{"setup: a node that is not there", ctlSetup, func(l *link.Hello) []byte { return setup(l, func(m map[string]any) { m["node"] = 200 }) }},
			{"setup: more CPUs than granted", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) {
					m["shares"] = []map[string]any{{"CPUs": 1, "Memory": 64 << 20}, {"CPUs": 60, "Distance": 20}}
				})
			}},
			{"setup: a thousand nodes", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["shares"] = make([]map[string]any, 1000) })
			}},
			{"setup: odd memory", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) {
					m["shares"] = []map[string]any{{"CPUs": 1, "Memory": 12345}, {"CPUs": 1, "Distance": 20}}
				})
			}},
			{"setup: dials itself", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["dial"] = []map[string]any{{"node": 1, "address": v.addr}} })
			}},
			{"setup: dials a node that is not there", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["dial"] = []map[string]any{{"node": 200, "address": v.addr}} })
			}},
			{"setup: another clock", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) { m["tsc_khz"] = l.TSCKHz + l.TSCKHz/20 })
			}},
			{"setup: no clock", ctlSetup, func(l *link.Hello) []byte { return setup(l, func(m map[string]any) { m["tsc_khz"] = 0 }) }},
			{"setup: a huge guest", ctlSetup, func(l *link.Hello) []byte {
				return setup(l, func(m map[string]any) {
					m["shares"] = []map[string]any{{"CPUs": 1, "Memory": uint64(1) << 40}, {"CPUs": 1, "Memory": 0, "Distance": 20}}
				})
			}},
			{"setup: endless hold", ctlSetup, func(l *link.Hello) []byte { return setup(l, func(m map[string]any) { m["hold_ns"] = int64(1 << 60) }) }},
		} {
			from := l.Stderr.Len()
			c, err := v.greet(link.Control, link.NewSessionID(), `{"cpus":1,"memory":0}`)
			if err != nil {
				t.Fatalf("before %q: %v", tt.name, err)
			}
			if err := c.Send(link.Header{Kind: tt.kind}, tt.body(c.Peer())); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			why := v.ended(c)
			saw(t, "%s: %s", tt.name, why)
			if !strings.HasPrefix(why, `{"error":`) || strings.Contains(why, "EOF") {
				t.Errorf("%s: the lender does not say what is wrong", tt.name)
			}
			awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
			alive(t, guest, tt.name)
		}
	})

	t.Run("a huge guest", func(t *testing.T) {
		before, err := l.Usage()
		if err != nil {
			t.Fatal(err)
		}
		from := l.Stderr.Len()
		id := link.NewSessionID()
		control, answer := v.prepare(id, func(m map[string]any) {
			m["shares"] = []map[string]any{{"CPUs": 1, "Memory": uint64(64) << 30}, {"CPUs": 1, "Memory": 0, "Distance": 20}}
		})
		during, err := l.Usage()
		if err != nil {
			t.Fatal(err)
		}
		anonymous := func(m *lab.Mapping) bool { return m.Name == "" || strings.HasPrefix(m.Name, "[") }
		grown := int64(during.Resident(anonymous)) - int64(before.Resident(anonymous))
		saw(t, "a client with 64 GiB: %s; the lender's own memory grows by %d MiB", answer, grown>>20)
		if grown > 1<<30 {
			t.Errorf("a client can make the lender use %d MiB", grown>>20)
		}
		control.CloseWrite()
		v.ended(control)
		awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
		alive(t, guest, "a huge guest")
	})

	t.Run("frames of a running session", func(t *testing.T) {
		classes := []link.Class{link.Page, link.Interrupt, link.IO}
		for _, class := range classes {
			for _, kind := range []uint8{0, 1, 2, 3, 4, 5, 6, 7, 8, 200} {
				from := l.Stderr.Len()
				id := link.NewSessionID()
				control, answer := v.prepare(id, func(map[string]any) {})
				if answer != "ready" {
					t.Fatalf("setup answered with %s", answer)
				}
				links := map[link.Class]*link.Conn{}
				for _, c := range classes {
					var err error
					if links[c], err = v.greet(c, id, ""); err != nil {
						t.Fatal(err)
					}
				}
				if err := links[class].Send(link.Header{Kind: kind}, random(int(kind))); err != nil {
					t.Error(err)
				}
				// What happens to be a good frame changes nothing for others: then it is this client's end.
				stop := time.AfterFunc(100*time.Millisecond, control.CloseWrite)
				why := v.ended(control)
				stop.Stop()
				if kind == 200 {
					saw(t, "%s: %s", class, why)
				}
				for _, c := range links {
					c.Close()
				}
				awaitFrom(t, l.Stderr, from, shortly, product.SessionEnded)
			}
			alive(t, guest, class.String()+" frames")
		}
	})

	// Everything is there to be lent again, to a proper client.
	c := p.run(t, "--kernel", script(t, "hello\n", bare.PowerOff), "--memory", "64M", p.borrow("cpus=1,memory=64M"))
	exit(t, c, shortly, 0)
	alive(t, guest, "all of it")
	guest.Signal(unix.SIGINT)
	exit(t, guest, shortly, 1)
	if e := strings.Count(l.Stderr.String(), "panic"); e > 0 {
		t.Errorf("the lender's log speaks of %d panics", e)
	}
	l.Signal(unix.SIGINT)
	exit(t, l.Process, shortly, 0)
	saw(t, "the guest beside went on, and all was lent again")
}
