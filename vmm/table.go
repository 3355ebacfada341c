package vmm

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteTable writes the closing table: a column for each node.
func (r *Result) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name string, cell func(n *NodeReport) string) {
		fmt.Fprintf(t, "%s\t", name)
		for i := range r.Nodes {
			fmt.Fprintf(t, "%s\t", cell(&r.Nodes[i]))
		}
		fmt.Fprintln(t)
	}
	count := func(f func(n *NodeReport) uint64) func(*NodeReport) string {
		return func(n *NodeReport) string { return fmt.Sprint(f(n)) }
	}
	fmt.Fprintf(w, "\nguest %s after %v", r.Outcome, r.Ran.Round(time.Millisecond))
	if r.Marked > 0 {
		fmt.Fprintf(w, ", booted in %v", r.Marked.Round(time.Millisecond))
	}
	fmt.Fprintln(w)
	row("", func(n *NodeReport) string {
		if n.Node == 0 {
			return "client"
		}
		return fmt.Sprintf("lender %d", n.Node)
	})
	row("vCPUs", func(n *NodeReport) string {
		var ids []string
		for _, c := range n.CPUs {
			ids = append(ids, fmt.Sprint(c.ID))
		}
		return strings.Join(ids, ",")
	})
	row("vCPU time", func(n *NodeReport) string {
		var sum time.Duration
		for _, c := range n.CPUs {
			sum += c.Time
		}
		return sum.Round(time.Millisecond).String()
	})
	row("KVM entries", count(func(n *NodeReport) (sum uint64) {
		for _, c := range n.CPUs {
			sum += c.Entries
		}
		return sum
	}))
	row("read faults", count(func(n *NodeReport) uint64 { return n.Memory.FaultsRead }))
	row("write faults", count(func(n *NodeReport) uint64 { return n.Memory.FaultsWrite }))
	row("  answered here", count(func(n *NodeReport) uint64 { return n.Memory.FaultsLocal }))
	row("  upgrades", count(func(n *NodeReport) uint64 { return n.Memory.Upgrades }))
	row("fault p50/p99", func(n *NodeReport) string {
		us := func(v int64) time.Duration { return time.Duration(v) * time.Microsecond }
		return fmt.Sprintf("%v/%v", us(n.Memory.LatencyP50), us(n.Memory.LatencyP99))
	})
	row("pages in", count(func(n *NodeReport) uint64 { return n.Memory.PagesIn }))
	row("pages out", count(func(n *NodeReport) uint64 { return n.Memory.PagesOut }))
	row("invalidated", count(func(n *NodeReport) uint64 { return n.Memory.Invalidations }))
	row("held back", count(func(n *NodeReport) uint64 { return n.Memory.Deferred }))
	row("token requests", count(func(n *NodeReport) uint64 { return n.Memory.TokenRequests }))
	row("round trip", func(n *NodeReport) string {
		if n.Node == 0 {
			return "-"
		}
		return n.RTT.Round(100 * time.Nanosecond).String()
	})
	row("KiB moved", count(func(n *NodeReport) uint64 { return n.bytesMoved() >> 10 }))
	row("IPIs sent", count(func(n *NodeReport) uint64 { return n.IPIsOut }))
	row("IPIs received", count(func(n *NodeReport) uint64 { return n.IPIsIn }))
	row("I/O forwarded", count(func(n *NodeReport) uint64 { return n.Forward }))
	row("stamp waits", count(func(n *NodeReport) uint64 { return n.Waits }))
	row("clock set forward", func(n *NodeReport) string {
		return fmt.Sprintf("%d x", n.Clock.Steps)
	})
	row("MiB resident", count(func(n *NodeReport) uint64 { return n.Resident >> 20 }))
	return t.Flush()
}
