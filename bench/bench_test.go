package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/vcpu/kvm"
	"coalesce/vmm"
)

// farArgument makes the test binary a far node.
const farArgument = "bench-far-node"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == farArgument {
		if err := Far(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestDSM measures everything once, and looks at what does not depend on how busy
// the machine is.
func TestDSM(t *testing.T) {
	var out bytes.Buffer
	var told []string
	err := DSM(context.Background(), Options{
		Device: "/dev/kvm", Rounds: 1, JSON: true, Out: &out, FarArgs: []string{farArgument},
		Progress: func(_, _ int, what string) { told = append(told, what) },
	})
	if errors.Is(err, kvm.ErrNotSupported) || errors.Is(err, uffd.ErrNotSupported) {
		t.Skipf("not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var got table
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	said := 1 + 2*len(lines)
	if len(got.Pairs) > 0 {
		said += 2
	}
	if len(got.Lines) != len(lines) || len(told) != said {
		t.Errorf("%d lines, %d said, of %d", len(got.Lines), len(told), len(lines))
	}
	if (len(got.Pairs) == 0) != (len(got.Left) > 0) {
		t.Errorf("scans: %d pairs, left out: %q", len(got.Pairs), got.Left)
	}
	for _, p := range got.Pairs {
		if p.Value <= 0 || p.Other <= 0 {
			t.Errorf("%+v", p)
		}
		t.Log(p)
	}
	for _, l := range got.Left {
		t.Log(l)
	}
	for _, l := range got.Lines {
		if l.N != benchPages || l.P50 <= 0 || l.FloorP50 <= 0 || l.P99 < l.P50 || l.FloorP99 < l.FloorP50 {
			t.Errorf("%+v", l)
		}
		t.Logf("%s: %.1f µs, floor %.1f µs", l.Name, l.P50, l.FloorP50)
	}
	for _, c := range got.Counts {
		// Twelve pages one by one are as many round trips.
		if c.Unit == "round trips" && (c.Value < .5 || c.Value > groupPages/2) {
			t.Errorf("%s: %.2f %s", c.Name, c.Value, c.Unit)
		}
		t.Logf("%s: %.2f %s", c.Name, c.Value, c.Unit)
	}
}

func TestRatio(t *testing.T) {
	for _, tc := range []struct {
		rounds []float64
		target float64
		want   string
	}{
		{[]float64{1.5, 1, 1.2}, 1.25, "1.20 (1.00–1.50) ≤ 1.25 met"},
		{[]float64{1.5}, 1.25, "1.50 (1.50–1.50) > 1.25 missed"},
		{[]float64{2, 4}, 0, "2.00 (2.00–4.00)"},
	} {
		if got := ratioOf(tc.rounds, tc.target).String(); got != tc.want {
			t.Errorf("%v: %s, want %s", tc.rounds, got, tc.want)
		}
	}
}

// TestMemory measures everything once in little memory: the guest must have got
// its huge pages, and its reads take about what they do in a plain one.
func TestMemory(t *testing.T) {
	host, err := vmm.OpenHost("/dev/kvm", "test")
	if errors.Is(err, kvm.ErrNotSupported) {
		t.Skipf("not here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	host.AllowShadowPaging = true
	var out bytes.Buffer
	o := Options{Device: "/dev/kvm", Rounds: 1, JSON: true, Out: &out, Progress: func(int, int, string) {}, readBits: 25}
	if err := Memory(context.Background(), o, host); err != nil {
		t.Fatal(err)
	}
	var got MemoryTable
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	for _, l := range got.Lines {
		if l.HugeMiB < 32 || l.Floor <= 0 || l.Ratio.Median > 3 {
			t.Errorf("%+v", l)
		}
		t.Logf("%s: %.1f ns, plain guest %.1f ns, %d MiB in huge pages", l.Name, l.Product, l.Floor, l.HugeMiB)
	}
	if len(got.Lines) == 0 {
		t.Error("nothing was measured")
	}
}
