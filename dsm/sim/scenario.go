package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"coalesce/dsm"
)

// Streams of random numbers that one seed gives, so that a new draw in one does
// not change the others.
const (
	streamScenario = iota
	streamWorld    // costs, delays, disturbances
	streamVCPUs    // one for each vCPU from here on
)

// dice draws from a stream.
type dice struct{ *rand.Rand }

func newDice(seed, stream uint64) dice { return dice{rand.New(rand.NewPCG(seed, stream))} }

// chance is true with probability p.
func (d dice) chance(p float64) bool { return p > 0 && d.Float64() < p }

// upTo draws from 1 to n.
func (d dice) upTo(n int) int { return 1 + d.IntN(n) }

// spread draws between lo and hi, all orders of magnitude alike.
func (d dice) spread(lo, hi time.Duration) int64 {
	return int64(float64(lo) * math.Pow(float64(hi)/float64(lo), d.Float64()))
}

// Scenario is what a seed decides before anything happens. Times are ns.
type Scenario struct {
	Seed  uint64
	Nodes []NodeSpec
	Homes []dsm.NodeID // of each region
	Links map[[2]dsm.NodeID]LinkSpec

	Hold     time.Duration // 0: adaptive
	Transfer time.Duration // the first guess

	Hot    int // pages that adders fight for
	Tables int // pages that wide instructions need most of
	Set    int // pages that roamers roam
	Wide   int // most pages of an instruction

	Work  int   // the programs stop after so many instructions, userfaults and frames
	Until int64 // or at this time

	Switch  float64 // chance that others run where threads meet, if they can (World.Switch)
	Kick    int64   // mean time between kicks of one vCPU; 0: none
	Spin    float64 // chance that a fault is taken in KVM's emulator with a signal pending
	Reclaim int64   // mean time between two pages that the kernel unmaps; 0: never
	Stale   int64   // mean time between two userfaults of nobody; 0: none

	Crash *CrashSpec // nil: every node is well
}

// NodeSpec is one node.
type NodeSpec struct {
	VCPUs, Devices int
	Stranger       bool    // a thread that the engine does not know uses its memory
	Slow           float64 // factor on everything its threads do; 1 is not slow
	Pause          float64 // chance that a thread loses its processor for milliseconds
	Huge           bool    // its own memory starts as 2 MiB mappings
	Skew           int64   // of its guest TSC, in ns
}

// LinkSpec is one direction of a link.
type LinkSpec struct {
	Delay, Jitter int64
	Rate          float64 // bytes per ns
	Loss          float64 // of a segment
	Outage        float64 // chance that a frame meets one
}

// CrashSpec is what goes wrong with a node.
type CrashSpec struct {
	Node dsm.NodeID
	At   int64
	How  CrashKind
}

// CrashKind is how a node goes wrong.
type CrashKind uint8

// The ways to go wrong.
const (
	Killed   CrashKind = iota // its process is gone: its peers' sockets tell them
	Vanished                  // its host is gone: its peers notice by its silence
	Garbles                   // it sends one of its peers what no correct node sends
)

func (k CrashKind) String() string {
	return [...]string{"is killed", "vanishes", "sends garbage"}[k]
}

// NewScenario draws a scenario.
func NewScenario(seed uint64) Scenario {
	d := newDice(seed, streamScenario)
	s := Scenario{Seed: seed, Links: map[[2]dsm.NodeID]LinkSpec{}}
	nodes := 2 + d.IntN(7)
	s.drawNodes(d, nodes)
	// Mostly the client's memory, as in a guest, but every node has some.
	for range nodes + d.IntN(17-nodes) {
		s.Homes = append(s.Homes, 0)
	}
	elsewhere := 0.4 * float64(d.IntN(3))
	for i := range s.Homes {
		switch {
		case i < nodes:
			s.Homes[i] = dsm.NodeID(i)
		case d.chance(elsewhere):
			s.Homes[i] = dsm.NodeID(d.IntN(nodes))
		}
	}
	kind := s.drawLinks(d, nodes)

	switch d.IntN(6) {
	case 0:
		s.Hold = time.Duration(d.spread(time.Nanosecond, 20*time.Millisecond))
	default:
		s.Transfer = time.Duration(d.spread(50*time.Microsecond, 50*time.Millisecond))
	}
	s.Hot = d.upTo(1 << d.IntN(6))
	s.Wide = 2 + d.IntN(24)
	s.Tables = s.Wide + d.IntN(16)
	s.Set = int(d.spread(2, 3000))
	s.Work = int(d.spread(3_000, 60_000))
	s.Until = int64(2 * time.Minute)

	maybe := func(p float64, lo, hi time.Duration) int64 {
		v := d.spread(lo, hi)
		if d.chance(p) {
			return v
		}
		return 0
	}
	s.Kick = maybe(0.8, max(300*time.Microsecond, kind.lo), 20*time.Millisecond+kind.lo)
	s.Switch = []float64{0, 0.02, 0.3}[d.IntN(3)]
	s.Spin = []float64{0, 0.001, 0.02}[d.IntN(3)]
	s.Reclaim = maybe(0.6, 50*time.Microsecond, 5*time.Millisecond)
	s.Stale = maybe(0.6, 50*time.Microsecond, 5*time.Millisecond)
	if d.chance(0.15) {
		s.Crash = &CrashSpec{Node: dsm.NodeID(d.IntN(nodes)), At: d.spread(10*time.Microsecond, 500*time.Millisecond), How: CrashKind(d.IntN(3))}
	}
	return s
}

