package dsm

import (
	"cmp"
	"math"
	"slices"
)

// traffic is how a page has come to this node and left it, for somebody who wants
// to know which pages the nodes contend for. Its region's lock guards it.
type traffic struct {
	reads    uint32 // fetched to be read
	writes   uint32 // fetched to be written
	upgrades uint32 // made writable without content
	left     uint32 // given up
	// heat counts the first three with an exponential decay, as of at, in
	// monotonic ns.
	heat float32
	at   int64
}

// heatHalfLife is how long it takes for a page's heat to halve, in ns.
const heatHalfLife = 2_000_000_000

// heatAt returns the heat at a time that is not before the last move.
func (t *traffic) heatAt(now int64) float64 {
	return float64(t.heat) * math.Exp2(-float64(now-t.at)/heatHalfLife)
}

// moved records that the page came, or became writable.
func (t *traffic) moved(n *uint32, now int64) {
	*n++
	t.heat, t.at = float32(t.heatAt(now)+1), now
}

// moved counts how a page of the region came. The region's mu is held.
func (e *Engine) moved(r *region, en *entry, how *uint32) {
	r.moved = e.host.Now()
	en.traffic.moved(how, r.moved)
}

// HotPage is a page that comes and goes often.
type HotPage struct {
	GPA  uint64 `json:"gpa"`
	Home NodeID `json:"home"`
	// Rate is how often it comes to this node or becomes writable here, per
	// second: a mean over the last few seconds, recent ones counting more.
	Rate float64 `json:"rate"`
	// Since the engine was made: fetched to be read, fetched to be written,
	// made writable without content, given up.
	Reads    uint32 `json:"reads"`
	Writes   uint32 `json:"writes"`
	Upgrades uint32 `json:"upgrades"`
	Left     uint32 `json:"left"`
	// Migratory: the engine has learnt that it is read, then written, each time
	// it comes, and asks for it to be written at once.
	Migratory bool `json:"migratory,omitempty"`
}

// Moves is how often the page came to this node or became writable here.
func (h *HotPage) Moves() uint64 { return uint64(h.Reads) + uint64(h.Writes) + uint64(h.Upgrades) }

// Hottest returns the n pages that come to this node most often at present,
// hottest first. Regions that nothing has come to for a minute are not looked at.
// Any goroutine.
func (e *Engine) Hottest(n int) []HotPage { return e.hottest(n, 30*heatHalfLife) }

// hottest is Hottest for regions to which something has come in the last cold ns.
func (e *Engine) hottest(n int, cold int64) []HotPage {
	now := e.host.Now()
	// A heat that has not had the time to build up stands for more.
	perSecond := math.Ln2 / (heatHalfLife / 1e9) / (1 - math.Exp2(-float64(max(1, now-e.made))/heatHalfLife))
	var hot []HotPage
	for i := range e.regions {
		r := &e.regions[i]
		r.mu.Lock()
		if r.pages != nil && r.moved != 0 && now-r.moved < cold {
			for j := range r.pages {
				en := &r.pages[j]
				if en.traffic.at == 0 {
					continue // nothing has come
				}
				hot = append(hot, HotPage{GPA: e.host.GPA(r.first + uint32(j)), Home: r.home,
					Rate:  en.traffic.heatAt(now) * perSecond,
					Reads: en.traffic.reads, Writes: en.traffic.writes, Upgrades: en.traffic.upgrades, Left: en.traffic.left,
					Migratory: en.habit.score >= habitSure})
			}
		}
		r.mu.Unlock()
	}
	slices.SortFunc(hot, func(a, b HotPage) int {
		return cmp.Or(cmp.Compare(b.Rate, a.Rate), cmp.Compare(b.Moves(), a.Moves()), cmp.Compare(a.GPA, b.GPA))
	})
	return hot[:min(n, len(hot))]
}

// LatencyBin is how many transfers took about so long.
type LatencyBin struct {
	Micros int64 `json:"us"` // at most so long, and longer than the bin before
	Count  int64 `json:"n"`
}

// Latencies returns the distribution of the time from a request to its answer
// since the engine was made: the bins that are not empty, in ascending order.
// Any goroutine.
func (e *Engine) Latencies() []LatencyBin {
	var bins []LatencyBin
	for _, b := range e.stats.latency.snapshot().Distribution() {
		if b.Count > 0 {
			bins = append(bins, LatencyBin{b.To, b.Count})
		}
	}
	return bins
}
