package top

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"coalesce/dsm"
	"coalesce/vmm"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
	}
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// statistics are of a guest on two hosts, seconds after its beginning.
func statistics(seconds uint64) *vmm.Statistics {
	up := time.Duration(seconds) * time.Second
	node := func(id uint8, faults uint64, us int64) vmm.NodeStatistics {
		n := vmm.NodeStatistics{Up: up, Latency: []dsm.LatencyBin{{Micros: us, Count: int64(98 * seconds)}, {Micros: 10 * us, Count: int64(2 * seconds)}}}
		n.Node, n.Name, n.Resident = dsm.NodeID(id), []string{"hosta", "hostb"}[id], 64<<20
		n.CPUs = []vmm.CPUReport{{ID: int(id), Time: up * 3 / 4}}
		n.Memory = dsm.Stats{FaultsRead: faults * seconds, FaultsWrite: faults / 2 * seconds, FaultsLocal: seconds,
			BytesIn: 2_000_000 * seconds, BytesOut: 1_500_000 * seconds, PagesIn: 400 * seconds, PagesOut: 300 * seconds}
		n.IPIsOut, n.Forward = 12*seconds, uint64(id)*30*seconds
		return n
	}
	nodes := []vmm.NodeStatistics{node(0, 100, 85), node(1, 500, 120)}
	nodes[1].RTT = 123400 * time.Nanosecond
	page := func(gpa uint64, kind vmm.TrafficKind, memory string, rate float64) vmm.PageTraffic {
		return vmm.PageTraffic{GPA: gpa, Home: 0, Rate: rate, Kind: kind, Memory: memory, Nodes: []vmm.PageAtNode{
			{Node: 0, HotPage: dsm.HotPage{GPA: gpa, Rate: rate / 2, Reads: 3, Writes: 40}},
			{Node: 1, HotPage: dsm.HotPage{GPA: gpa, Rate: rate / 2, Reads: 1, Writes: 50, Upgrades: 2}}}}
	}
	return &vmm.Statistics{Taken: noon.Add(up), Guests: []vmm.GuestStatistics{{Client: "hosta", Nodes: nodes, Pages: []vmm.PageTraffic{
		page(0x1000000, vmm.Migratory, "kernel, as loaded", 120),
		page(0x100000000, vmm.ReadShared, "lender 1's memory", 7),
	}}}}
}

func symbols(t *testing.T) *Symbols {
	t.Helper()
	s, err := ReadSymbols(strings.NewReader(`0000000000000000 A fixed_percpu_data
ffffffff81000000 T _text
ffffffff81000000 T startup_64
ffffffff81000100 T secondary_startup_64
ffffffff81000f00 t last
ffffffff81003000 D jiffies
ffffffff81003ff8 D edge
ffffffff81005000 B _end
`), 0x1000000)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestDifference: rates and quantiles are of the interval, not of the whole time,
// and a node that was not there before is seen since its beginning.
func TestDifference(t *testing.T) {
	before, now := statistics(10), statistics(12)
	// In the last two seconds pages took longer than ever before.
	now.Guests[0].Nodes[0].Latency = append(slices.Clone(before.Guests[0].Nodes[0].Latency), dsm.LatencyBin{Micros: 5000, Count: 3})
	s := Difference(before, now, nil)
	n := s.Guests[0].Nodes[0]
	if n.Interval != 2*time.Second || n.Faults != 150 || n.Local != 1 || n.In != 2e6 || n.PagesOut != 300 || n.IPIs != 12 ||
		n.Busy != 0.75 || n.P50 != 5*time.Millisecond || n.P99 != 5*time.Millisecond {
		t.Errorf("%+v", n)
	}
	if n := s.Guests[0].Nodes[1]; n.P50 != 120*time.Microsecond || n.P99 != 1200*time.Microsecond || n.IO != 30 {
		t.Errorf("%+v", n)
	}
	reborn := statistics(3) // a boot later
	if n := Difference(now, reborn, nil).Guests[0].Nodes[0]; n.Interval != 3*time.Second || n.Faults != 150 {
		t.Errorf("after another boot: %+v", n)
	}
	gone := statistics(14)
	gone.Guests[0].Nodes[1] = vmm.NodeStatistics{Missing: "no answer"}
	if n := Difference(now, gone, nil).Guests[0].Nodes[1]; n.Missing != "no answer" || n.Faults != 0 {
		t.Errorf("a lender that does not answer: %+v", n)
	}
	if s := Difference(nil, &vmm.Statistics{}, nil); len(s.Guests) != 0 {
		t.Errorf("no guest: %+v", s)
	}
}

// TestTables: what is shown, and what is printed for programs.
func TestTables(t *testing.T) {
	s := Difference(statistics(10), statistics(12), symbols(t))
	var b bytes.Buffer
	if err := s.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "top.txt", b.Bytes())
	j, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "top.json", append(j, '\n'))
}

// TestStatus: what status shows of a client and of a lender.
func TestStatus(t *testing.T) {
	old := time.Local
	time.Local = time.UTC
	defer func() { time.Local = old }()
	var b bytes.Buffer
	for _, s := range []*vmm.Status{
		{Name: "run-7", Role: "client", Host: "hosta", PID: 7, Started: noon, Guest: &vmm.GuestStatus{Kernel: "vmlinuz", Version: "6.12", Boots: 2,
			Since: noon.Add(time.Minute), Nodes: []vmm.NodeStatus{{CPUs: []int{0, 1}, Memory: 512 << 20},
				{Node: 1, Address: "10.0.0.2:7411", CPUs: []int{2}, Memory: 64 << 20, Distance: 40, RTT: 123400}}}},
		{Name: "run-8", Role: "client", Host: "hosta", PID: 8, Started: noon},
		{Name: "lend-9", Role: "lender", Host: "hostb", PID: 9, Started: noon, Lending: &vmm.LenderStatus{Address: "10.0.0.2:7411", CPUs: 4, CPUsLent: 1,
			Memory: 1 << 30, MemoryLent: 64 << 20, Sessions: []vmm.SessionStatus{{Client: "10.0.0.1:5000", Node: 1, CPUs: 1, Memory: 64 << 20, Since: noon}}}},
	} {
		if err := WriteStatus(&b, s); err != nil {
			t.Fatal(err)
		}
	}
	golden(t, "status.txt", b.Bytes())
}

func TestSymbols(t *testing.T) {
	s := symbols(t)
	for gpa, want := range map[uint64][]string{
		0xfff000:  nil,
		0x1000000: {"_text", "startup_64", "secondary_startup_64", "last"},
		0x1001000: {"last+0x100"},
		0x1003000: {"jiffies", "edge"},
		0x1004000: {"edge+0x8"},
		0x1005000: {"_end"},
		0x1006000: nil,
	} {
		if got := s.In(gpa); !slices.Equal(got, want) {
			t.Errorf("%#x: %q, want %q", gpa, got, want)
		}
	}
	if (*Symbols)(nil).In(0x1000000) != nil {
		t.Error("symbols from nowhere")
	}
	for _, bad := range []string{"", "x", "g T _text", "0000000000000010 T _text", "ffffffff81000000 T text"} {
		if _, err := ReadSymbols(strings.NewReader(bad), 0); err == nil {
			t.Errorf("%q is a symbol table", bad)
		}
	}
}

// TestFrame: text fits the terminal and replaces all that was there.
func TestFrame(t *testing.T) {
	var b bytes.Buffer
	frame(&b, []byte("one\ntwo µµµ and more\nthree\n"), 8, 2)
	if want := home + "one" + clearLine + "\r\ntwo µµµ" + clearLine + clearRest; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
