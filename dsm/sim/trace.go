package sim

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// trace writes what a node does, if somebody reads it.
func (w *World) trace(n *node, format string, a ...any) {
	if w.out == nil {
		return
	}
	who := "-"
	if w.current != nil {
		who = w.current.name
	}
	fmt.Fprintf(w.out, "%14.3f us  node %d %-8s %s\n", float64(w.now)/1000, n.id, who, fmt.Sprintf(format, a...))
}

// faultText is a userfault in words.
type faultText uffd.Fault

func (f *faultText) String() string {
	how := "read"
	if f.Write {
		how = "write"
	}
	kind := "missing"
	switch {
	case f.WP:
		kind = "write-protected"
	case f.Minor:
		kind = "minor"
	}
	return fmt.Sprintf("userfault on page %#x (%s, %s) of thread %d", f.Page, how, kind, f.TID)
}

// payloadText is a frame's messages in words. See docs/protocol.md, page class.
type payloadText []byte

func (b payloadText) String() string {
	var s strings.Builder
	for len(b) > 0 {
		var m dsm.Msg
		rest, err := m.Decode(b, ^uint32(0))
		if err != nil {
			fmt.Fprintf(&s, "; %v", err)
			break
		}
		if b = rest; s.Len() > 0 {
			s.WriteString("; ")
		}
		of := "page"
		if m.Kind >= dsm.TokenReq {
			of = "vCPU"
		}
		fmt.Fprintf(&s, "%v %s %#x", m.Kind, of, m.Page)
		for _, f := range []struct {
			flag dsm.Flags
			name string
		}{{dsm.FlagWrite, "write"}, {dsm.FlagToken, "token"}, {dsm.FlagPromote, "promote"}, {dsm.FlagDelayed, "delayed"}} {
			if m.Flags&f.flag != 0 {
				s.WriteString(" " + f.name)
			}
		}
		if m.Kind == dsm.FwdRead || m.Kind == dsm.FwdWrite || m.Kind == dsm.Done {
			fmt.Fprintf(&s, " for node %d", m.Peer)
		}
		if m.Kind == dsm.Data && len(b) >= 8 {
			size := int(binary.LittleEndian.Uint16(b[6:]))
			fmt.Fprintf(&s, " version %d holders %016b %d bytes", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), size)
			b = b[min(8+size, len(b)):]
		}
	}
	return s.String()
}

// dump writes the engines' states.
func (w *World) dump(out io.Writer) {
	for _, n := range w.nodes {
		fmt.Fprintf(out, "node %d: %d threads in the engine, %d owe a flush, failed %v, dead %v\n", n.id, n.inside, n.owing, n.failed, n.dead)
		for _, v := range n.vcpus {
			fmt.Fprintf(out, "  vCPU %d: state %d", v.index, v.state)
			if v.fault != nil {
				fmt.Fprintf(out, ", waits: %s", (*faultText)(&v.fault.Fault))
			}
			if v.depth > 0 {
				fmt.Fprintf(out, ", executes %v since %.3f us", v.frames[v.depth-1].accesses, float64(v.frames[v.depth-1].began)/1000)
			}
			fmt.Fprintln(out)
		}
		n.driver.Engine.Dump(out)
	}
}
