package link_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"coalesce/link"
	"coalesce/link/linktest"

	"golang.org/x/sys/unix"
)

// pipes runs f over a socket pair and over TCP.
func pipes(t *testing.T, class link.Class, opts link.Options, f func(t *testing.T, a, b *link.Conn)) {
	for name, pipe := range map[string]func(testing.TB, link.Class, link.Options, link.Options) (a, b *link.Conn){
		"socketpair": linktest.Pipe,
		"tcp":        linktest.PipeTCP,
	} {
		t.Run(name, func(t *testing.T) {
			linktest.CheckLeaks(t)
			a, b := pipe(t, class, opts, opts)
			f(t, a, b)
		})
	}
}

func mustSend(t testing.TB, c *link.Conn, h link.Header, payload ...[]byte) {
	t.Helper()
	if err := c.Send(h, payload...); err != nil {
		t.Fatal(err)
	}
}

func mustRecv(t testing.TB, c *link.Conn, buf []byte) (link.Header, []byte) {
	t.Helper()
	var h link.Header
	p, err := c.Recv(&h, buf)
	if err != nil {
		t.Fatal(err)
	}
	return h, p
}

func TestFramesArriveAsSent(t *testing.T) {
	pipes(t, link.Bulk, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		r := rand.New(rand.NewPCG(1, 2))
		content := make([]byte, link.Bulk.MaxPayload())
		for i := range content {
			content[i] = byte(r.Uint32())
		}
		// Around every size the receiver treats specially, empty and largest included.
		sizes := []int{0, 1, 31, 32, 33, 4096, 16<<10 - 1, 16 << 10, 16<<10 + 1, 64<<10 - 1, 64 << 10,
			64<<10 + 1, 66_000, 67_000, 1 << 20, link.Bulk.MaxPayload()}
		for range 50 {
			sizes = append(sizes, r.IntN(100_000))
		}
		sent := make(chan error, 1)
		go func() {
			for i, n := range sizes {
				cut := n / 3
				if err := a.Send(link.Header{Kind: uint8(i), Flags: 7, View: uint32(i), Interval: 9, TSC: uint64(n)},
					content[:cut], nil, content[cut:n]); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		buf := make([]byte, link.Bulk.MaxPayload())
		for i, n := range sizes {
			h, p := mustRecv(t, b, buf)
			want := link.Header{Len: uint32(n), Kind: uint8(i), Flags: 7, View: uint32(i), Interval: 9, TSC: uint64(n), Seq: uint64(i + 1)}
			if h != want {
				t.Fatalf("frame %d: header %+v, want %+v", i, h, want)
			}
			if !bytes.Equal(p, content[:n]) {
				t.Fatalf("frame %d: %d bytes differ from what was sent", i, n)
			}
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		out, in := a.Stats(), b.Stats()
		if out.FramesOut != uint64(len(sizes)) || in.FramesIn != out.FramesOut || in.BytesIn != out.BytesOut {
			t.Errorf("sender counts %+v, receiver %+v, for %d frames", out, in, len(sizes))
		}
		if out.SentInline+out.SentQueued != out.FramesOut {
			t.Errorf("inline and queued frames do not add up: %+v", out)
		}
	})
}

func TestConcurrentSendsStayWholeAndInOrder(t *testing.T) {
	pipes(t, link.Page, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		const senders, frames = 4, 500
		var wg sync.WaitGroup
		for s := range senders {
			wg.Go(func() {
				payload := bytes.Repeat([]byte{byte(s)}, 8000)
				for i := range frames {
					// The size varies so that a torn frame cannot look right.
					if err := a.Send(link.Header{Kind: uint8(s), View: uint32(i)}, payload[:(i*37)%len(payload)]); err != nil {
						t.Errorf("sender %d: %v", s, err)
						return
					}
				}
			})
		}
		var next [senders]uint32
		buf := make([]byte, link.Page.MaxPayload())
		for range senders * frames {
			h, p := mustRecv(t, b, buf)
			if h.View != next[h.Kind] {
				t.Fatalf("sender %d: frame %d where %d was due", h.Kind, h.View, next[h.Kind])
			}
			next[h.Kind]++
			if len(p) != int(h.View)*37%8000 || len(bytes.Trim(p, string([]byte{h.Kind}))) != 0 {
				t.Fatalf("sender %d, frame %d: wrong payload", h.Kind, h.View)
			}
		}
		wg.Wait()
	})
}

func TestSendDoesNotWaitForASlowPeer(t *testing.T) {
	pipes(t, link.Bulk, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		// Nobody receives yet. Far more than any socket buffer; returning is the test.
		const frames, size = 40, 1 << 20
		payload := make([]byte, size)
		for i := range frames {
			binary.LittleEndian.PutUint64(payload, uint64(i))
			mustSend(t, a, link.Header{Kind: 1}, payload)
		}
		a.CloseWrite() // must not overtake what is queued
		a.CloseWrite()
		if err := a.Send(link.Header{Kind: 1}); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Send after CloseWrite: %v, want ErrClosed", err)
		}
		buf := make([]byte, size)
		for i := range frames {
			_, p := mustRecv(t, b, buf)
			if len(p) != size || binary.LittleEndian.Uint64(p) != uint64(i) {
				t.Fatalf("frame %d arrives as %d with %d bytes", i, binary.LittleEndian.Uint64(p), len(p))
			}
		}
		var h link.Header
		if _, err := b.Recv(&h, buf); err != io.EOF {
			t.Errorf("after the last frame: %v, want io.EOF", err)
		}
		s := a.Stats()
		if s.SentQueued == 0 || s.QueuedHigh == 0 {
			t.Errorf("nothing was queued: %+v", s)
		}
		// The other direction still works.
		mustSend(t, b, link.Header{Kind: 2}, []byte("goodbye"))
		if _, p := mustRecv(t, a, buf); string(p) != "goodbye" {
			t.Errorf("the other direction brings %q", p)
		}
	})
}