func (s *Scenario) drawNodes(d dice, nodes int) {
	for i := range nodes {
		n := NodeSpec{VCPUs: d.upTo(4), Slow: 1, Huge: d.chance(0.5), Skew: int64(d.NormFloat64() * 2000)}
		n.Stranger = d.chance(0.1)
		if i == 0 || d.chance(0.1) {
			n.Devices = d.IntN(4)
		}
		if d.chance(0.2) {
			n.Slow = float64(d.spread(2, 40))
		}
		if d.chance(0.5) {
			n.Pause = float64(d.spread(1, 100)) / 10_000
		}
		s.Nodes = append(s.Nodes, n)
	}
}

// network is a kind of network, by the delays between its nodes.
type network struct{ lo, hi time.Duration }

func (s *Scenario) drawLinks(d dice, nodes int) network {
	// One kind of network for all, with differences; from a switch to the world.
	kinds := []network{
		{5 * time.Microsecond, 50 * time.Microsecond},
		{50 * time.Microsecond, time.Millisecond},
		{time.Millisecond, 20 * time.Millisecond},
	}
	kind := kinds[d.IntN(len(kinds))]
	jitter, loss, outage := d.Float64(), 0.0, 0.0
	if d.chance(0.5) {
		loss = float64(d.spread(1, 300)) / 10_000
	}
	if d.chance(0.3) {
		outage = 0.0005
	}
	rate := float64(d.spread(12, 5000)) / 1000 // 100 Mbit/s to 40 Gbit/s
	for a := range dsm.NodeID(nodes) {
		for b := range a {
			delay := d.spread(kind.lo, kind.hi)
			for _, pair := range [][2]dsm.NodeID{{a, b}, {b, a}} {
				s.Links[pair] = LinkSpec{Delay: delay, Jitter: int64(float64(delay) * jitter * d.Float64()), Rate: rate, Loss: loss, Outage: outage}
			}
		}
	}
	return kind
}

// Pages returns the size of the memory.
func (s *Scenario) Pages() int { return len(s.Homes) * dsm.RegionPages }

// VCPUs returns how many there are on all nodes.
func (s *Scenario) VCPUs() (n int) {
	for i := range s.Nodes {
		n += s.Nodes[i].VCPUs
	}
	return n
}

// String says in a line what goes on.
func (s *Scenario) String() string {
	var b strings.Builder
	devices, slow, lo, hi, loss := 0, 0, int64(math.MaxInt64), int64(0), 0.0
	for i := range s.Nodes {
		devices += s.Nodes[i].Devices
		if s.Nodes[i].Slow > 1 {
			slow++
		}
	}
	for _, l := range s.Links {
		lo, hi, loss = min(lo, l.Delay), max(hi, l.Delay), l.Loss
	}
	fmt.Fprintf(&b, "%d nodes (%d slow), %d vCPUs, %d devices, %d pages, links %v to %v, loss %.2f %%",
		len(s.Nodes), slow, s.VCPUs(), devices, s.Pages(), time.Duration(lo), time.Duration(hi), 100*loss)
	if s.Hold != 0 {
		fmt.Fprintf(&b, ", hold %v", s.Hold)
	}
	if c := s.Crash; c != nil {
		fmt.Fprintf(&b, ", node %d %v at %v", c.Node, c.How, time.Duration(c.At))
	}
	return b.String()
}

// Bound is how long an instruction may take: as often as its pages may be lost
// before its vCPU asks for the token, once for everybody else who holds it
// before, and once for itself, the time to fetch all its pages, and those that
// interrupts need, one after the other, each from behind a hold of every node and
// a copy of every device.
func (s *Scenario) Bound() time.Duration {
	hold := int64(s.Hold)
	if hold == 0 {
		hold = int64(100 * time.Millisecond)
	}
	delay := int64(0) // one way, with what happens on it
	for _, l := range s.Links {
		d := l.Delay + l.Jitter
		if l.Loss > 0 {
			d += 6*l.Delay + 2*timeout
		}
		if l.Outage > 0 {
			d += keepAlive / 2
		}
		delay = max(delay, d)
	}
	work, devices := int64(0), int64(0) // at its ends
	for _, n := range s.Nodes {
		d := int64(n.Slow * (costWake + costWork + costFlush))
		if n.Pause > 0 {
			d += longestPause
		}
		work = max(work, d)
		devices += int64(n.Devices) * (int64(n.Slow*longestCopy) + d)
	}
	const lost = 4 // dsm's robberies
	fetch := int64(len(s.Nodes))*hold + devices + 3*(delay+work)
	return time.Duration(int64(lost+s.VCPUs()) * int64(s.Wide+4*handlerPages) * fetch)
}
