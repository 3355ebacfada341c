package vmm

import (
	"reflect"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/link"
)

func TestNewLayout(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	l, err := NewLayout([]Share{{CPUs: 2, Memory: 4 * gib}, {CPUs: 3, Memory: 64 * mib, Distance: 40}, {CPUs: 1, Distance: 20}})
	if err != nil {
		t.Fatal(err)
	}
	wantWindows := []uffd.Window{{GPA: 0, Size: 3 * gib}, {GPA: 4 * gib, Size: gib}, {GPA: 6 * gib, Size: 64 * mib}}
	if !reflect.DeepEqual(l.Windows, wantWindows) {
		t.Errorf("windows %+v, want %+v", l.Windows, wantWindows)
	}
	var ids []uint32
	for _, c := range l.CPUs {
		ids = append(ids, c.APICID)
	}
	if want := []uint32{0, 1, 4, 5, 6, 8}; !reflect.DeepEqual(ids, want) {
		t.Errorf("APIC ids %v, want %v: each node a package", ids, want)
	}
	if got := l.Homes[len(l.Homes)-1]; got != 1 || l.Homes[0] != 0 || len(l.Homes) != (4*gib+64*mib)/granule {
		t.Errorf("%d homes, the last region's is node %d", len(l.Homes), got)
	}
	m := l.ACPI()
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
	if want := [][]uint8{{10, 40, 20}, {40, 10, 40}, {20, 40, 10}}; !reflect.DeepEqual(m.Distances, want) {
		t.Errorf("distances %v, want %v", m.Distances, want)
	}
	if got := l.Local(link.NodeID(1)); len(got) != 3 || got[0].ID != 2 {
		t.Errorf("node 1 runs %+v", got)
	}
}

func TestNewLayoutRefuses(t *testing.T) {
	for name, shares := range map[string][]Share{
		"no host":           nil,
		"17 hosts":          make([]Share, 17),
		"no CPU":            {{Memory: granule}},
		"no memory":         {{CPUs: 1}},
		"an odd size":       {{CPUs: 1, Memory: granule + 1}},
		"a negative count":  {{CPUs: -1, Memory: granule}},
		"too many CPUs":     {{CPUs: 40, Memory: granule}, {CPUs: 40}},
		"too much memory":   {{CPUs: 1, Memory: maxMemory}, {CPUs: 1, Memory: granule}},
		"a size that wraps": {{CPUs: 1, Memory: 1 << 63}, {CPUs: 1, Memory: 1 << 63}},
	} {
		if l, err := NewLayout(shares); err == nil {
			t.Errorf("%s: accepted as %+v", name, l)
		}
	}
}

func TestParseLender(t *testing.T) {
	got, err := ParseLender("10.0.0.2,cpus=2,memory=65M,distance=40")
	if want := (LenderSpec{Address: "10.0.0.2:" + DefaultPort, CPUs: 2, Memory: 66 << 20, Distance: 40}); err != nil || got != want {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	for in, want := range map[string]string{"host": "host:7411", "host:1": "host:1", "10.0.0.2:22": "10.0.0.2:22", "::1": "[::1]:7411",
		"[::1]": "[::1]:7411", "[fe80::1%eth0]:22": "[fe80::1%eth0]:22"} {
		if got, err := ParseLender(in + ",cpus=1"); err != nil || got.Address != want {
			t.Errorf("%s: %q, %v, want %q", in, got.Address, err, want)
		}
	}
	for _, in := range []string{"host:,cpus=1", "host:0,cpus=1", "host:99999,cpus=1", "a:b:c,cpus=1", "", ",cpus=1", "h", "h,cpus=0", "h,cpus=x", "h,cpus=1,memory=x", "h,cpus=1,distance=10",
		"h,cpus=1,distance=255", "h,cpus=1,colour=red"} {
		if got, err := ParseLender(in); err == nil {
			t.Errorf("%q: accepted as %+v", in, got)
		}
	}
}
