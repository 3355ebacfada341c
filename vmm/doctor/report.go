package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Status is how one requirement is met.
type Status string

const (
	OK       Status = "ok"       // works
	Degraded Status = "degraded" // works, at a cost
	Missing  Status = "missing"  // does not work, or could not be probed
)

// Check is what one probe found.
type Check struct {
	Name     string `json:"name"`
	Status   Status `json:"status"`
	Measured string `json:"measured"`        // what was seen
	Costs    string `json:"costs,omitempty"` // what the shortfall costs; empty when ok
	Mend     string `json:"mend,omitempty"`  // the command, or the change, that ends it
}

// Report is a host's state of health. Checks come in the order in which they
// depend on each other.
type Report struct {
	Checks  []Check `json:"checks"`
	Verdict Verdict `json:"verdict"`
}

// WriteJSON writes the report as one JSON object, indented.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report for people: one line per check, below it what a
// shortfall costs and how to mend it, and the verdict at the end.
func (r Report) WriteText(w io.Writer) error {
	const (
		linux = "Linux guests on this host"
		span  = "guests across several hosts"
	)
	name, status := 0, len(Degraded)
	for _, c := range r.Checks {
		name = max(name, len(c.Name))
	}
	var b strings.Builder
	line := func(first, second, third string) {
		fmt.Fprintf(&b, "%-*s  %-*s  %s\n", name, first, status, second, third)
	}
	for _, c := range r.Checks {
		line(c.Name, string(c.Status), c.Measured)
		if c.Costs != "" {
			line("", "costs", c.Costs)
		}
		if c.Mend != "" {
			line("", "mend", c.Mend)
		}
	}
	answer := func(question string, yes bool, reason string) {
		s := "yes"
		if !yes {
			s = "no: " + reason
		}
		fmt.Fprintf(&b, "%-*s  %s\n", max(len(linux), len(span)), question, s)
	}
	b.WriteByte('\n')
	answer(linux, r.Verdict.CanRunLinux, r.Verdict.RunLinuxReason)
	answer(span, r.Verdict.CanSpanHosts, r.Verdict.SpanHostsReason)
	fmt.Fprintf(&b, "\nWhat works here: %s.\n", r.Verdict.Works)
	_, err := io.WriteString(w, b.String())
	return err
}
