package top

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"coalesce/vmm"
)

// WriteTable writes the sample as tables, for each guest one of its nodes and one
// of its pages.
func (s *Sample) WriteTable(w io.Writer) error {
	if len(s.Guests) == 0 {
		_, err := fmt.Fprintln(w, "no guest")
		return err
	}
	for i, g := range s.Guests {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if len(s.Guests) > 1 {
			fmt.Fprintf(w, "guest of %s\n", g.Client)
		}
		if err := g.writeNodes(w); err != nil {
			return err
		}
		if len(g.Pages) == 0 {
			continue
		}
		fmt.Fprintln(w)
		if err := g.writePages(w); err != nil {
			return err
		}
	}
	return nil
}

func (g *GuestSample) writeNodes(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "node\tfaults/s\tlocal/s\tMB/s in\tMB/s out\tp50\tp99\tIPIs/s\tI/O/s\tvCPUs busy\tMiB here\tround trip\t")
	for _, n := range g.Nodes {
		if n.Missing != "" {
			fmt.Fprintf(t, "%d\t%s\t\n", n.Node, n.Missing)
			continue
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.2f\t%d\t%s\t\n", n.Node, number(n.Faults), number(n.Local),
			number(n.In/1e6), number(n.Out/1e6), span(n.P50), span(n.P99), number(n.IPIs), number(n.IO), n.Busy, n.Resident>>20, span(n.RTT))
	}
	return t.Flush()
}

func (g *GuestSample) writePages(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "page\tmoves/s\tkind\thome\tby node: moves/s (reads, writes, upgrades)\twhat is there")
	for _, p := range g.Pages {
		var nodes []string
		for _, n := range p.Nodes {
			nodes = append(nodes, fmt.Sprintf("%d: %s (%d, %d, %d)", n.Node, number(n.Rate), n.Reads, n.Writes, n.Upgrades))
		}
		fmt.Fprintf(t, "%#x\t%s\t%s\t%d\t%s\t%s\n", p.GPA, number(p.Rate), p.Kind, p.Home, strings.Join(nodes, "  "), p.what())
	}
	return t.Flush()
}

// maxSymbols is how many symbols of a page are shown.
const maxSymbols = 3

// what says what the guest keeps in the page.
func (p *PageSample) what() string {
	if len(p.Symbols) == 0 {
		return p.Memory
	}
	shown := strings.Join(p.Symbols[:min(maxSymbols, len(p.Symbols))], ", ")
	if more := len(p.Symbols) - maxSymbols; more > 0 {
		shown += fmt.Sprintf(" and %d more", more)
	}
	return p.Memory + ": " + shown
}

// number is a rate of any size in few characters.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// span is a time of any length in few characters, - for none.
func span(d time.Duration) string {
	switch {
	case d == 0:
		return "-"
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// WriteStatus writes what an instance is, for people.
func WriteStatus(w io.Writer, s *vmm.Status) error {
	fmt.Fprintf(w, "%s: %s on %s, process %d, since %s\n", s.Name, s.Role, s.Host, s.PID, s.Started.Local().Format(time.DateTime))
	switch {
	case s.Lending != nil:
		return writeLending(w, s.Lending)
	case s.Guest != nil:
		return writeGuest(w, s.Guest)
	}
	_, err := fmt.Fprintln(w, "  the guest does not run yet")
	return err
}

func writeGuest(w io.Writer, g *vmm.GuestStatus) error {
	kernel := g.Kernel
	if g.Version != "" {
		kernel += " (" + g.Version + ")"
	}
	fmt.Fprintf(w, "  guest %s, up since %s", kernel, g.Since.Local().Format(time.DateTime))
	if g.Boots > 1 {
		fmt.Fprintf(w, ", boot %d", g.Boots)
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "  node\tvCPUs\tMiB\tdistance\tround trip\taddress")
	for _, n := range g.Nodes {
		distance, address := "-", "this host"
		if n.Node != 0 {
			distance, address = fmt.Sprint(n.Distance), n.Address
		}
		cpus := strings.Trim(strings.ReplaceAll(fmt.Sprint(n.CPUs), " ", ","), "[]")
		fmt.Fprintf(t, "  %d\t%s\t%d\t%s\t%s\t%s\n", n.Node, cpus, n.Memory>>20, distance, span(n.RTT), address)
	}
	return t.Flush()
}

func writeLending(w io.Writer, l *vmm.LenderStatus) error {
	fmt.Fprintf(w, "  lends at %s: %d of %d CPUs, %d of %d MiB are lent\n", l.Address, l.CPUsLent, l.CPUs, l.MemoryLent>>20, l.Memory>>20)
	if len(l.Sessions) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "  client\tnode there\tCPUs\tMiB\tsince")
	for _, s := range l.Sessions {
		fmt.Fprintf(t, "  %s\t%d\t%d\t%d\t%s\n", s.Client, s.Node, s.CPUs, s.Memory>>20, s.Since.Local().Format(time.DateTime))
	}
	return t.Flush()
}
