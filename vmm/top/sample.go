// Package top shows what happens in running guests: what their nodes did in the
// last moment, from the differences of two vmm.Statistics, and which pages they
// contend for.
package top

import (
	"time"

	"coalesce/dsm"
	"coalesce/link"
	"coalesce/vmm"
)

// Sample is what happened between two Statistics.
type Sample struct {
	Taken  time.Time     `json:"taken"`
	Guests []GuestSample `json:"guests"`
}

// GuestSample is what happened in one guest.
type GuestSample struct {
	Client string       `json:"client"`
	Nodes  []NodeSample `json:"nodes"`
	Pages  []PageSample `json:"pages,omitempty"` // hottest first
}

// NodeSample is what happened on one node.
type NodeSample struct {
	Node link.NodeID `json:"node"`
	Name string      `json:"name"`
	// Interval is the time in which it happened: since the statistics before, or
	// since the node was made if it was not in them.
	Interval time.Duration `json:"interval_ns"`
	Faults   float64       `json:"faults_per_s"`      // userfaults, those answered on the node included
	Local    float64       `json:"local_per_s"`       // of them, answered without a message
	In       float64       `json:"bytes_in_per_s"`    // on the node's page links
	Out      float64       `json:"bytes_out_per_s"`   //
	PagesIn  float64       `json:"pages_in_per_s"`    //
	PagesOut float64       `json:"pages_out_per_s"`   //
	P50      time.Duration `json:"p50_ns"`            // from the request for a page to its coming; 0 if none came
	P99      time.Duration `json:"p99_ns"`            //
	IPIs     float64       `json:"ipis_per_s"`        // sent to other nodes
	IO       float64       `json:"forwarded_per_s"`   // device accesses sent to the client
	Busy     float64       `json:"vcpus_busy"`        // vCPU threads' CPU time per time
	Resident uint64        `json:"resident"`          // bytes of guest memory on the node
	RTT      time.Duration `json:"rtt_ns,omitempty"`  // from the client, smallest seen
	Missing  string        `json:"missing,omitempty"` // why there is nothing
}

// PageSample is a hot page.
type PageSample struct {
	vmm.PageTraffic
	Symbols []string `json:"symbols,omitempty"` // of the kernel, that lie in it; see Symbols
}

// Difference returns what happened from one Statistics to the next; before may be
// nil. symbols may be nil, too.
func Difference(before, now *vmm.Statistics, symbols *Symbols) *Sample {
	s := &Sample{Taken: now.Taken, Guests: []GuestSample{}}
	for _, g := range now.Guests {
		sample := GuestSample{Client: g.Client}
		for i := range g.Nodes {
			sample.Nodes = append(sample.Nodes, nodeSample(find(before, g.Client, &g.Nodes[i]), &g.Nodes[i]))
		}
		for _, p := range g.Pages {
			sample.Pages = append(sample.Pages, PageSample{p, symbols.In(p.GPA)})
		}
		s.Guests = append(s.Guests, sample)
	}
	return s
}

// find returns what a node did before, nothing if it has begun since.
func find(before *vmm.Statistics, client string, now *vmm.NodeStatistics) *vmm.NodeStatistics {
	if before != nil {
		for _, g := range before.Guests {
			for i := range g.Nodes {
				n := &g.Nodes[i]
				if g.Client == client && n.Node == now.Node && n.Missing == "" && n.Up < now.Up {
					return n
				}
			}
		}
	}
	return &vmm.NodeStatistics{}
}

func nodeSample(before, now *vmm.NodeStatistics) NodeSample {
	s := NodeSample{Node: now.Node, Name: now.Name, Interval: now.Up - before.Up, Resident: now.Resident, RTT: now.RTT, Missing: now.Missing}
	if now.Missing != "" || s.Interval <= 0 {
		return s
	}
	rate := func(before, now uint64) float64 {
		if now < before {
			return 0 // another node by the same name
		}
		return float64(now-before) / s.Interval.Seconds()
	}
	b, n := &before.Memory, &now.Memory
	s.Faults = rate(b.FaultsRead+b.FaultsWrite, n.FaultsRead+n.FaultsWrite)
	s.Local = rate(b.FaultsLocal, n.FaultsLocal)
	s.In, s.Out = rate(b.BytesIn, n.BytesIn), rate(b.BytesOut, n.BytesOut)
	s.PagesIn, s.PagesOut = rate(b.PagesIn, n.PagesIn), rate(b.PagesOut, n.PagesOut)
	s.IPIs, s.IO = rate(before.IPIsOut, now.IPIsOut), rate(before.Forward, now.Forward)
	s.Busy = rate(cpuTime(before), cpuTime(now)) / 1e9
	came := since(before.Latency, now.Latency)
	s.P50, s.P99 = quantile(came, 0.50), quantile(came, 0.99)
	return s
}

// cpuTime is what the node's vCPUs used, in ns.
func cpuTime(n *vmm.NodeStatistics) (sum uint64) {
	for _, c := range n.CPUs {
		sum += uint64(max(0, c.Time))
	}
	return sum
}

// since returns what a distribution has more than it had before.
func since(before, now []dsm.LatencyBin) []dsm.LatencyBin {
	had := make(map[int64]int64, len(before))
	for _, b := range before {
		had[b.Micros] = b.Count
	}
	var more []dsm.LatencyBin
	for _, b := range now {
		if n := b.Count - had[b.Micros]; n > 0 {
			more = append(more, dsm.LatencyBin{Micros: b.Micros, Count: n})
		}
	}
	return more
}

// quantile returns the upper end of the bin that holds the quantile q, 0 if the
// distribution is empty. Bins ascend.
func quantile(bins []dsm.LatencyBin, q float64) time.Duration {
	total := int64(0)
	for _, b := range bins {
		total += b.Count
	}
	seen := int64(0)
	for _, b := range bins {
		if seen += b.Count; float64(seen) >= q*float64(total) {
			return time.Duration(b.Micros) * time.Microsecond
		}
	}
	return 0
}
