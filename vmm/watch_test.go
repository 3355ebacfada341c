package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"coalesce/dsm"
	"coalesce/vmm/control"
)

var update = flag.Bool("update", false, "write the golden files")

// statue is a Watched that does not move.
type statue struct{ pages chan int }

func (statue) Status() *Status {
	return &Status{Role: "client", Host: "hosta", Build: "abc", Started: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Guest: &GuestStatus{
		Kernel: "vmlinuz", Version: "6.12", Boots: 1, KernelBase: 1 << 24,
		Nodes: []NodeStatus{{CPUs: []int{0}, Memory: 1 << 29}, {Node: 1, Address: "10.0.0.2:7411", CPUs: []int{1}, Memory: 1 << 26, Distance: 40, RTT: 1000, TSCError: 9}}}}
}

func (s statue) Statistics(_ context.Context, pages int) (*Statistics, error) {
	if s.pages != nil {
		s.pages <- pages
	}
	n := NodeStatistics{NodeReport: NodeReport{Node: 1, Name: "hostb", CPUs: []CPUReport{{ID: 1, APICID: 1}}, IPIsOut: 3}, Up: time.Second,
		Latency: []dsm.LatencyBin{{Micros: 85, Count: 7}}, hot: []dsm.HotPage{{GPA: 0x1000, Rate: 2.5, Reads: 4}}}
	return &Statistics{Guests: []GuestStatistics{{Client: "hosta", Nodes: []NodeStatistics{n},
		Pages: hottest([]NodeStatistics{n}, 1, func(uint64) string { return "client's RAM" })}}}, nil
}

