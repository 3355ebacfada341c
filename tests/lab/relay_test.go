package lab

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// through returns the two ends of a connection by way of a relay.
func through(t *testing.T, p Path) (r *Relay, near, far net.Conn) {
	t.Helper()
	_, h, _, _ := newLab(t, nil)
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if r, err = h.Relay("127.0.0.1:0", ln.Addr().String(), p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := h.Do(func() (err error) { near, err = net.Dial("tcp", r.Addr); return err }); err != nil {
		t.Fatal(err)
	}
	if far, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return r, near, far
}

// Everything comes, in order, both ways; the end of one way comes after it and leaves the other open.
func TestRelayPasses(t *testing.T) {
	r, near, far := through(t, Path{Delay: time.Millisecond, Loss: 0.01, Stall: 5 * time.Millisecond, Seed: 7})
	sent := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(sent)
	var sending sync.WaitGroup
	for _, c := range []net.Conn{near, far} {
		sending.Go(func() {
			if _, err := c.Write(sent); err != nil {
				t.Error(err)
			}
			if c == near {
				near.(*net.TCPConn).CloseWrite()
			}
		})
	}
	got, err := io.ReadAll(far)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came over, or others: %v", len(got), len(sent), err)
	}
	got = make([]byte, len(sent))
	if _, err := io.ReadFull(near, got); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("back: %v", err)
	}
	sending.Wait()
	passed, lost := r.Segments()
	if least := uint64(2 * len(sent) / segmentSize); passed < least || lost < passed/500 || lost > passed/20 {
		t.Errorf("%d segments, at least %d in all of it; %d lost of 1 %%", passed, least, lost)
	}
}

// Each way takes the delay, and not much more; a lost segment takes the stall.
func TestRelayDelays(t *testing.T) {
	for _, p := range []Path{{Delay: 20 * time.Millisecond}, {Delay: time.Millisecond}, {Delay: time.Millisecond, Loss: 1, Stall: 30 * time.Millisecond}} {
		_, near, far := through(t, p)
		go io.Copy(far, far)
		least, want := time.Hour, 2*p.Delay
		if p.Loss > 0 {
			want += 2 * p.Stall
		}
		for range 10 {
			start := time.Now()
			if _, err := near.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(near, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			if took < want {
				t.Errorf("%+v: there and back in %v", p, took)
			}
			least = min(least, took)
		}
		t.Logf("%+v: there and back in %v at least", p, least)
		// Less than the delay twice over; an emulated host adds some milliseconds of its own.
		if least > want+30*time.Millisecond {
			t.Errorf("%+v: there and back in %v at best", p, least)
		}
	}
}

// A connection to nobody ends, and so does one whose other end goes.
func TestRelayEnds(t *testing.T) {
	_, near, far := through(t, Path{})
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := near.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from nobody", n)
	}
	_, h, _, _ := newLab(t, nil)
	r, err := h.Relay("127.0.0.1:0", "127.0.0.1:9", Path{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var c net.Conn
	if err := h.Do(func() (err error) { c, err = net.Dial("tcp", r.Addr); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from nobody", n)
	}
}
