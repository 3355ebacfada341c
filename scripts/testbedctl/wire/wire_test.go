package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	var stream bytes.Buffer
	w := NewWriter(&stream)
	long := bytes.Repeat([]byte("0123456789"), 20_000) // several frames
	for _, s := range []struct {
		kind            Kind
		prefix, payload []byte
	}{{Hello, nil, []byte("{}")}, {Stdout, nil, long}, {File, []byte{3}, long}, {File, []byte{3}, nil}, {Signal, nil, []byte{15}}} {
		if err := w.Send(s.kind, s.prefix, s.payload); err != nil {
			t.Fatal(err)
		}
	}
	got := map[Kind][]byte{}
	ends := 0
	r := NewReader(&stream)
	for {
		kind, payload, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if kind == File {
			if payload[0] != 3 {
				t.Fatalf("file index is %d, want 3", payload[0])
			}
			if payload = payload[1:]; len(payload) == 0 {
				ends++
			}
		}
		got[kind] = append(got[kind], payload...)
	}
	if !bytes.Equal(got[Stdout], long) || !bytes.Equal(got[File], long) {
		t.Errorf("a long payload was changed: %d and %d bytes, want %d", len(got[Stdout]), len(got[File]), len(long))
	}
	if ends != 1 || string(got[Hello]) != "{}" || string(got[Signal]) != "\x0f" {
		t.Errorf("got %d ends, hello %q, signal %q", ends, got[Hello], got[Signal])
	}
}

func TestBadStream(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   error
	}{
		"empty":             {"", io.EOF},
		"unknown kind":      {"\x00\x00\x00\x00\x00", ErrFrame},
		"between the kinds": {"\x40\x00\x00\x00\x00", ErrFrame},
		"too long":          {"\x02\x01\x00\x01\x00", ErrFrame},
		"cut head":          {"\x02\x01", io.ErrUnexpectedEOF},
		"no payload":        {"\x02\x01\x00\x00\x00", io.ErrUnexpectedEOF},
		"cut payload":       {"\x02\x02\x00\x00\x00a", io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := NewReader(bytes.NewReader([]byte(c.stream))).Next(); !errors.Is(err, c.want) {
				t.Errorf("error is %v, want %v", err, c.want)
			}
		})
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("\x02\x02\x00\x00\x00ab\x08\x02\x00\x00\x00{}"))
	f.Add([]byte("\x02\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(bytes.NewReader(stream))
		read := 0
		for {
			_, payload, err := r.Next()
			if err != nil {
				break
			}
			read += 5 + len(payload)
		}
		if read > len(stream) {
			t.Errorf("%d bytes came out of %d", read, len(stream))
		}
	})
}
