package link

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
)

var sampleHeader = Header{
	Len: 0x01020304, Kind: 0x11, Flags: 0x22, View: 0x31323334, Interval: 0x41424344,
	TSC: 0x5152535455565758, Seq: 0x6162636465666768,
}

func sampleHello() Hello {
	return Hello{
		Protocol: ProtocolVersion,
		Build:    "v1.2.3 (abcdef)",
		Session:  SessionID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		From:     3,
		To:       7,
		Class:    IO,
		PageSize: 4096,
		TSCKHz:   2_400_000,
		CPU:      []byte{0xC0, 0xC1, 0xC2},
		Payload:  []byte(`{"cpus":1}`),
	}
}

func TestHeaderLayout(t *testing.T) {
	b := AppendHeader(nil, &sampleHeader)
	golden(t, "header.golden", b)
	got, err := ParseHeader(b)
	if err != nil || got != sampleHeader {
		t.Errorf("ParseHeader = %+v, %v; want %+v", got, err, sampleHeader)
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	good := AppendHeader(nil, &sampleHeader)
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"a byte short", good[:HeaderSize-1]},
		{"reserved byte 6", set(good, 6, 1)},
		{"reserved byte 7", set(good, 7, 0x80)},
	} {
		var fe *FrameError
		if _, err := ParseHeader(test.b); !errors.As(err, &fe) {
			t.Errorf("%s: %v, want a *FrameError", test.name, err)
		}
	}
}

// set returns a copy of b with b[i] = v.
func set(b []byte, i int, v byte) []byte {
	b = bytes.Clone(b)
	b[i] = v
	return b
}

func TestHelloLayout(t *testing.T) {
	h := sampleHello()
	body, err := AppendHello(nil, &h)
	if err != nil {
		t.Fatal(err)
	}
	whole := appendPreface(nil, preface{typ: msgHello, protocol: h.Protocol, body: uint32(len(body))})
	golden(t, "hello.golden", append(whole, body...))
	got, err := ParseHello(body)
	got.Protocol = h.Protocol
	if err != nil || !reflect.DeepEqual(got, h) {
		t.Errorf("ParseHello = %+v, %v; want %+v", got, err, h)
	}
}

func TestRefusalLayout(t *testing.T) {
	body := appendRefusal(nil, CodeRole+4, "nothing to lend")
	whole := appendPreface(nil, preface{typ: msgRefuse, protocol: ProtocolVersion, body: uint32(len(body))})
	golden(t, "refuse.golden", append(whole, body...))
	got, err := parseRefusal(body)
	if err != nil || *got != (RefusedError{CodeRole + 4, "nothing to lend"}) {
		t.Errorf("parseRefusal = %v, %v", got, err)
	}
}

func TestHelloBounds(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*Hello)
		ok   bool
	}{
		{"as it is", func(*Hello) {}, true},
		{"all empty", func(h *Hello) { *h = Hello{} }, true},
		{"longest build", func(h *Hello) { h.Build = strings.Repeat("b", MaxBuild) }, true},
		{"build too long", func(h *Hello) { h.Build = strings.Repeat("b", MaxBuild+1) }, false},
		{"build with an escape", func(h *Hello) { h.Build = "v1\x1b[2J" }, false},
		{"build not UTF-8", func(h *Hello) { h.Build = "v1\xff" }, false},
		{"longest CPU", func(h *Hello) { h.CPU = make([]byte, MaxCPU) }, true},
		{"CPU too long", func(h *Hello) { h.CPU = make([]byte, MaxCPU+1) }, false},
		{"longest payload", func(h *Hello) { h.Payload = make([]byte, MaxHelloPayload) }, true},
		{"payload too long", func(h *Hello) { h.Payload = make([]byte, MaxHelloPayload+1) }, false},
		{"last class", func(h *Hello) { h.Class = NumClasses - 1 }, true},
		{"no class", func(h *Hello) { h.Class = NumClasses }, false},
	} {
		h := sampleHello()
		test.edit(&h)
		b, err := AppendHello(nil, &h)
		var he *HelloError
		if test.ok != (err == nil) || (err != nil && !errors.As(err, &he)) {
			t.Errorf("%s: AppendHello: %v, want ok %v", test.name, err, test.ok)
		}
		if err != nil {
			continue
		}
		if len(b) > maxBody {
			t.Errorf("%s: a body of %d bytes, above maxBody", test.name, len(b))
		}
		if _, err := ParseHello(b); err != nil {
			t.Errorf("%s: ParseHello: %v", test.name, err)
		}
	}
}

