package vmm

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"coalesce/dsm"
	"coalesce/link"
)

// Statistics are the counters of the guests that a process has a part in. They only
// grow: what happens per second is the difference of two, node by node, over the
// difference of the node's Up.
type Statistics struct {
	Taken  time.Time         `json:"taken"`
	Guests []GuestStatistics `json:"guests"`
}

// GuestStatistics are one guest's.
type GuestStatistics struct {
	Client string           `json:"client"`          // who runs it: host name at the client, address at a lender
	Nodes  []NodeStatistics `json:"nodes"`           // all at the client, a lender's own there
	Pages  []PageTraffic    `json:"pages,omitempty"` // the hottest at present, hottest first
}

// NodeStatistics are one node's.
type NodeStatistics struct {
	NodeReport
	// Up is how long the node has existed when its numbers were taken.
	Up time.Duration `json:"up_ns"`
	// Latency is the distribution of the time from a request for a page to its
	// coming.
	Latency []dsm.LatencyBin `json:"latency,omitempty"`
	// Missing says why a lender's numbers are not there; all else is zero then,
	// but Node.
	Missing string `json:"missing,omitempty"`

	hot []dsm.HotPage
}

// PageTraffic is a page that comes and goes often.
type PageTraffic struct {
	GPA  uint64      `json:"gpa"`
	Home link.NodeID `json:"home"`
	// Rate is how often it comes to a node or becomes writable on one, per second,
	// over the last few seconds.
	Rate float64     `json:"rate"`
	Kind TrafficKind `json:"kind"`
	// Memory is what part of the guest's memory it belongs to, as far as that can
	// be told from outside the guest.
	Memory string       `json:"memory"`
	Nodes  []PageAtNode `json:"nodes"`
}

// PageAtNode is a hot page's traffic on one node.
type PageAtNode struct {
	Node link.NodeID `json:"node"`
	dsm.HotPage
}

// TrafficKind says what nodes do with a page they contend for.
type TrafficKind string

// The kinds of traffic.
const (
	// ReadShared: fetched to be read only.
	ReadShared TrafficKind = "read"
	// Produced: one node writes it, others read it.
	Produced TrafficKind = "producer"
	// WriteShared: several nodes write it.
	WriteShared TrafficKind = "write-shared"
	// Migratory: read, then written by each node in turn; it is fetched to be
	// written at once.
	Migratory TrafficKind = "migratory"
)

// kind judges a page by what happened to it on the nodes that were asked.
func (p *PageTraffic) kind() TrafficKind {
	writers, readers := 0, 0
	for _, n := range p.Nodes {
		switch {
		case n.Migratory:
			return Migratory
		case n.Writes+n.Upgrades > 0:
			writers++
		case n.Reads > 0:
			readers++
		}
	}
	switch {
	case writers == 0:
		return ReadShared
	case writers > 1 || readers == 0:
		// Who takes a page to write takes it from one that had written it.
		return WriteShared
	}
	return Produced
}

const (
	// MaxPages bounds how many of the hottest pages can be asked for.
	MaxPages = 256
	// hotPerPage is how many pages each node names for one that is asked for: what
	// is hot on one node need not be on the next.
	hotPerPage = 4
)

// makeStatistics sums up what this node has done; hot is how many pages it names.
func (n *node) makeStatistics(name string, hot int) NodeStatistics {
	s := NodeStatistics{NodeReport: n.makeReport(name), Up: time.Since(n.made)}
	if n.engine != nil {
		s.Latency = n.engine.Latencies()
		if hot > 0 {
			s.hot = n.engine.Hottest(min(hot, MaxPages*hotPerPage))
		}
	}
	return s
}

// hottest puts together what the nodes say of their hottest pages.
func hottest(nodes []NodeStatistics, n int, where func(gpa uint64) string) []PageTraffic {
	pages := map[uint64]*PageTraffic{}
	for i := range nodes {
		for _, h := range nodes[i].hot {
			p := pages[h.GPA]
			if p == nil {
				p = &PageTraffic{GPA: h.GPA, Home: h.Home}
				pages[h.GPA] = p
			}
			p.Rate += h.Rate
			p.Nodes = append(p.Nodes, PageAtNode{nodes[i].Node, h})
		}
	}
	var list []PageTraffic
	for _, p := range pages {
		p.Kind, p.Memory = p.kind(), where(p.GPA)
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b PageTraffic) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(a.GPA, b.GPA))
	})
	return list[:min(n, len(list))]
}

// question asks a lender for something while the guest runs; its answer repeats
// Seq.
type question struct {
	Seq uint64 `json:"seq"`
	Hot int    `json:"hot,omitempty"` // ctlStatistics: how many pages to name
	// ctlClock: what is to be added to the lender's TSC to get the guest's.
	TSCOffset int64 `json:"tsc_offset,omitempty"`
	// ctlTrace: which ring's events, after skipping some.
	Ring int    `json:"ring,omitempty"`
	Skip uint64 `json:"skip,omitempty"`
}

// statisticsAnswer is a lender's answer to ctlStatistics.
type statisticsAnswer struct {
	Seq   uint64         `json:"seq"`
	Node  NodeStatistics `json:"node"`
	Pages []dsm.HotPage  `json:"pages,omitempty"`
}

// maxName bounds what is shown of a host's name, in bytes.
const maxName = 256

// check makes an answer fit to be shown, or says why it is not one.
func (a *statisticsAnswer) check(from link.NodeID) error {
	if a.Node.Node != from || len(a.Node.CPUs) > MaxCPUs || len(a.Pages) > MaxPages*hotPerPage || a.Node.Missing != "" {
		return fmt.Errorf("%w: statistics of node %d with %d CPUs and %d pages", errMalformedControl, a.Node.Node, len(a.Node.CPUs), len(a.Pages))
	}
	a.Node.Name = link.Printable(a.Node.Name, maxName)
	a.Node.hot = a.Pages
	return nil
}
