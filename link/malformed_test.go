package link

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMalformedFrameEndsTheConnectionOnBothSides(t *testing.T) {
	pong := make([]byte, pongSize)
	for _, test := range []struct {
		name string
		raw  []byte
		says string
	}{
		{"reserved byte", set(frame(Header{Kind: 1, Seq: 1}, ""), 6, 1), "reserved"},
		{"payload above the class's bound", frame(Header{Kind: 1, Seq: 1}, strings.Repeat("x", Interrupt.MaxPayload()+1)), "at most 1024"},
		{"length of 4 GiB", set(frame(Header{Kind: 1, Seq: 1}, ""), 3, 0xff), "at most 1024"},
		{"sequence starts wrong", frame(Header{Kind: 1, Seq: 2}, ""), "sequence number 2 after 0"},
		{"sequence repeats", append(frame(Header{Kind: kindPing, Seq: 1}, "12345678"), frame(Header{Kind: 1, Seq: 1}, "")...), "sequence number 1 after 1"},
		{"unknown kind of ours", frame(Header{Kind: 0xFF, Seq: 1}, ""), "no such frame"},
		{"short ping", frame(Header{Kind: kindPing, Seq: 1}, "1234567"), "no such frame"},
		{"long ping", frame(Header{Kind: kindPing, Seq: 1}, strings.Repeat("x", maxAbort+1)), "at most 1024"},
		{"pong to no ping", frame(Header{Kind: kindPong, Seq: 1}, string(pong)), "a pong to no ping"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, raw := rawPipe(t, Interrupt, Options{})
			put(t, raw, test.raw)
			var h Header
			_, err := c.Recv(&h, make([]byte, Interrupt.MaxPayload()))
			var fe *FrameError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), test.says) || fe.Class != Interrupt {
				t.Fatalf("Recv: %v, want a *FrameError that says %q", err, test.says)
			}
			if again := c.Send(Header{Kind: 1}); again != err {
				t.Errorf("Send after it: %v, want the same", again)
			}
			// The sender is told. (A pong to the valid ping may come before.)
			answer := drain(t, raw)
			for answer[4] == kindPong {
				answer = answer[HeaderSize+pongSize:]
			}
			if answer[4] != kindAbort || !strings.Contains(string(answer[HeaderSize:]), test.says) {
				t.Errorf("the sender reads %q", answer)
			}
		})
	}
}

// drain returns what a raw end reads up to its end.
func drain(t *testing.T, fd int) []byte {
	t.Helper()
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := readBlocking(fd, buf)
		if err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
		if n == 0 {
			return all
		}
		all = append(all, buf[:n]...)
	}
}

func TestPongToTheWrongPing(t *testing.T) {
	c, raw := rawPipe(t, Control, Options{})
	if err := c.Ping(); err != nil {
		t.Fatal(err)
	}
	put(t, raw, frame(Header{Kind: kindPong, Seq: 1}, strings.Repeat("x", pongSize)))
	var h Header
	var fe *FrameError
	if _, err := c.Recv(&h, nil); !errors.As(err, &fe) {
		t.Errorf("Recv: %v, want a *FrameError", err)
	}
}

func TestPongWithSenselessStampsIsDropped(t *testing.T) {
	now := uint64(1000)
	c, raw := rawPipe(t, Control, Options{Clock: func() uint64 { now += 100; return now }})
	seq := uint64(0)
	pong := func(t1, t2, t3 uint64) []byte {
		seq++
		var p []byte
		for _, v := range []uint64{t1, t2, t3} {
			p = binary.LittleEndian.AppendUint64(p, v)
		}
		return frame(Header{Kind: kindPong, Seq: seq}, string(p))
	}
	for range 3 { // at 1100, 1200, 1300
		if err := c.Ping(); err != nil {
			t.Fatal(err)
		}
	}
	put(t, raw, pong(1100, 50, 49))          // answered before it came
	put(t, raw, pong(1200, 0, 1_000_000))    // held longer than it was away
	put(t, raw, pong(1300, 1<<63, 1<<63+80)) // sane: back at 1600, so RTT 220
	put(t, raw, frame(Header{Kind: 1, Seq: 4}, ""))
	var h Header
	if _, err := c.Recv(&h, nil); err != nil {
		t.Fatal(err)
	}
	if r := c.RTT(); r != (RTTStats{Last: 220, Min: 220, WindowMin: 220, Smoothed: 220, N: 1}) {
		t.Errorf("RTT = %+v", r)
	}
	offset, bound, ok := c.Offset()
	if want := int64(1<<63 - 1300 - 110); !ok || bound != 110 || offset != want {
		t.Errorf("offset %d, bound %d, %v; want %d", offset, bound, ok, want)
	}
	if n := c.Stats().PingsDropped; n != 2 {
		t.Errorf("%d pings dropped, want 2", n)
	}
}

