package vmm

import (
	"strings"
	"testing"
	"time"
)

// TestWriteTable: a column for each node, and the links as the client has measured them.
func TestWriteTable(t *testing.T) {
	r := Result{Outcome: PoweredOff, Ran: 1500 * time.Millisecond, Nodes: []NodeReport{
		{Node: 0, CPUs: []CPUReport{{ID: 0, Time: time.Second}}},
		{Node: 1, CPUs: []CPUReport{{ID: 1}, {ID: 2}}, RTT: 123456 * time.Nanosecond, IPIsOut: 7},
	}}
	var b strings.Builder
	if err := r.WriteTable(&b); err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for line := range strings.Lines(b.String()) {
		if f := strings.Fields(line); len(f) > 2 {
			rows[strings.Join(f[:len(f)-2], " ")] = strings.Join(f[len(f)-2:], " ")
		}
	}
	for name, want := range map[string]string{
		"vCPUs": "0 1,2", "vCPU time": "1s 0s", "round trip": "- 123.5µs", "IPIs sent": "0 7", "guest powered off": "after 1.5s",
	} {
		if rows[name] != want {
			t.Errorf("%q: %q, want %q\n%s", name, rows[name], want, b.String())
		}
	}
}