func TestBacklogEndsTheConnection(t *testing.T) {
	pipes(t, link.Bulk, link.Options{MaxQueued: 4 << 20}, func(t *testing.T, a, b *link.Conn) {
		payload := make([]byte, 1<<20)
		var err error
		for i := 0; err == nil && i < 100; i++ {
			err = a.Send(link.Header{Kind: 1}, payload)
		}
		if !errors.Is(err, link.ErrBacklog) {
			t.Fatalf("Send: %v, want ErrBacklog", err)
		}
		if high := a.Stats().QueuedHigh; high > 4<<20 {
			t.Errorf("%d bytes were queued, at most %d allowed", high, 4<<20)
		}
		var h link.Header
		if _, err := a.Recv(&h, nil); !errors.Is(err, link.ErrBacklog) {
			t.Errorf("Recv after it: %v, want ErrBacklog", err)
		}
		if err := a.Send(link.Header{Kind: 1}); !errors.Is(err, link.ErrBacklog) {
			t.Errorf("Send after it: %v, want ErrBacklog", err)
		}
		if err := a.Err(); !errors.Is(err, link.ErrBacklog) {
			t.Errorf("Err: %v, want ErrBacklog", err)
		}
	})
}

func TestSendBounds(t *testing.T) {
	for class := range link.NumClasses {
		a, b := linktest.Pipe(t, class, link.Options{}, link.Options{})
		limit := class.MaxPayload()
		for _, test := range []struct {
			name    string
			kind    uint8
			payload [][]byte
			want    error
		}{
			{"one byte too many", 1, [][]byte{make([]byte, limit), {0}}, link.ErrTooLong},
			{"reserved kind", link.KindReserved, nil, link.ErrReservedKind},
			{"last kind", 0xFF, nil, link.ErrReservedKind},
			{"too many parts", 1, make([][]byte, link.MaxParts+1), link.ErrParts},
		} {
			if err := a.Send(link.Header{Kind: test.kind}, test.payload...); !errors.Is(err, test.want) {
				t.Errorf("%v, %s: %v, want %v", class, test.name, err, test.want)
			}
		}
		// None of it did any harm, and the most that is allowed goes through.
		parts := make([][]byte, link.MaxParts)
		parts[link.MaxParts-1] = make([]byte, limit)
		mustSend(t, a, link.Header{Kind: link.KindReserved - 1}, parts...)
		if h, p := mustRecv(t, b, make([]byte, limit)); len(p) != limit || h.Kind != link.KindReserved-1 {
			t.Errorf("%v: the largest frame arrives as %+v", class, h)
		}
	}
}

func TestRecvKeepsAFrameTooLongForTheBuffer(t *testing.T) {
	pipes(t, link.Control, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		mustSend(t, a, link.Header{Kind: 5}, make([]byte, 100_000))
		mustSend(t, a, link.Header{Kind: 6})
		var h link.Header
		for range 2 {
			if _, err := b.Recv(&h, make([]byte, 99_999)); !errors.Is(err, link.ErrTooLong) || h.Kind != 5 || h.Len != 100_000 {
				t.Fatalf("%+v, %v; want ErrTooLong and the header", h, err)
			}
		}
		if _, p := mustRecv(t, b, make([]byte, h.Len)); len(p) != 100_000 {
			t.Errorf("then %d bytes", len(p))
		}
		if h, p := mustRecv(t, b, nil); h.Kind != 6 || len(p) != 0 {
			t.Errorf("an empty frame arrives as %+v", h)
		}
	})
}

