package trace

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"

	"coalesce/link"
)

// Write writes what nodes recorded as a Chrome trace: a JSON object whose
// traceEvents are slices on tracks, a process for each node, with arrows between the
// two ends of what travelled ("Trace Event Format", the JSON that Perfetto imports).
// cyclesPerMicro is the rate of the clock. What ends after until is left out: some
// nodes recorded longer than others.
func Write(w io.Writer, nodes []*Node, cyclesPerMicro float64, until uint64) error {
	f := &file{w: bufio.NewWriterSize(w, 1<<16), perMicro: cyclesPerMicro, base: math.MaxUint64}
	for _, n := range nodes {
		n.Events = slices.DeleteFunc(n.Events, func(e Event) bool { return int64(e.End-until) > 0 })
		for i := range n.Events {
			f.base = min(f.base, n.Events[i].Start)
		}
	}
	if f.base == math.MaxUint64 {
		f.base = until
	}
	if err := f.write(nodes); err != nil {
		return fmt.Errorf("write the trace: %w", err)
	}
	return nil
}

// file is a trace that is being written.
type file struct {
	w        *bufio.Writer
	perMicro float64
	base     uint64 // what time 0 is
	any      bool   // an event was written
}

// micros converts a time, to a nanosecond: that is what readers keep, and so one slice
// never begins before the one before it has ended there.
func (f *file) micros(t uint64) float64 {
	return math.Round(float64(int64(t-f.base))/f.perMicro*1000) / 1000
}

// nodeInfo is what the file says of a node beside its events.
type nodeInfo struct {
	Node         int      `json:"node"`
	Name         string   `json:"name"`
	Error        float64  `json:"clock_error_us"` // bound of how wrong its times are beside node 0's
	Events       int      `json:"events"`
	Dropped      uint64   `json:"dropped"`
	CompleteFrom *float64 `json:"complete_from_us,omitempty"`
	Missing      string   `json:"missing,omitempty"`
}

func (f *file) write(nodes []*Node) error {
	var info []nodeInfo
	for _, n := range nodes {
		i := nodeInfo{Node: int(n.ID), Name: n.Name, Error: float64(n.Error) / f.perMicro, Events: len(n.Events), Dropped: n.Dropped, Missing: n.Missing}
		if n.CompleteFrom != 0 {
			from := f.micros(n.CompleteFrom)
			i.CompleteFrom = &from
		}
		info = append(info, i)
	}
	head, err := json.Marshal(map[string]any{"clock": "guest TSC", "cycles_per_us": f.perMicro, "nodes": info})
	if err != nil {
		return err
	}
	fmt.Fprintf(f.w, "{\"displayTimeUnit\":\"ns\",\"otherData\":%s,\n\"traceEvents\":[\n", head)
	both := pairs(nodes)
	for _, n := range nodes {
		if err := f.node(n, both); err != nil {
			return err
		}
	}
	if _, err := f.w.WriteString("\n]}\n"); err != nil {
		return err
	}
	return f.w.Flush()
}

// begin starts an event. ph: X slice, s and f the ends of an arrow, M metadata. name
// needs no escapes.
func (f *file) begin(name string, ph byte, pid link.NodeID, tid int) {
	if f.any {
		f.w.WriteString(",\n")
	}
	f.any = true
	f.text(`{"name":"`, name, `","ph":"`)
	f.w.WriteByte(ph)
	f.w.WriteByte('"')
	f.number("pid", uint64(pid))
	f.number("tid", uint64(tid))
}

// The next ones add a field. What goes wrong with writing shows when it is flushed.

func (f *file) text(parts ...string) {
	for _, p := range parts {
		f.w.WriteString(p)
	}
}

func (f *file) number(key string, v uint64) {
	f.text(`,"`, key, `":`)
	f.w.Write(strconv.AppendUint(f.w.AvailableBuffer(), v, 10))
}

