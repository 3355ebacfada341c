package trace

import (
	"io"
	"testing"
)

// BenchmarkRecord is what an event costs where it happens.
func BenchmarkRecord(b *testing.B) {
	r := NewRecorder(ticker(0), []uint16{0}, 2)
	for b.Loop() {
		r.Fault(0, 0x1000, true, false, r.Now())
	}
}

// BenchmarkWrite is what an event costs at the end.
func BenchmarkWrite(b *testing.B) {
	const events = 10_000
	var nodes []*Node
	for id := range 2 {
		n := &Node{Name: "x"}
		for i := range uint64(events) {
			n.Events = append(n.Events, Event{Kind: PageSent + Kind(id), Start: 10 * i, End: 10*i + 5, ID: i, Arg: i << 12, Peer: uint8(1 - id), CPU: NoCPU, Size: 4096})
		}
		nodes = append(nodes, n)
	}
	nodes[1].ID = 1
	for b.Loop() {
		if err := Write(io.Discard, nodes, 1000, 1<<40); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/2/events, "ns/event")
}
