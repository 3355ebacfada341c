package vmm

import (
	"errors"
	"math"
	"testing"

	"coalesce/link"
	"coalesce/vmm/trace"
)

// TestOnOneClock: a lender whose clock runs 100 ppm fast, and began elsewhere, is put on the client's: to within the error
// that is stated.
func TestOnOneClock(t *testing.T) {
	const (
		ppm    = 100
		zero   = 1 << 40           // the lender's clock when the client's is 0
		offset = -5_000_000_000    // guest's TSC minus the client's
		oneWay = 1000              // cycles there, the way back takes twice as long
		second = uint64(2_000_000) // cycles
	)
	lenders := func(client uint64) uint64 { return zero + client + client*ppm/1_000_000 }
	exchange := func(at uint64) link.Sample {
		return link.Sample{T1: at, T2: lenders(at + oneWay), T3: lenders(at + 2*oneWay), T4: at + 4*oneWay}
	}
	early, late := exchange(10*second), exchange(1000*second)
	n := &trace.Node{}
	var want []uint64
	for _, at := range []uint64{10, 11, 500, 999, 1001} {
		client := at * second
		// As the lender stamps it: by the early measurement.
		guest := lenders(client) - uint64(early.Offset())
		off := int64(offset) // offset is negative, and so is what is before it
		n.Events = append(n.Events, trace.Event{Kind: trace.Fault, Start: guest + uint64(off), End: guest + uint64(off) + 10})
		want = append(want, client+uint64(off))
	}
	raw := n.Events[3].Start - want[3]
	n.CompleteFrom = n.Events[2].Start
	onOneClock(n, early, late, offset)
	for i, e := range n.Events {
		if wrong := math.Abs(float64(int64(e.Start - want[i]))); wrong > float64(n.Error) {
			t.Errorf("event %d is wrong by %v cycles, stated are %d", i, wrong, n.Error)
		}
		if d := int64(e.End - e.Start); d < 9 || d > 11 {
			t.Errorf("event %d takes %d cycles", i, d)
		}
	}
	if n.CompleteFrom != n.Events[2].Start || n.Error < oneWay {
		t.Errorf("%+v", n)
	}
	if raw < 10*n.Error {
		t.Errorf("without a correction it is wrong by %d cycles, which shows nothing", raw)
	}
}

// TestAnswerTrace: a question of a client that no client asks ends the session.
func TestAnswerTrace(t *testing.T) {
	r := trace.NewRecorder(func() uint64 { return 1 }, []uint16{1}, 2)
	for range 5 {
		r.Fault(0, 0x1000, false, false, 1)
	}
	a, err := answerTrace(r, &question{Seq: 3, Skip: 2})
	if err != nil || a.Seq != 3 || a.Rings != 3 || len(a.Events) != 3*trace.EventSize || a.Left != 0 || a.Dropped != 0 {
		t.Errorf("%+v, %v", a, err)
	}
	for _, q := range []question{{Ring: -1}, {Ring: 3}} {
		if _, err := answerTrace(r, &q); !errors.Is(err, errMalformedControl) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	r.Fault(0, 0x1000, false, false, 1)
	if a, _ := answerTrace(r, &question{}); len(a.Events) != 5*trace.EventSize {
		t.Errorf("recorded after it was asked for: %+v", a)
	}
}
