// Package metrics offers the counters of a running guest or lender to Prometheus.
package metrics

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"coalesce/vmm"
)

// timeout bounds the collection of one scrape.
const timeout = 5 * time.Second

// collector turns Statistics into metrics when it is asked for them. It keeps none
// itself: the counters are the nodes' own.
type collector struct {
	watched vmm.Watched
	missing prometheus.Counter // scrapes of nodes that did not answer
}

// labels are those of every metric of a node: the client that runs the guest, and
// the node's number in it.
var labels = []string{"client", "node"}

func describe(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("coalesce_"+name, help, append(labels[:len(labels):len(labels)], more...), nil)
}

// metric is one that a node has a number for.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(n *vmm.NodeStatistics) float64
}

func counter(name, help string, of func(n *vmm.NodeStatistics) uint64) metric {
	return metric{describe(name, help), prometheus.CounterValue, func(n *vmm.NodeStatistics) float64 { return float64(of(n)) }}
}

func gauge(name, help string, of func(n *vmm.NodeStatistics) float64) metric {
	return metric{describe(name, help), prometheus.GaugeValue, of}
}

var perNode = []metric{
	counter("pages_in_total", "Pages installed from other nodes.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.PagesIn }),
	counter("pages_out_total", "Pages sent to other nodes.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.PagesOut }),
	counter("page_upgrades_total", "Writes granted without content.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.Upgrades }),
	counter("page_invalidations_total", "Pages given up.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.Invalidations }),
	counter("page_holds_total", "Commands of a page's home that a hold or a device delayed.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.Deferred }),
	counter("link_receive_bytes_total", "Bytes received on page links, headers included.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.BytesIn }),
	counter("link_transmit_bytes_total", "Bytes sent on page links, headers included.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.BytesOut }),
	counter("token_requests_total", "Times a vCPU asked for the progress token.", func(n *vmm.NodeStatistics) uint64 { return n.Memory.TokenRequests }),
	counter("ipis_sent_total", "Interrupt messages sent to other nodes.", func(n *vmm.NodeStatistics) uint64 { return n.IPIsOut }),
	counter("ipis_received_total", "Interrupt messages received from other nodes.", func(n *vmm.NodeStatistics) uint64 { return n.IPIsIn }),
	counter("io_forwarded_total", "Device accesses sent to the client.", func(n *vmm.NodeStatistics) uint64 { return n.Forward }),
	counter("stamp_waits_total", "Frames held until the node's clock had passed their stamp.", func(n *vmm.NodeStatistics) uint64 { return n.Waits }),
	gauge("resident_bytes", "Guest memory on the node.", func(n *vmm.NodeStatistics) float64 { return float64(n.Resident) }),
	gauge("up_seconds", "How long the node has been part of the guest.", func(n *vmm.NodeStatistics) float64 { return n.Up.Seconds() }),
	gauge("round_trip_seconds", "Smallest round trip seen from the client; 0 on the client.", func(n *vmm.NodeStatistics) float64 { return n.RTT.Seconds() }),
}

// Those with labels of their own.
var (
	faults  = describe("faults_total", "Userfaults of vCPUs.", "access")
	local   = describe("faults_local_total", "Userfaults answered without a message.")
	fetch   = describe("page_fetch_seconds", "From the request for a page to its coming.")
	cpuTime = describe("vcpu_seconds_total", "CPU time of a vCPU's thread.", "vcpu")
)

// bounds are the upper ends of page_fetch_seconds' buckets, in µs.
var bounds = []int64{50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range perNode {
		ch <- m.desc
	}
	for _, d := range []*prometheus.Desc{faults, local, fetch, cpuTime} {
		ch <- d
	}
	c.missing.Describe(ch)
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	defer c.missing.Collect(ch)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s, err := c.watched.Statistics(ctx, 0)
	if err != nil {
		return // between two boots there are no nodes
	}
	for _, g := range s.Guests {
		for i := range g.Nodes {
			n := &g.Nodes[i]
			if n.Missing != "" {
				c.missing.Inc()
				continue
			}
			node(ch, n, g.Client, strconv.Itoa(int(n.Node)))
		}
	}
}

// node sends a node's metrics.
func node(ch chan<- prometheus.Metric, n *vmm.NodeStatistics, labels ...string) {
	send := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, more ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, append(labels[:len(labels):len(labels)], more...)...)
	}
	for _, m := range perNode {
		send(m.desc, m.kind, m.of(n))
	}
	send(faults, prometheus.CounterValue, float64(n.Memory.FaultsRead), "read")
	send(faults, prometheus.CounterValue, float64(n.Memory.FaultsWrite), "write")
	send(local, prometheus.CounterValue, float64(n.Memory.FaultsLocal))
	seen := map[int]bool{}
	for _, v := range n.CPUs {
		if !seen[v.ID] { // what a lender says twice would fail the scrape
			seen[v.ID] = true
			send(cpuTime, prometheus.CounterValue, v.Time.Seconds(), strconv.Itoa(v.ID))
		}
	}
	ch <- histogram(n, labels)
}

// histogram has the node's finer bins in the buckets. The sum takes each bin for its
// upper end, which is 1 % too much at most.
func histogram(n *vmm.NodeStatistics, labels []string) prometheus.Metric {
	buckets := make(map[float64]uint64, len(bounds))
	for _, b := range bounds {
		buckets[float64(b)/1e6] = 0
	}
	count, sum := uint64(0), 0.0
	for _, bin := range n.Latency {
		if bin.Count <= 0 || bin.Micros < 0 {
			continue
		}
		count += uint64(bin.Count)
		sum += float64(bin.Count) * float64(bin.Micros) / 1e6
		for _, b := range bounds {
			if bin.Micros <= b {
				buckets[float64(b)/1e6] += uint64(bin.Count)
			}
		}
	}
	return prometheus.MustNewConstHistogram(fetch, count, sum, buckets, labels...)
}

// Server offers metrics on an address.
type Server struct {
	listener net.Listener
	http     http.Server
	serving  sync.WaitGroup
}

// Serve offers what w counts at http://ADDR/metrics, where addr is host:port. It is
// for everybody who can reach the address.
func Serve(addr string, w vmm.Watched) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("offer metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", handler(w))
	s := &Server{listener: l, http: http.Server{Handler: mux, ReadHeaderTimeout: timeout, WriteTimeout: 2 * timeout, IdleTimeout: time.Minute}}
	s.serving.Go(func() {
		_ = s.http.Serve(l) // until Close; nothing else ends it
	})
	return s, nil
}

func handler(w vmm.Watched) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{watched: w, missing: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "coalesce_missing_nodes_total", Help: "Nodes that did not answer when they were asked for their counters."})})
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Addr is the address listened on.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Close ends the offer.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	s.serving.Wait()
	return err
}