func (f *file) hex(key string, v uint64) {
	f.text(`,"`, key, `":"0x`)
	f.w.Write(strconv.AppendUint(f.w.AvailableBuffer(), v, 16))
	f.w.WriteByte('"')
}

func (f *file) time(key string, micros float64) {
	f.text(`,"`, key, `":`)
	f.w.Write(strconv.AppendFloat(f.w.AvailableBuffer(), micros, 'f', 3, 64))
}

// metadata writes an event that names or orders a process or thread.
func (f *file) metadata(kind string, pid link.NodeID, tid int, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f.begin(kind, 'M', pid, tid)
	f.text(`,"args":{"`, key, `":`, string(b), "}}")
	return nil
}

// end names one of the two ends of what travelled.
type end struct {
	kind     Kind // of the beginning
	from, to link.NodeID
	id       uint64
}

// endOf returns the name that an event has in common with its other end, and
// whether it is the beginning; ok is false for what has none.
func endOf(node link.NodeID, e *Event) (x end, first, ok bool) {
	peer := link.NodeID(e.Peer)
	switch e.Kind {
	case PageSent, IPISent, IOForwarded:
		return end{e.Kind, node, peer, e.ID}, true, true
	case PageReceived, IPIReceived, IOServed:
		return end{e.Kind - 1, peer, node, e.ID}, false, true
	}
	return end{}, false, false
}

// pairs returns what has both its ends in the trace.
func pairs(nodes []*Node) map[end]bool {
	seen, both := map[end]bool{}, map[end]bool{}
	for pass := range 2 {
		for _, n := range nodes {
			for i := range n.Events {
				x, first, ok := endOf(n.ID, &n.Events[i])
				switch {
				case !ok:
				case pass == 0 && first:
					seen[x] = true
				case pass == 1 && !first && seen[x]:
					both[x] = true
				}
			}
		}
	}
	return both
}

// track is where a slice is shown; they are sorted as they are numbered.
type track struct {
	order trackKind
	index int // vCPU or node
}

type trackKind uint8

const (
	faults trackKind = iota
	sends
	devices
	pagesFrom
	pagesTo
	interruptsFrom
	served
)

func (t track) name() string {
	return fmt.Sprintf([...]string{"vCPU %d: faults", "vCPU %d: interrupts and I/O", "device interrupts to node %d", "pages from node %d",
		"pages to node %d", "interrupts from node %d", "devices, for node %d"}[t.order], t.index)
}

// before orders tracks: a vCPU's together, then the others by kind.
func (t track) before(u track) int {
	if t.order <= sends && u.order <= sends {
		return cmp.Or(cmp.Compare(t.index, u.index), cmp.Compare(t.order, u.order))
	}
	return cmp.Or(cmp.Compare(t.order, u.order), cmp.Compare(t.index, u.index))
}

// trackOf returns the track of an event.
func trackOf(e *Event) track {
	cpu, peer := int(e.CPU), int(e.Peer)
	switch {
	case e.Kind == Fault:
		return track{faults, cpu}
	case (e.Kind == IPISent || e.Kind == IOForwarded) && e.CPU != NoCPU:
		return track{sends, cpu}
	case e.Kind == IPISent || e.Kind == IOForwarded:
		return track{devices, peer}
	case e.Kind == PageReceived:
		return track{pagesFrom, peer}
	case e.Kind == PageSent:
		return track{pagesTo, peer}
	case e.Kind == IPIReceived:
		return track{interruptsFrom, peer}
	}
	return track{served, peer}
}

// lanes of a track hold slices that would overlap on one.
type lanes struct {
	track
	first int // thread id of the first lane
	free  []uint64
	of    []int // lane of each of the track's events, in their order
}

// place assigns an event to a lane.
func (l *lanes) place(e *Event) {
	for i := range l.free {
		if l.free[i] <= e.Start {
			l.free[i] = e.End
			l.of = append(l.of, i)
			return
		}
	}
	l.of = append(l.of, len(l.free))
	l.free = append(l.free, e.End)
}

