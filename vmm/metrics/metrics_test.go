package metrics

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"coalesce/dsm"
	"coalesce/vmm"
)

var update = flag.Bool("update", false, "write the golden file")

// statue is a Watched that does not move.
type statue struct{ err error }

func (statue) Status() *vmm.Status { return &vmm.Status{} }

func (s statue) Statistics(context.Context, int) (*vmm.Statistics, error) {
	node := func(id uint8) vmm.NodeStatistics {
		n := vmm.NodeStatistics{Up: 90 * time.Second, Latency: []dsm.LatencyBin{{Micros: 50, Count: 3}, {Micros: 130, Count: 2}, {Micros: 2_000_000, Count: 1}}}
		n.Node, n.Resident, n.IPIsOut, n.IPIsIn, n.Forward, n.Waits, n.RTT = dsm.NodeID(id), 1<<20, 4, 5, 6, 7, 8*time.Millisecond
		n.CPUs = []vmm.CPUReport{{ID: int(id), Time: 1500 * time.Millisecond}, {ID: int(id)}}
		n.Memory = dsm.Stats{FaultsRead: 10, FaultsWrite: 11, FaultsLocal: 12, PagesIn: 13, PagesOut: 14, Upgrades: 15, Invalidations: 16,
			Deferred: 17, BytesIn: 18, BytesOut: 19, TokenRequests: 20}
		return n
	}
	lost := vmm.NodeStatistics{Missing: "no answer"}
	lost.Node = 2
	return &vmm.Statistics{Guests: []vmm.GuestStatistics{{Client: "hosta", Nodes: []vmm.NodeStatistics{node(0), node(1), lost}}}}, s.err
}

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestMetrics: names, labels and values, which dashboards depend on.
func TestMetrics(t *testing.T) {
	got := []byte(scrape(t, handler(statue{})))
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// TestNoGuest: between two boots a scrape succeeds and has no nodes.
func TestNoGuest(t *testing.T) {
	if got := scrape(t, handler(statue{errors.New("none")})); strings.Contains(got, "node=") {
		t.Errorf("got:\n%s", got)
	}
}

// TestServe: over a connection, and nothing else is there; and an address that is
// taken.
func TestServe(t *testing.T) {
	s, err := Serve("127.0.0.1:0", statue{})
	if err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{"/metrics": http.StatusOK, "/": http.StatusNotFound, "/debug/pprof/": http.StatusNotFound} {
		resp, err := http.Get("http://" + s.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != status {
			t.Errorf("%s: %s, %v", path, resp.Status, err)
		}
	}
	if _, err := Serve(s.Addr(), statue{}); err == nil {
		t.Error("an address was taken twice")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := http.Get("http://" + s.Addr() + "/metrics"); err == nil {
		t.Error("it is still there")
	}
}
