package trace

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
)

// ticker is a clock that goes on by one whenever it is read.
func ticker(start uint64) func() uint64 {
	return func() uint64 { start++; return start }
}

func TestEventRoundTrip(t *testing.T) {
	want := Event{Start: 5, End: 9, ID: 1 << 63, Arg: 0x123456789000, Kind: IOServed, Flags: Writing | MMIO, Peer: 15, CPU: 63, Size: 4096}
	got, err := Decode(want.Append(want.Append(nil)))
	if err != nil || len(got) != 2 || got[0] != want || got[1] != want {
		t.Errorf("%+v, %v", got, err)
	}
	if n := reflect.TypeFor[Event]().Size(); n != memorySize {
		t.Errorf("an event takes %d bytes of memory", n)
	}
	b := want.Append(nil)
	for name, bad := range map[string][]byte{
		"cut off":    b[:EventSize-1],
		"no kind":    append(append(slices.Clone(b[:32]), 0), b[33:]...),
		"other kind": append(append(slices.Clone(b[:32]), byte(kinds)), b[33:]...),
		"flags":      append(append(slices.Clone(b[:33]), 0x80), b[34:]...),
		"backwards":  append(slices.Concat(b[8:16], b[:8]), b[16:]...),
	} {
		if _, err := Decode(bad); !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	e := Event{Start: 5, End: 9, Kind: Fault}
	f.Add(e.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := Decode(b)
		if err != nil {
			return
		}
		var again []byte
		for i := range events {
			again = events[i].Append(again)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
		// Whatever a lender says it recorded makes a file.
		var out bytes.Buffer
		if err := Write(&out, []*Node{{ID: 1, Name: "x", Events: events}}, 1000, 1<<62); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(out.Bytes()) {
			t.Fatalf("no JSON: %s", out.Bytes())
		}
	})
}

// TestRing: the newest stay, in order, what was dropped is counted, and a busy ring
// takes nothing from a quiet one.
func TestRing(t *testing.T) {
	r := NewRecorder(ticker(0), []uint16{0, 1}, 2)
	r.Fault(1, 0xaaaa000, false, false, r.Now())
	size := uint64(len(r.rings[0].events))
	for i := range size + 10 {
		r.Fault(0, i<<12, true, true, r.Now())
	}
	r.Fault(2, 0, false, false, r.Now()) // of a vCPU that is not here
	r.Freeze()
	r.Fault(0, 1<<40, true, true, r.Now())
	n, err := r.Collect(3, "x")
	if err != nil {
		t.Fatal(err)
	}
	if n.Dropped != 10 || uint64(len(n.Events)) != size+1 || n.Events[0].Arg != 10<<12 || n.CompleteFrom != n.Events[0].End {
		t.Errorf("%d events, %d dropped, complete from %d; the first: %+v", len(n.Events), n.Dropped, n.CompleteFrom, n.Events[0])
	}
	for i := range n.Events[:size] {
		if e := n.Events[i]; e.Arg != uint64(i+10)<<12 || e.CPU != 0 || e.Flags != Writing|Local || e.End <= e.Start {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	if last := n.Events[size]; last.Arg != 0xaaaa000 || last.CPU != 1 || last.Flags != 0 {
		t.Errorf("the quiet vCPU's: %+v", last)
	}
	// In pieces it is the same.
	var pieces []byte
	for left, skip := uint64(1), uint64(0); left > 0; skip += 1000 {
		var dropped uint64
		pieces, left, dropped = r.Read(pieces, 0, skip, 1000)
		if dropped != 10 {
			t.Fatalf("%d dropped", dropped)
		}
	}
	events, err := Decode(pieces)
	if err != nil || !slices.Equal(events, n.Events[:size]) {
		t.Errorf("in pieces: %d events, %v", len(events), err)
	}
	if b, left, _ := r.Read(nil, 0, 1<<60, 10); len(b) != 0 || left != 0 {
		t.Errorf("behind the end: %d bytes, %d left", len(b), left)
	}
}

// TestRecordingDoesNotAllocate.
func TestRecordingDoesNotAllocate(t *testing.T) {
	r := NewRecorder(ticker(0), []uint16{4}, 2)
	n := testing.AllocsPerRun(1000, func() {
		r.Fault(0, 0x1000, true, false, r.Now())
		r.PageSent(1, 1, 0x1000, 4096, true, r.Now())
		r.PageReceived(1, 1, 0x1000, 4096, true, r.Now())
		r.Message(Event{Kind: IPISent, Start: r.Now(), Peer: 1, CPU: 4})
		r.Message(Event{Kind: IPIReceived, Start: r.Now(), Peer: 1, CPU: NoCPU})
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestConcurrent: many may record while one ends it.
func TestConcurrent(t *testing.T) {
	var mu sync.Mutex
	tick := ticker(0)
	r := NewRecorder(func() uint64 { mu.Lock(); defer mu.Unlock(); return tick() }, []uint16{0}, 2)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				r.Fault(0, 0x1000, true, false, r.Now())
			}
		})
	}
	r.Freeze()
	if _, err := r.Collect(0, ""); err != nil {
		t.Error(err)
	}
	all.Wait()
}

// TestWrite: the tracks, names, times and arrows of a small trace.
func TestWrite(t *testing.T) {
	nodes := []*Node{
		{ID: 0, Name: "client", Error: 500, Events: []Event{
			{Kind: PageSent, Start: 3000, End: 3500, ID: 1, Arg: 0x5000, Peer: 1, CPU: NoCPU, Size: 120, Flags: Writing},
			{Kind: PageSent, Start: 9000, End: 9100, ID: 2, Arg: 0x6000, Peer: 1, CPU: NoCPU}, // under way at the end
			{Kind: IPISent, Start: 1000, End: 1200, ID: 77, Arg: 1, Peer: 1, CPU: 0, Size: 5<<8 | 0x20},
			{Kind: IPISent, Start: 1100, End: 1300, ID: 78, Arg: 1, Peer: 1, CPU: 0, Size: 6<<8 | 0x60},
			{Kind: IOServed, Start: 5000, End: 5100, ID: 99, Arg: 0x3f8, Peer: 1, CPU: 1, Size: 1, Flags: Writing},
		}},
		{ID: 1, Name: "lender 1", Dropped: 3, CompleteFrom: 1500, Missing: "some", Events: []Event{
			{Kind: Fault, Start: 2000, End: 4000, Arg: 0x5000, CPU: 1, Flags: Writing},
			{Kind: PageReceived, Start: 3800, End: 3900, ID: 1, Arg: 0x5000, Peer: 0, CPU: NoCPU, Size: 120, Flags: Writing},
			{Kind: IPIReceived, Start: 1500, End: 1600, ID: 77, Arg: 1, Peer: 0, CPU: NoCPU, Size: 5<<8 | 0x20},
			{Kind: IOForwarded, Start: 4500, End: 5600, ID: 99, Arg: 0x3f8, Peer: 0, CPU: 1, Size: 1, Flags: Writing},
			{Kind: Fault, Start: 9000, End: 10001, CPU: 1}, // later than the client recorded
		}},
	}
	var b bytes.Buffer
	if err := Write(&b, nodes, 1000, 10000); err != nil {
		t.Fatal(err)
	}
	var f struct {
		OtherData struct {
			Nodes []nodeInfo
		}
		TraceEvents []struct {
			Name  string
			Phase string `json:"ph"`
			TS    float64
			Dur   float64
			PID   int
			TID   int
			ID    string
			Args  map[string]any
		}
	}
	if err := json.Unmarshal(b.Bytes(), &f); err != nil {
		t.Fatalf("%v in %s", err, b.Bytes())
	}
	if n := f.OtherData.Nodes; len(n) != 2 || n[0].Error != 0.5 || n[1].Dropped != 3 || *n[1].CompleteFrom != 0.5 || n[1].Missing != "some" || n[1].Events != 4 {
		t.Errorf("nodes: %+v", n)
	}
	type key struct{ pid, tid int }
	tracks := map[key]string{}
	arrows := map[string]string{}
	var slicesSeen []string
	for _, e := range f.TraceEvents {
		k := key{e.PID, e.TID}
		switch e.Phase {
		case "M":
			if e.Name == "thread_name" {
				tracks[k] = e.Args["name"].(string)
			}
		case "X":
			slicesSeen = append(slicesSeen, strings.Join([]string{string(rune('0' + e.PID)), tracks[k], e.Name, jsonNumber(e.TS), jsonNumber(e.Dur)}, "|"))
		case "s", "f":
			arrows[e.ID] += e.Phase + string(rune('0'+e.PID))
		}
	}
	want := []string{
		"0|vCPU 0: interrupts and I/O|INIT|0|0.2",
		"0|vCPU 0: interrupts and I/O (2)|SIPI|0.1|0.2",
		"0|pages to node 1|page to write|2|0.5",
		"0|devices, for node 1|device write|4|0.1",
		"0|pages to node 1|page to read|8|0.1",
		"1|interrupts from node 0|INIT|0.5|0.1",
		"1|vCPU 1: faults|write fault|1|2",
		"1|pages from node 0|page to write|2.8|0.1",
		"1|vCPU 1: interrupts and I/O|device write|3.5|1.1",
	}
	if !slices.Equal(slicesSeen, want) {
		t.Errorf("slices:\n%s\nwant:\n%s", strings.Join(slicesSeen, "\n"), strings.Join(want, "\n"))
	}
	for id, ends := range map[string]string{"2-0-1-1": "s0f1", "4-0-1-77": "s0f1", "6-1-0-99": "f0s1"} {
		if arrows[id] != ends {
			t.Errorf("arrow %s: %q, want %q", id, arrows[id], ends)
		}
		delete(arrows, id)
	}
	if len(arrows) != 0 {
		t.Errorf("arrows to nowhere: %v", arrows)
	}
	b.Reset()
	if err := Write(&b, []*Node{{Name: "nothing"}}, 1000, 5); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("an empty trace: %v, %s", err, b.Bytes())
	}
}

func jsonNumber(v float64) string {
	b, _ := json.Marshal(v)
	return string(b)
}