func TestParseHelloRefuses(t *testing.T) {
	h := sampleHello()
	good, err := AppendHello(nil, &h)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"nothing", nil},
		{"fixed part short", good[:helloFixed-1]},
		{"cut", good[:len(good)-1]},
		{"longer", append(bytes.Clone(good), 0)},
		{"reserved", set(good, 19, 1)},
		{"class", set(good, 18, byte(NumClasses))},
		{"control character in build", set(good, helloFixed, '\n')},
		{"build length", set(good, 28, 200)},
		{"payload length of 4 GiB", set(good, 35, 0xff)},
	} {
		var he *HelloError
		if _, err := ParseHello(test.b); !errors.As(err, &he) {
			t.Errorf("%s: %v, want a *HelloError", test.name, err)
		}
	}
	// Lengths that agree with the body and break a bound.
	long := bytes.Clone(good[:helloFixed])
	long[28], long[29] = byte((MaxBuild+1)&0xff), byte((MaxBuild+1)>>8)
	long[30], long[31], long[32], long[33], long[34], long[35] = 0, 0, 0, 0, 0, 0
	var he *HelloError
	if _, err := ParseHello(append(long, strings.Repeat("b", MaxBuild+1)...)); !errors.As(err, &he) {
		t.Errorf("build too long: %v, want a *HelloError", err)
	}
}

func TestParsePrefaceRefuses(t *testing.T) {
	good := appendPreface(nil, preface{typ: msgHello, protocol: 1, body: maxBody})
	for _, test := range []struct {
		name string
		b    []byte
		want error // nil: a *HelloError
	}{
		{"magic", set(good, 0, 'X'), ErrNotCoalesce},
		{"message 0", set(good, 4, 0), nil},
		{"message 4", set(good, 4, 4), nil},
		{"reserved", set(good, 7, 1), nil},
		{"body too long", appendPreface(nil, preface{typ: msgHello, protocol: 1, body: maxBody + 1}), nil},
	} {
		_, err := parsePreface((*[prefaceSize]byte)(test.b))
		var he *HelloError
		if test.want != nil && !errors.Is(err, test.want) || test.want == nil && !errors.As(err, &he) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if p, err := parsePreface((*[prefaceSize]byte)(good)); err != nil || p.body != maxBody {
		t.Errorf("the longest body: %+v, %v", p, err)
	}
}

func TestRefusalIsPrintableAndBounded(t *testing.T) {
	text := "two\nlines \x1b[31m" + strings.Repeat("é", MaxRefusal)
	got, err := parseRefusal(appendRefusal(nil, CodeRole, text))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Text) > MaxRefusal || got.Text != printable(got.Text) || !strings.HasPrefix(got.Text, "two\uFFFDlines ") {
		t.Errorf("text of %d bytes: %q…", len(got.Text), got.Text[:40])
	}
	// A peer that does not keep to it does no harm either.
	raw := append([]byte{16, 0, 0, 0, 3, 0, 0, 0}, "\x1b\xff\n"...)
	if got, err := parseRefusal(raw); err != nil || got.Text != "\uFFFD\uFFFD\uFFFD" {
		t.Errorf("raw text: %v, %v", got, err)
	}
	for _, b := range [][]byte{nil, raw[:7], raw[:10], make([]byte, refusalFixed+MaxRefusal+1)} {
		if _, err := parseRefusal(b); err == nil {
			t.Errorf("parseRefusal took %d bytes", len(b))
		}
	}
}

func TestClassNames(t *testing.T) {
	want := []string{"control", "page", "interrupt", "io", "bulk", "class(5)"}
	for i, w := range want {
		if got := Class(i).String(); got != w {
			t.Errorf("Class(%d) = %q, want %q", i, got, w)
		}
	}
	if NumClasses.MaxPayload() != 0 {
		t.Error("a value that is no class has a payload bound")
	}
}

func FuzzParseHeader(f *testing.F) {
	f.Add(AppendHeader(nil, &sampleHeader))
	f.Add(make([]byte, HeaderSize-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHeader(b)
		if err != nil {
			return
		}
		if again := AppendHeader(nil, &h); !bytes.Equal(again, b[:HeaderSize]) {
			t.Errorf("%x parses to %+v, which is %x", b[:HeaderSize], h, again)
		}
	})
}

func FuzzParseHello(f *testing.F) {
	h := sampleHello()
	b, err := AppendHello(nil, &h)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(make([]byte, helloFixed))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err != nil {
			return
		}
		if again, err := AppendHello(nil, &h); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x parses to %+v, which is %x, %v", b, h, again, err)
		}
	})
}

func FuzzParsePreface(f *testing.F) {
	f.Add(appendPreface(nil, preface{typ: msgHello, protocol: 1, body: 36}), []byte{16, 0, 0, 0, 1, 0, 0, 0, 'x'})
	f.Fuzz(func(t *testing.T, b, body []byte) {
		if len(b) >= prefaceSize {
			if p, err := parsePreface((*[prefaceSize]byte)(b)); err == nil {
				if again := appendPreface(nil, p); !bytes.Equal(again, b[:prefaceSize]) {
					t.Errorf("%x parses to %+v, which is %x", b[:prefaceSize], p, again)
				}
			}
		}
		if r, err := parseRefusal(body); err == nil && (len(r.Text) > MaxRefusal || r.Text != printable(r.Text)) {
			t.Errorf("refusal %x gives text %q", body, r.Text)
		}
	})
}