// node writes a node's events.
func (f *file) node(n *Node, both map[end]bool) error {
	slices.SortFunc(n.Events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(b.End, a.End))
	})
	byTrack := map[track]*lanes{}
	var order []*lanes
	for i := range n.Events {
		t := trackOf(&n.Events[i])
		l := byTrack[t]
		if l == nil {
			l = &lanes{track: t}
			byTrack[t] = l
			order = append(order, l)
		}
		l.place(&n.Events[i])
	}
	slices.SortFunc(order, func(a, b *lanes) int { return a.before(b.track) })
	if err := f.metadata("process_name", n.ID, 0, "name", n.Name); err != nil {
		return err
	}
	tid := 1
	for _, l := range order {
		l.first = tid
		for lane := range l.free {
			name := l.name()
			if lane > 0 {
				name = fmt.Sprintf("%s (%d)", name, lane+1)
			}
			if err := errors.Join(f.metadata("thread_name", n.ID, tid, "name", name), f.metadata("thread_sort_index", n.ID, tid, "sort_index", tid)); err != nil {
				return err
			}
			tid++
		}
	}
	for i := range n.Events {
		l := byTrack[trackOf(&n.Events[i])]
		f.slice(n.ID, l.first+l.of[0], &n.Events[i], both)
		l.of = l.of[1:]
	}
	return nil
}

// slice writes an event, and its end of an arrow if it has one.
func (f *file) slice(node link.NodeID, tid int, e *Event, both map[end]bool) {
	name, cat := nameOf(e)
	start := f.micros(e.Start)
	f.begin(name, 'X', node, tid)
	f.text(`,"cat":"`, cat, `"`)
	f.time("ts", start)
	f.time("dur", f.micros(e.End)-start)
	f.args(e)
	f.w.WriteByte('}')
	x, first, ok := endOf(node, e)
	if !ok || !both[x] {
		return
	}
	ph, bind := byte('s'), ""
	if !first {
		ph, bind = 'f', `,"bp":"e"`
	}
	f.begin(cat, ph, node, tid)
	f.text(`,"cat":"`, cat, `"`, bind)
	f.time("ts", start)
	f.text(`,"id":"`)
	for i, v := range [...]uint64{uint64(x.kind), uint64(x.from), uint64(x.to), x.id} {
		if i > 0 {
			f.w.WriteByte('-')
		}
		f.w.Write(strconv.AppendUint(f.w.AvailableBuffer(), v, 10))
	}
	f.text(`"}`)
}

var deliveries = [8]string{"fixed", "lowest priority", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT"}

// nameOf returns the name and the category of an event.
func nameOf(e *Event) (name, cat string) {
	how := func(read, write string) string {
		if e.Flags&Writing != 0 {
			return write
		}
		return read
	}
	switch e.Kind {
	case Fault:
		return how("read fault", "write fault"), "fault"
	case PageSent, PageReceived:
		return how("page to read", "page to write"), "transfer"
	case IPISent, IPIReceived:
		return deliveries[e.Size>>8&7], "interrupt"
	}
	return how("device read", "device write"), "io"
}

// args adds what there is to say of an event.
func (f *file) args(e *Event) {
	if e.Kind == Fault {
		f.text(`,"args":{"local":`, strconv.FormatBool(e.Flags&Local != 0))
		f.hex("gpa", e.Arg)
		f.w.WriteByte('}')
		return
	}
	f.text(`,"args":{"node":`, strconv.Itoa(int(e.Peer)))
	switch e.Kind {
	case PageSent, PageReceived:
		f.hex("gpa", e.Arg)
		f.number("bytes", uint64(e.Size))
		f.number("number", e.ID)
	case IPISent, IPIReceived:
		f.number("vector", uint64(e.Size&0xff))
		f.hex("destination", e.Arg)
	case IOForwarded, IOServed:
		where := "port"
		if e.Flags&MMIO != 0 {
			where = "gpa"
		}
		f.hex(where, e.Arg)
		f.number("bytes", uint64(e.Size))
	}
	f.w.WriteByte('}')
}