func TestSampleArithmetic(t *testing.T) {
	for _, test := range []struct {
		s      Sample
		rtt    uint64
		offset int64
		bound  uint64
	}{
		{Sample{100, 1100, 1150, 250}, 100, 950, 50},         // both ways 50, the peer 950 ahead
		{Sample{1100, 100, 150, 1250}, 100, -1050, 50},       // the peer 1050 behind
		{Sample{100, 100, 100, 101}, 1, 0, 1},                // rounding stays within the bound
		{Sample{5, 1 << 40, 1<<40 + 7, 20}, 8, 1<<40 - 9, 4}, // far apart
	} {
		s := test.s
		if s.RTT() != test.rtt || s.Offset() != test.offset || s.ErrBound() != test.bound || !s.sane() {
			t.Errorf("%+v: RTT %d, offset %d, bound %d", s, s.RTT(), s.Offset(), s.ErrBound())
		}
	}
}

func TestWindowForgetsAndTheMinimumDoesNot(t *testing.T) {
	var p pings
	p.add(Sample{0, 5, 5, 10})
	for range pingWindow {
		p.add(Sample{0, 40, 40, 80})
	}
	best, _ := p.best(pingWindow)
	if p.min != 10 || best.RTT() != 80 || p.n != pingWindow+1 {
		t.Errorf("min %d, window %d, n %d", p.min, best.RTT(), p.n)
	}
	if s := p.smoothed / smoothing; s < 70 || s > 80 {
		t.Errorf("smoothed %d, want near 80", s)
	}
}

func TestStreamEndsInsideAFrame(t *testing.T) {
	long := frame(Header{Kind: 1, Seq: 1}, strings.Repeat("x", 40_000))
	ping := frame(Header{Kind: kindPing, Seq: 1}, "12345678")
	for _, cut := range [][]byte{
		long[:1], long[:HeaderSize-1], long[:HeaderSize], long[:HeaderSize+1], long[:len(long)-1],
		ping[:HeaderSize], ping[:len(ping)-1],
	} {
		c, raw := rawPipe(t, Page, Options{})
		put(t, raw, cut)
		if err := unix.Shutdown(raw, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		var h Header
		if _, err := c.Recv(&h, make([]byte, Page.MaxPayload())); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %d bytes: %v, want io.ErrUnexpectedEOF", len(cut), err)
		}
		if c.Err() == nil {
			t.Errorf("after %d bytes: the connection has not stopped", len(cut))
		}
	}
}

func TestAddrText(t *testing.T) {
	for _, test := range []struct {
		sa   unix.Sockaddr
		want string
	}{
		{&unix.SockaddrInet4{Port: 80, Addr: [4]byte{10, 0, 0, 1}}, "10.0.0.1:80"},
		{&unix.SockaddrInet6{Port: 81, Addr: [16]byte{15: 1}}, "[::1]:81"},
		{&unix.SockaddrInet6{Port: 82, Addr: [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 2}}, "10.0.0.2:82"},
		{&unix.SockaddrUnix{}, "a unix socket"},
		{nil, "an unknown address"},
	} {
		if got := addrText(test.sa, nil); got != test.want {
			t.Errorf("%+v is %q, want %q", test.sa, got, test.want)
		}
	}
}

func TestFramesArriveByteByByte(t *testing.T) {
	c, raw := rawPipe(t, Page, Options{})
	var stream []byte
	for i := range 20 {
		stream = append(stream, frame(Header{Kind: uint8(i), Seq: uint64(i + 1)}, strings.Repeat("y", i*7))...)
	}
	go func() {
		for i := range stream {
			writeBlocking(raw, stream[i:i+1])
		}
	}()
	buf := make([]byte, 200)
	for i := range 20 {
		var h Header
		p, err := c.Recv(&h, buf)
		if err != nil || int(h.Kind) != i || len(p) != i*7 {
			t.Fatalf("frame %d: %+v, %d bytes, %v", i, h, len(p), err)
		}
	}
}

// FuzzRecv feeds a connection whatever a peer may send.
func FuzzRecv(f *testing.F) {
	f.Add(uint8(Page), frame(Header{Kind: 1, Seq: 1, TSC: 9}, "payload"))
	f.Add(uint8(Interrupt), append(frame(Header{Kind: kindPing, Seq: 1}, "12345678"), frame(Header{Kind: 2, Seq: 2}, "x")...))
	f.Add(uint8(Control), frame(Header{Kind: kindAbort, Seq: 1}, "no \x1b reason"))
	f.Add(uint8(IO), frame(Header{Kind: kindPong, Seq: 1}, strings.Repeat("p", pongSize)))
	f.Add(uint8(Bulk), frame(Header{Kind: 3, Seq: 1}, strings.Repeat("z", 20_000))[:10_000])
	buf := make([]byte, Bulk.MaxPayload())
	f.Fuzz(func(t *testing.T, class uint8, stream []byte) {
		if len(stream) > 100_000 {
			return // must fit the socket: nobody reads while it is written
		}
		c, raw := rawPipe(t, Class(class%uint8(NumClasses)), Options{})
		put(t, raw, stream)
		unix.Shutdown(raw, unix.SHUT_WR)
		var h Header
		for n := 0; ; n++ {
			p, err := c.Recv(&h, buf)
			if err != nil {
				if !errors.Is(err, io.EOF) && c.Err() == nil {
					t.Errorf("%v, and the connection has not stopped", err)
				}
				return
			}
			if len(p) > c.Class().MaxPayload() || h.Kind >= KindReserved || len(p) != int(h.Len) {
				t.Errorf("frame %d: %+v with %d bytes", n, h, len(p))
			}
		}
	})
}