func TestCloseWakesReaderAndWriter(t *testing.T) {
	pipes(t, link.Bulk, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		// The writer is blocked: the peer does not read.
		payload := make([]byte, 1<<20)
		for a.Stats().SentQueued == 0 {
			mustSend(t, a, link.Header{Kind: 1}, payload)
		}
		started := make(chan int)
		got := make(chan error)
		go func() {
			started <- unix.Gettid()
			var h link.Header
			_, err := a.Recv(&h, payload)
			got <- err
		}()
		awaitBlockedInRead(t, <-started)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { a.Close() })
		}
		wg.Wait()
		if err := <-got; !errors.Is(err, link.ErrClosed) {
			t.Errorf("Recv: %v, want ErrClosed", err)
		}
		if err := a.Send(link.Header{Kind: 1}); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Send after Close: %v, want ErrClosed", err)
		}
		var h link.Header
		if _, err := a.Recv(&h, nil); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Recv after Close: %v, want ErrClosed", err)
		}
		if err := a.Ping(); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Ping after Close: %v, want ErrClosed", err)
		}
		a.CloseWrite()
		a.Abort(errors.New("too late"))
		if err := a.Err(); !errors.Is(err, link.ErrClosed) {
			t.Errorf("Err after Close: %v, want ErrClosed", err)
		}
	})
}

func TestFlush(t *testing.T) {
	pipes(t, link.Bulk, link.Options{MaxQueued: 6 << 20}, func(t *testing.T, a, b *link.Conn) {
		// Ten times what may be queued goes through a sender that flushes.
		const frames = 60
		payload := make([]byte, 1<<20)
		sent := make(chan error, 1)
		go func() {
			var err error
			for i := 0; err == nil && i < frames; i++ {
				if err = a.Send(link.Header{Kind: 1}, payload); err == nil {
					err = a.Flush(context.Background())
				}
			}
			sent <- err
		}()
		buf := make([]byte, 1<<20)
		for range frames {
			mustRecv(t, b, buf)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}

		// The peer stops reading: Flush waits, and ends with its context.
		ctx, cancel := context.WithCancel(context.Background())
		for a.Stats().SentQueued == 0 || a.Flush(canceled()) == nil {
			mustSend(t, a, link.Header{Kind: 1}, payload)
		}
		got := make(chan error, 1)
		go func() { got <- a.Flush(ctx) }()
		cancel()
		if err := <-got; err != context.Canceled {
			t.Errorf("Flush: %v, want context.Canceled", err)
		}
		// So it does with the connection.
		go func() { got <- a.Flush(context.Background()) }()
		a.Close()
		if err := <-got; !errors.Is(err, link.ErrClosed) {
			t.Errorf("Flush of a closed connection: %v", err)
		}
	})
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// awaitBlockedInRead returns once thread tid sleeps in read(2). It makes a test
// likelier to meet the state it is about; no test passes because of it.
func awaitBlockedInRead(t *testing.T, tid int) {
	for range 10_000 {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		if err != nil {
			return // not shown here
		}
		if bytes.HasPrefix(b, fmt.Appendf(nil, "%d ", syscall.SYS_READ)) {
			return
		}
		time.Sleep(100 * time.Microsecond)
	}
}

func TestCloseWhileEverythingRuns(t *testing.T) {
	pipes(t, link.Page, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		// Every call at once from many goroutines, ended by Close from both sides.
		var wg sync.WaitGroup
		enough := make(chan error, 2)
		for _, end := range [][2]*link.Conn{{a, b}, {b, a}} {
			c, peer := end[0], end[1]
			for range 2 {
				wg.Go(func() {
					payload := make([]byte, 4096)
					for c.Send(link.Header{Kind: 1}, payload) == nil {
						c.Ping()
						c.Offset()
						for c.Err() == nil && c.Stats().FramesOut > peer.Stats().FramesIn+1000 {
							runtime.Gosched() // else the queue would overflow
						}
					}
				})
			}
			wg.Go(func() {
				buf := make([]byte, link.Page.MaxPayload())
				var h link.Header
				var err error
				for range 1000 {
					if _, err = c.Recv(&h, buf); err != nil {
						break
					}
				}
				enough <- err
				for err == nil {
					_, err = c.Recv(&h, buf)
				}
			})
		}
		for range 2 {
			if err := <-enough; err != nil {
				t.Errorf("before any Close: %v", err)
			}
		}
		wg.Go(func() { a.Close() })
		wg.Go(func() { b.Close() })
		wg.Wait()
	})
}

