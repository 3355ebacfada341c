package dsm

import (
	"testing"

	"coalesce/dsm/uffd/uffdtest"
)

// BenchmarkRemoteFault has two nodes in one process write to one page in turns:
// an operation is a write fault on a page that the other node has, with what both
// engines, their links and the kernel do for it.
func BenchmarkRemoteFault(b *testing.B) {
	c := newCluster(b, 2, 2, 1)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := uffdtest.Increment(c.addr(i%2, 5)); err != nil {
			b.Fatal(err)
		}
	}
}
