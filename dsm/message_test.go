package dsm

import (
	"bytes"
	"testing"
)

func TestMessageRoundTrip(t *testing.T) {
	for k := Req; k < kinds; k++ {
		m := Msg{Kind: k, Flags: FlagWrite, Peer: 3, Page: 77, LastWritten: 9}
		b := m.Append([]byte{1, 2, 3})[3:]
		var got Msg
		rest, err := got.Decode(append(b, 4, 5), 78)
		if err != nil || got != m || !bytes.Equal(rest, []byte{4, 5}) {
			t.Fatalf("%v: got %+v, %v, then %v", k, got, err, rest)
		}
		if _, err := got.Decode(b[:MsgSize-1], 78); err == nil {
			t.Fatalf("%v: short message accepted", k)
		}
		if _, err := got.Decode(b, 77); err == nil && k < TokenReq {
			t.Fatalf("%v: page out of range accepted", k)
		}
	}
}

// FuzzMsgDecode decodes a frame as receive does.
func FuzzMsgDecode(f *testing.F) {
	req := Msg{Kind: Req, Page: 1, Flags: FlagToken}
	data := Msg{Kind: Data, Page: 1}
	f.Add(req.Append(nil))
	f.Add((&content{version: 3}).appendHeader(data.Append(req.Append(nil)), 0))
	runs, _ := appendRuns((&content{version: 3}).appendHeader(data.Append(nil), 12), make([]byte, PageSize), bytes.Repeat([]byte{1}, PageSize))
	f.Add(runs)
	f.Fuzz(func(t *testing.T, b []byte) {
		page := make([]byte, PageSize)
		again := make([]byte, 0, len(b))
		for rest := b; len(rest) > 0; {
			var m Msg
			var err error
			if rest, err = m.Decode(rest, 1<<20); err != nil {
				return
			}
			again = m.Append(again)
			if m.Kind != Data {
				continue
			}
			var c content
			if c, rest, err = decodeContent(rest); err != nil {
				return
			}
			again = append(c.appendHeader(again, len(c.body)), c.body...)
			// Whatever it holds, applying it stays within the page.
			_ = c.apply(page, c.version-1)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("decode and encode differ for %x", b)
		}
	})
}
