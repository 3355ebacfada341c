package vmm

// What comes from the network is decoded here: control messages, device accesses, interrupts. Frames and handshakes are
// package link's, page messages dsm's, CPUID sets and vCPU states vcpu's; each has fuzz targets of its own.

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"time"

	"coalesce/dsm"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
)

func FuzzIOAccessDecode(f *testing.F) {
	var b [ioAccessSize]byte
	a := ioAccess{CPU: 1, Size: 4, Count: 1, Write: true, Address: 0x3f8}
	a.encode(&b)
	f.Add(append(b[:], 1, 2, 3, 4), false)
	f.Add(b[:], true)
	a = ioAccess{CPU: 1, Size: 8, Count: 1, MMIO: true, Address: 0xfec00000}
	a.encode(&b)
	f.Add(b[:], false)
	f.Fuzz(func(t *testing.T, in []byte, reply bool) {
		var a ioAccess
		data, err := a.decode(in, reply)
		if err != nil {
			return
		}
		if n := int(a.Size) * int(a.Count); n > ioMaxData || len(data) != 0 && len(data) != n {
			t.Fatalf("%+v with %d bytes of data was accepted", a, len(data))
		}
		var again [ioAccessSize]byte
		a.encode(&again)
		if !bytes.Equal(append(again[:], data...), in) {
			t.Fatalf("decode and encode differ for %x", in)
		}
	})
}

// FuzzDecodeControl decodes every message of the control class.
func FuzzDecodeControl(f *testing.F) {
	for _, v := range []any{
		ask{CPUs: 1, Memory: granule}, offer{CPUs: 2, Memory: granule}, failed{Error: "no \x1b reason", Reset: true},
		NodeReport{Node: 1, Name: "host", CPUs: []CPUReport{{ID: 1, APICID: 1, Exits: map[string]uint64{"io": 3}}}},
		question{Seq: 1, Hot: 10}, traceAnswer{Seq: 1, Rings: 2, Events: make([]byte, 40), Left: 3},
		statisticsAnswer{Seq: 1, Node: NodeStatistics{NodeReport: NodeReport{Node: 1}, Latency: []dsm.LatencyBin{{Micros: 1, Count: 2}}}, Pages: []dsm.HotPage{{GPA: 1}}},
		setup{Node: 2, Shares: []Share{{CPUs: 1, Memory: granule}, {CPUs: 2, Distance: 20}, {CPUs: 1, Memory: granule, Distance: 40}},
			View: 1, CPUID: []byte{1, 0}, TSCKHz: 1e6, TSCOffset: -5, Dial: []peerAddress{{Node: 1, Address: "10.0.0.2:7411"}}},
	} {
		b, err := json.Marshal(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, s := range []string{"", " ", "{", "{}", "[]", "null", `{"cpus":1}{"cpus":1}`, `{"shares":null,"node":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, v := range []any{new(ask), new(offer), new(setup), new(failed), new(NodeReport), new(question), new(statisticsAnswer), new(traceAnswer), new(clockAnswer)} {
			// The end of a message is not the end of its connection.
			if err := decodeControl(in, v); err != nil && (!errors.Is(err, errMalformedControl) || link.Lost(err)) {
				t.Fatalf("%T: %v", v, err)
			}
		}
		var why failed
		if decodeControl(in, &why) == nil && len(why.reason().Error()) > maxReason {
			t.Fatalf("a reason of %d bytes is shown", len(why.reason().Error()))
		}
		var r NodeReport
		if decodeControl(in, &r) == nil {
			if err := (&Result{Nodes: []NodeReport{r}}).WriteTable(io.Discard); err != nil {
				t.Fatal(err)
			}
		}
		var s setup
		if decodeControl(in, &s) == nil {
			checkHostileSetup(t, &s)
		}
	})
}

// checkHostileSetup: what a lender lays out at a client's word is bounded, or refused.
func checkHostileSetup(t *testing.T, set *setup) {
	s := &lending{self: set.Node, lender: &Lender{cfg: LendConfig{GuestMemory: maxMemory, Host: &Host{TSCKHz: 1e6}}}}
	if int(set.Node) < len(set.Shares) {
		s.ask = ask{CPUs: set.Shares[set.Node].CPUs, Memory: set.Shares[set.Node].Memory}
	}
	l, err := s.check(set)
	if err != nil {
		return
	}
	if int(s.self) >= len(l.Shares) || len(l.Shares) > dsm.MaxNodes || len(l.CPUs) > MaxCPUs || len(l.Homes) > maxMemory/granule {
		t.Fatalf("node %d of %d, %d CPUs, %d regions", s.self, len(l.Shares), len(l.CPUs), len(l.Homes))
	}
	end := uint64(0)
	for _, w := range l.Windows {
		if w.GPA < end || w.Size%granule != 0 || w.GPA+w.Size < w.GPA {
			t.Fatalf("windows %+v", l.Windows)
		}
		end = w.GPA + w.Size
	}
	for i, c := range l.CPUs {
		if c.ID != i || c.APICID > 254 || i > 0 && c.APICID <= l.CPUs[i-1].APICID {
			t.Fatalf("CPUs %+v", l.CPUs)
		}
	}
	for _, p := range set.Dial {
		if p.Node == 0 || p.Node >= s.self {
			t.Fatalf("node %d dials node %d", s.self, p.Node)
		}
	}
	if set.Hold < 0 || set.Hold > time.Second || set.Transfer < 0 || set.Transfer > time.Second {
		t.Fatalf("hold %v, transfer %v", set.Hold, set.Transfer)
	}
}

// FuzzReceiveIPI feeds a node what a peer may send on the interrupt class.
func FuzzReceiveIPI(f *testing.F) {
	const here = 5
	for _, m := range []apic.Message{
		{Dest: here, From: 1, Vector: 0x40, Assert: true},
		{Dest: here, From: 1, Delivery: apic.INIT, Assert: true},
		{Dest: here, From: 1, Delivery: apic.SIPI, Vector: 0x60, Assert: true},
		{Dest: here, From: 1, Delivery: apic.NMI},
		{Dest: apic.Broadcast, DestMode: apic.Logical, From: apic.FromDevice, Delivery: apic.LowestPriority, Vector: 0xff, Level: true, Assert: true},
	} {
		f.Add(uint8(1), uint8(irqMessage), m.Append(nil))
	}
	f.Add(uint8(0), uint8(irqEOI), []byte{0x40})
	f.Fuzz(func(t *testing.T, self, kind uint8, in []byte) {
		eois := 0
		n := &node{id: link.NodeID(self), ioapic: func(uint8) { eois++ }}
		n.router = apic.NewRouter(n.endOfInterrupt)
		n.router.SetLocal(apic.New(here, false, n.router, vcpu.Clock{}), func() {})
		err := n.receiveIPI(2, &link.Header{Kind: kind}, in)
		if err != nil && link.Lost(err) {
			t.Fatalf("%v passes for a lost connection", err)
		}
		if err == nil && kind != irqMessage && !(kind == irqEOI && self == 0 && eois == 1) {
			t.Fatalf("node %d took kind %d", self, kind)
		}
		if out := n.router.Stats().Remote; out != 0 {
			t.Fatalf("%d messages were sent on", out)
		}
	})
}
