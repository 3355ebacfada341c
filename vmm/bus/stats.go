package bus

import (
	"cmp"
	"slices"
	"sync"
)

// DeviceStats counts the accesses to one range since it was registered.
type DeviceStats struct {
	Name          string
	Base, Length  uint64 // in bytes
	Reads, Writes uint64
}

// Stats returns the counters of every range, in order of address.
func (b *Bus) Stats() []DeviceStats {
	var out []DeviceStats
	for _, c := range *b.ranges.Load() {
		out = append(out, DeviceStats{c.name, c.base, c.last - c.base + 1, c.reads.Load(), c.writes.Load()})
	}
	return out
}

// UnclaimedStats counts the accesses to one address that no device answers.
type UnclaimedStats struct {
	Addr          uint64
	Reads, Writes uint64
}

// Unclaimed returns the addresses that were accessed without a device, the
// busiest first, and how many accesses went to addresses beyond those kept. A
// guest that polls such an address shows here.
func (b *Bus) Unclaimed() (byAddr []UnclaimedStats, others uint64) {
	return b.unclaimed.snapshot()
}

// maxUnclaimed bounds the addresses that are counted one by one: a guest may
// probe as many as it likes.
const maxUnclaimed = 64

type unclaimedLog struct {
	mu     sync.Mutex
	n      int // of entries in use
	addrs  [maxUnclaimed]UnclaimedStats
	others uint64
}

func (l *unclaimedLog) count(addr uint64, write bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := 0
	for i < l.n && l.addrs[i].Addr != addr {
		i++
	}
	if i == maxUnclaimed {
		l.others++
		return
	}
	if i == l.n {
		l.addrs[i].Addr = addr
		l.n++
	}
	if write {
		l.addrs[i].Writes++
	} else {
		l.addrs[i].Reads++
	}
}

func (l *unclaimedLog) snapshot() ([]UnclaimedStats, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := slices.Clone(l.addrs[:l.n])
	slices.SortStableFunc(out, func(a, b UnclaimedStats) int {
		return cmp.Compare(b.Reads+b.Writes, a.Reads+a.Writes)
	})
	return out, l.others
}