func TestPeersEndSeenByRecv(t *testing.T) {
	pipes(t, link.Control, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		mustSend(t, a, link.Header{Kind: 1}, []byte("last words"))
		a.Close()
		// Sends find the peer gone; what it said before still arrives.
		var err error
		for err == nil {
			err = b.Send(link.Header{Kind: 2}, make([]byte, 1000))
		}
		if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("Send to a closed peer: %v", err)
		}
		if _, p := mustRecv(t, b, make([]byte, 100)); string(p) != "last words" {
			t.Errorf("received %q", p)
		}
		var h link.Header
		if _, again := b.Recv(&h, nil); again == nil || again == io.EOF {
			t.Errorf("Recv after the last frame: %v, want why Send failed", again)
		}
		if b.Err() == nil {
			t.Error("the connection has not stopped")
		}
	})
}

func TestAbortTellsThePeer(t *testing.T) {
	pipes(t, link.IO, link.Options{}, func(t *testing.T, a, b *link.Conn) {
		mustSend(t, a, link.Header{Kind: 1})
		why := errors.New("port 0x3f9 answered twice\nor so")
		a.Abort(why)
		if err := a.Send(link.Header{Kind: 1}); err != why {
			t.Errorf("own Send: %v, want the reason", err)
		}
		mustRecv(t, b, nil)
		var h link.Header
		_, err := b.Recv(&h, nil)
		var ab *link.AbortError
		if !errors.As(err, &ab) || ab.Reason != "port 0x3f9 answered twice\uFFFDor so" {
			t.Errorf("the peer's Recv: %v", err)
		}
		if err := b.Send(link.Header{Kind: 1}); !errors.As(err, &ab) {
			t.Errorf("the peer's Send: %v, want the *AbortError", err)
		}
	})
}

func TestVanishedPeerIsAnError(t *testing.T) {
	for _, test := range []struct {
		name string
		send bool
	}{{"idle", false}, {"with data unacknowledged", true}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, b := linktest.PipeTCP(t, link.Page, link.Options{}, link.Options{KeepAlive: -1})
			silence(t, link.FD(b))
			begin := time.Now()
			if test.send {
				mustSend(t, a, link.Header{Kind: 1}, make([]byte, 4096))
			}
			var h link.Header
			_, err := a.Recv(&h, nil)
			took := time.Since(begin)
			if !errors.Is(err, link.ErrVanished) {
				t.Errorf("Recv: %v, want ErrVanished", err)
			}
			// Probes go out by whole seconds, and a busy machine is late for each.
			if took > 5*time.Second {
				t.Errorf("noticed after %v, at most 5 s allowed", took)
			}
			t.Logf("noticed after %v: %v", took, err)
		})
	}
}