// TestAPI: what programs find on the socket. The golden files are the interface: a
// field may come, but one that is renamed or gone is a new version of the path.
func TestAPI(t *testing.T) {
	dir := t.TempDir()
	s, err := control.Listen(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan int, 10)
	ServeControl(s, statue{asked})
	s.Serve()
	defer s.Close()
	c, err := control.NewClient(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for path, name := range map[string]string{"/v1/status": "status.json", "/v1/statistics?pages=7": "statistics.json"} {
		var answer json.RawMessage
		if err := c.Get(t.Context(), path, &answer); err != nil {
			t.Fatal(err)
		}
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, bytes.TrimSpace(answer), "", "  "); err != nil {
			t.Fatal(err)
		}
		got := strings.Replace(pretty.String()+"\n", `"pid": `+jsonOf(t, os.Getpid()), `"pid": 1`, 1)
		file := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var old, now any
		if err := errors.Join(json.Unmarshal(want, &old), json.Unmarshal([]byte(got), &now)); err != nil {
			t.Fatal(err)
		}
		if missing := lost(old, now, path); missing != "" {
			t.Errorf("%s is not what it was:\n%s\nwant:\n%s", missing, got, want)
		}
	}
	if n := <-asked; n != 7 {
		t.Errorf("asked for %d pages", n)
	}
	lines := 0
	err = c.Stream(t.Context(), "/v1/statistics/stream?every=100ms", func(line []byte) error {
		var got Statistics
		if err := json.Unmarshal(line, &got); err != nil || len(got.Guests) != 1 {
			t.Errorf("%s: %v", line, err)
		}
		if lines++; lines == 3 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Error(err)
	}
	for path, want := range map[string]string{
		"/v1/statistics?pages=-1":         "pages=-1: 0 to 256",
		"/v1/statistics?pages=x":          "pages=x: 0 to 256",
		"/v1/statistics?pages=257":        "pages=257: 0 to 256",
		"/v1/statistics/stream?every=1ms": "every=1ms: a time from 100ms to 1h0m0s",
	} {
		var refused *control.Error
		if err := c.Get(t.Context(), path, new(any)); !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || refused.Text != want {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// lost names something that was in a JSON value and is not, or is different now.
func lost(old, now any, where string) string {
	switch old := old.(type) {
	case map[string]any:
		now, _ := now.(map[string]any)
		for k := range old {
			if now == nil {
				return where
			}
			v, ok := now[k]
			if !ok {
				return where + "." + k
			}
			if l := lost(old[k], v, where+"."+k); l != "" {
				return l
			}
		}
		return ""
	case []any:
		now, _ := now.([]any)
		if len(now) != len(old) {
			return where
		}
		for i := range old {
			if l := lost(old[i], now[i], fmt.Sprintf("%s[%d]", where, i)); l != "" {
				return l
			}
		}
		return ""
	}
	if old != now {
		return where
	}
	return ""
}

var errEnough = errors.New("enough")

func jsonOf(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestNoGuest: between two boots there is a status and no statistics.
func TestNoGuest(t *testing.T) {
	g := NewGuest(&Host{Name: "hosta"})
	if s := g.Status(); s.Guest != nil || s.Role != "client" {
		t.Errorf("%+v", s)
	}
	if _, err := g.Statistics(t.Context(), 1); !errors.Is(err, errNoGuest) {
		t.Errorf("%v", err)
	}
}

// TestHottestOfAll: pages of several nodes are put together and judged by what they
// all did.
func TestHottestOfAll(t *testing.T) {
	node := func(id uint8, hot ...dsm.HotPage) NodeStatistics {
		return NodeStatistics{NodeReport: NodeReport{Node: dsm.NodeID(id)}, hot: hot}
	}
	page := func(gpa uint64, rate float64, reads, writes, upgrades uint32) dsm.HotPage {
		return dsm.HotPage{GPA: gpa, Rate: rate, Reads: reads, Writes: writes, Upgrades: upgrades}
	}
	migratory := page(0x6000, 1, 9, 9, 9)
	migratory.Migratory = true
	pages := hottest([]NodeStatistics{
		node(0, page(0x1000, 5, 0, 7, 0), page(0x2000, 9, 9, 0, 0), page(0x4000, 1, 0, 0, 3), page(0x5000, 0.5, 0, 9, 0)),
		node(1, page(0x1000, 6, 0, 7, 0), page(0x3000, 8, 3, 0, 0), page(0x4000, 1, 5, 0, 0), migratory),
	}, 5, func(gpa uint64) string { return "here" })
	type row struct {
		gpa   uint64
		kind  TrafficKind
		rate  float64
		nodes int
	}
	want := []row{{0x1000, WriteShared, 11, 2}, {0x2000, ReadShared, 9, 1}, {0x3000, ReadShared, 8, 1}, {0x4000, Produced, 2, 2}, {0x6000, Migratory, 1, 1}}
	for i, p := range pages {
		if got := (row{p.GPA, p.Kind, p.Rate, len(p.Nodes)}); i >= len(want) || got != want[i] {
			t.Errorf("%d: %+v", i, got)
		}
	}
	if len(pages) != len(want) {
		t.Errorf("%d pages: %+v", len(pages), pages)
	}
}

// TestStatisticsAnswer: what a lender cannot have meant is not shown.
func TestStatisticsAnswer(t *testing.T) {
	good := statisticsAnswer{Node: NodeStatistics{NodeReport: NodeReport{Node: 1, Name: "h\x1b[2J"}}, Pages: []dsm.HotPage{{GPA: 1}}}
	if err := good.check(1); err != nil || len(good.Node.hot) != 1 || strings.Contains(good.Node.Name, "\x1b") {
		t.Errorf("%v, %+v", err, good)
	}
	for name, bad := range map[string]statisticsAnswer{
		"another node":   {Node: NodeStatistics{NodeReport: NodeReport{Node: 2}}},
		"too many CPUs":  {Node: NodeStatistics{NodeReport: NodeReport{Node: 1, CPUs: make([]CPUReport, MaxCPUs+1)}}},
		"too many pages": {Node: NodeStatistics{NodeReport: NodeReport{Node: 1}}, Pages: make([]dsm.HotPage, MaxPages*hotPerPage+1)},
		"an excuse":      {Node: NodeStatistics{NodeReport: NodeReport{Node: 1}, Missing: "\x1b"}},
	} {
		if err := bad.check(1); !errors.Is(err, errMalformedControl) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPlaces: what is known from outside of where things are in guest memory.
func TestPlaces(t *testing.T) {
	l, err := NewLayout([]Share{{CPUs: 1, Memory: 4 << 30}, {CPUs: 1, Memory: granule, Distance: 20}})
	if err != nil {
		t.Fatal(err)
	}
	places := l.places(nil)
	for gpa, want := range map[uint64]string{0x1000: "client's RAM", 3<<30 + 1: "no memory", 4 << 30: "client's RAM", 6 << 30: "lender 1's memory",
		6<<30 + granule: "no memory"} {
		if got := placeOf(places, gpa); got != want {
			t.Errorf("%#x: %q, want %q", gpa, got, want)
		}
	}
}