// silence makes a TCP socket drop every segment that comes, as if its host were gone.
func silence(t *testing.T, fd int) {
	t.Helper()
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	prog := unix.SockFprog{Len: 1, Filter: &drop[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsAllocated(t *testing.T) {
	a, b := linktest.Pipe(t, link.Page, link.Options{}, link.Options{})
	page, head := make([]byte, 4096), make([]byte, 16)
	buf := make([]byte, link.Page.MaxPayload())
	var h link.Header
	for name, f := range map[string]func(){
		"send and receive": func() {
			if a.Send(link.Header{Kind: 1, TSC: 5}, head, page) != nil {
				t.Error("Send failed")
			}
			if _, err := b.Recv(&h, buf); err != nil {
				t.Error(err)
			}
		},
		"send, ping, pong, receive": func() {
			if a.Ping() != nil || a.Send(link.Header{Kind: 1}, page) != nil {
				t.Error("Ping or Send failed")
			}
			if _, err := b.Recv(&h, buf); err != nil {
				t.Error(err)
			}
			if b.Send(link.Header{Kind: 1}) != nil {
				t.Error("Send failed")
			}
			if _, err := a.Recv(&h, buf); err != nil {
				t.Error(err)
			}
			a.Offset()
		},
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if s := b.Stats(); s.Reads > s.FramesIn {
		t.Errorf("%d reads for %d frames: more than one each", s.Reads, s.FramesIn)
	}
}

func TestConnSaysWhoItIs(t *testing.T) {
	a, b := linktest.PipeTCP(t, link.IO, link.Options{}, link.Options{})
	if a.Class() != link.IO || b.Class() != link.IO {
		t.Errorf("classes %v and %v", a.Class(), b.Class())
	}
	if a.LocalAddr() != b.RemoteAddr() || a.RemoteAddr() != b.LocalAddr() {
		t.Errorf("addresses %s, %s and %s, %s", a.LocalAddr(), a.RemoteAddr(), b.LocalAddr(), b.RemoteAddr())
	}
	if p, q := a.Peer(), b.Peer(); p.From != 1 || p.To != 0 || q.From != 0 || q.To != 1 || p.Session != q.Session {
		t.Errorf("peers %+v and %+v", p, q)
	}
	if err := a.Err(); err != nil {
		t.Errorf("Err: %v", err)
	}
}

func TestNewConnOwnsTheDescriptor(t *testing.T) {
	linktest.CheckLeaks(t)
	for name, opts := range map[string]struct {
		class link.Class
		opts  link.Options
	}{
		"no class":              {link.NumClasses, link.Options{}},
		"no congestion control": {link.Page, link.Options{Congestion: "no-such-thing"}},
	} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := link.NewConn(fd, link.Hello{Class: opts.class}, opts.opts); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAwaitPings(t *testing.T) {
	const ahead = 1 << 62 // the peer's clock's zero is far away
	start := time.Now()
	now := func() uint64 { return uint64(time.Since(start)) }
	linktest.CheckLeaks(t)
	a, b := linktest.PipeTCP(t, link.Control, link.Options{Clock: now},
		link.Options{Clock: func() uint64 { return now() + ahead }})
	if _, _, ok := a.Offset(); ok || a.RTT() != (link.RTTStats{}) {
		t.Error("measured before the first ping")
	}
	var readers sync.WaitGroup
	for _, c := range []*link.Conn{a, b} {
		readers.Go(func() {
			var h link.Header
			if _, err := c.Recv(&h, nil); !errors.Is(err, link.ErrClosed) && err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("Recv: %v", err)
			}
		})
	}
	const n = 100
	begin := now()
	if err := a.AwaitPings(context.Background(), n); err != nil {
		t.Fatal(err)
	}
	took := now() - begin
	r := a.RTT()
	if r.N != n || r.Min == 0 || r.Min > r.WindowMin || r.WindowMin > r.Smoothed || r.Last < r.Min || r.Min*n > took {
		t.Errorf("after %d pings in %d ns: %+v", n, took, r)
	}
	offset, bound, ok := a.Offset()
	if off := offset - ahead; !ok || max(off, -off) > int64(bound) {
		t.Errorf("offset %d, at most %d off, %v; the clocks are %d apart", offset, bound, ok, int64(ahead))
	}
	if s := b.Stats(); s.PingsAnswered != n || a.Stats().PingsDropped != 0 {
		t.Errorf("%d pings answered, %d dropped", s.PingsAnswered, a.Stats().PingsDropped)
	}

	// Waiting ends with the connection, on either side.
	a.Close()
	if err := a.AwaitPings(context.Background(), 1); !errors.Is(err, link.ErrClosed) {
		t.Errorf("AwaitPings after Close: %v", err)
	}
	readers.Wait()
}

func TestAwaitPingsEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(a, b *link.Conn, cancel func())
		want error
	}{
		{"context", func(_, _ *link.Conn, cancel func()) { cancel() }, context.Canceled},
		{"own Close", func(a, _ *link.Conn, _ func()) { a.Close() }, link.ErrClosed},
		{"peer's end", func(_, b *link.Conn, _ func()) { b.CloseWrite() }, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			linktest.CheckLeaks(t)
			a, b := linktest.Pipe(t, link.Control, link.Options{}, link.Options{})
			done := make(chan struct{})
			go func() {
				defer close(done)
				var h link.Header
				a.Recv(&h, nil)
			}()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			got := make(chan error, 1)
			go func() { got <- a.AwaitPings(ctx, 1) }() // b never answers: nobody receives there
			test.end(a, b, cancel)
			if err := <-got; !errors.Is(err, test.want) {
				t.Errorf("%v, want %v", err, test.want)
			}
			a.Close()
			<-done
		})
	}
}

func TestPingsAreBounded(t *testing.T) {
	a, _ := linktest.Pipe(t, link.Control, link.Options{}, link.Options{})
	var err error
	n := 0
	for ; err == nil && n < 1000; n++ {
		err = a.Ping()
	}
	if !errors.Is(err, link.ErrPings) || n != 65 {
		t.Errorf("ping %d: %v, want ErrPings at the 65th", n, err)
	}
}
