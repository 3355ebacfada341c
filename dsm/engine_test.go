package dsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
	"coalesce/link"
	"coalesce/link/linktest"
)

// noClock leaves frames unstamped.
type noClock struct{}

func (noClock) Now() uint64        { return 0 }
func (noClock) Await(uint64) error { return nil }

// cluster is several nodes in one process, joined by socket pairs.
type cluster struct {
	t       testing.TB
	mems    []*uffd.Memory
	engines []*Engine
}

// newCluster joins nodes whose memory is regions regions, homed round-robin.
func newCluster(t testing.TB, nodes, regions int, hold time.Duration) *cluster {
	t.Helper()
	c := &cluster{t: t}
	homes := make([]NodeID, regions)
	for i := range homes {
		homes[i] = NodeID(i % nodes)
	}
	for n := range nodes {
		mem, err := uffd.NewMemory(fmt.Sprintf("node%d", n), []uffd.Window{{GPA: 0, Size: uint64(regions) * RegionPages * PageSize}}, uffd.MemoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := New(Config{Self: NodeID(n), Memory: mem, Homes: homes, View: 1, Hold: hold, Clock: noClock{},
			OnFail: func(err error) { t.Errorf("node %d: %v", n, err) }})
		if errors.Is(err, uffd.ErrNotSupported) {
			t.Skipf("no userfaultfd here: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		c.mems = append(c.mems, mem)
		c.engines = append(c.engines, e)
	}
	for a := range nodes {
		for b := a + 1; b < nodes; b++ {
			ca, cb := linktest.Pipe(t, link.Page, link.Options{}, link.Options{})
			if err := errors.Join(c.engines[a].AddPeer(NodeID(b), ca), c.engines[b].AddPeer(NodeID(a), cb)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, e := range c.engines {
		e.Start()
	}
	t.Cleanup(c.close)
	return c
}

func (c *cluster) close() {
	// Together, as a link that ends is a failure for whoever still runs.
	for _, e := range c.engines {
		e.fail(ErrClosed)
	}
	for i, e := range c.engines {
		if err := errors.Join(e.Close(), c.mems[i].Close()); err != nil {
			c.t.Error(err)
		}
	}
}

// addr is where a node's guest view has a page.
func (c *cluster) addr(node int, page uint32) uintptr { return c.mems[node].HVA(page) }

// TestEngineCountersAreExact has threads of every node increment words of a few
// contended pages with locked instructions; in the end no increment is lost,
// whoever reads.
func TestEngineCountersAreExact(t *testing.T) {
	for _, nodes := range []int{2, 3, 4} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			c := newCluster(t, nodes, 4, 50*time.Microsecond)
			pages := []uint32{0, 1, 15, RegionPages + 3, 2*RegionPages + 100, 3*RegionPages + 511}
			const rounds = 300
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var counts sync.Map // page to *[nodes]int, by one goroutine each
			var wg sync.WaitGroup
			for n := range nodes {
				done := make([]int, len(pages))
				counts.Store(n, done)
				wg.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(n)))
					th := c.engines[n].AddThread(unix.Gettid(), nil)
					for range rounds {
						p := r.IntN(len(pages))
						if err := uffdtest.Increment(c.addr(n, pages[p]) + 64); err != nil {
							t.Error(err)
							return
						}
						th.Proof()
						done[p]++
					}
				})
			}
			wg.Wait()
			for i, p := range pages {
				want := 0
				counts.Range(func(_, v any) bool { want += v.([]int)[i]; return true })
				for n := range nodes {
					got, err := uffdtest.Load(c.addr(n, p) + 64)
					if err != nil || int(uint32(got)) != want {
						t.Errorf("page %d read by node %d: %d, %v; %d increments were made", p, n, uint32(got), err, want)
					}
				}
			}
			for n, e := range c.engines {
				t.Logf("node %d: %+v", n, e.Stats())
			}
		})
	}
}

// TestEnginePinSeesGuestWrites has a device on one node read and write through
// pins what threads of another write and read through their guest view.
func TestEnginePinSeesGuestWrites(t *testing.T) {
	c := newCluster(t, 2, 2, 0)
	const gpa = RegionPages*PageSize - 8 // the last word of a region
	for i := range uint64(200) {
		if err := uffdtest.Store(c.addr(1, RegionPages-1)+PageSize-8, i); err != nil {
			t.Fatal(err)
		}
		var b [16]byte // crosses into a region homed at the other node
		if _, err := c.engines[0].ReadAt(b[:], gpa); err != nil {
			t.Fatal(err)
		}
		if got := binary.LittleEndian.Uint64(b[:]); got != i {
			t.Fatalf("device read %d, guest wrote %d", got, i)
		}
		binary.LittleEndian.PutUint64(b[8:], ^i)
		if _, err := c.engines[0].WriteAt(b[:], gpa); err != nil {
			t.Fatal(err)
		}
		if got, err := uffdtest.Load(c.addr(1, RegionPages)); err != nil || got != ^i {
			t.Fatalf("guest read %#x, %v; device wrote %#x", got, err, ^i)
		}
	}
	if _, err := c.engines[0].ReadAt(make([]byte, 8), 2*RegionPages*PageSize-4); err == nil {
		t.Fatal("a read beyond memory succeeded")
	}
}

// TestEnginePinHoldsOffInvalidation shows that a page stays while it is pinned
// and goes at once after.
func TestEnginePinHoldsOffInvalidation(t *testing.T) {
	c := newCluster(t, 2, 2, 0)
	p, err := c.engines[0].Pin(0, 8, true)
	if err != nil {
		t.Fatal(err)
	}
	wrote := make(chan error, 1)
	go func() { wrote <- uffdtest.Store(c.addr(1, 0), 7) }()
	for c.engines[0].Stats().Deferred == 0 {
		time.Sleep(100 * time.Microsecond) // polls a counter; nothing is assumed of the time
	}
	binary.LittleEndian.PutUint64(p.Bytes, 5)
	select {
	case err := <-wrote:
		t.Fatalf("the other node wrote a pinned page (%v)", err)
	default:
	}
	p.Release()
	if err := <-wrote; err != nil {
		t.Fatal(err)
	}
	if got, err := uffdtest.Load(c.addr(0, 0)); err != nil || got != 7 {
		t.Fatalf("read %d, %v, want the later write", got, err)
	}
}

// TestEngineCloseReleasesWaiters ends a session while a thread and a device
// wait for a page that its home will never send.
func TestEngineCloseReleasesWaiters(t *testing.T) {
	mem, err := uffd.NewMemory("alone", []uffd.Window{{GPA: 0, Size: RegionPages * PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{Self: 0, Memory: mem, Homes: []NodeID{1}, View: 1, Clock: noClock{}})
	if errors.Is(err, uffd.ErrNotSupported) {
		t.Skipf("no userfaultfd here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	mine, theirs := linktest.Pipe(t, link.Page, link.Options{}, link.Options{})
	if err := e.AddPeer(1, mine); err != nil {
		t.Fatal(err)
	}
	e.Start()
	touched, pinned := make(chan error, 1), make(chan error, 1)
	go func() { touched <- uffdtest.Touch(mem.HVA(3), true) }()
	go func() { _, err := e.Pin(5*PageSize, 8, false); pinned <- err }()
	var h link.Header
	buf := make([]byte, 2*MsgSize)
	for got := 0; got < 2*MsgSize; {
		b, err := theirs.Recv(&h, buf)
		if err != nil {
			t.Fatal(err)
		}
		got += len(b)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-touched; err != nil {
		t.Errorf("touch: %v", err)
	}
	if err := <-pinned; !errors.Is(err, ErrClosed) {
		t.Errorf("pin: %v, want ErrClosed", err)
	}
	if err := mem.Close(); err != nil {
		t.Error(err)
	}
}

// TestEngineRejectsBadPeers feeds an engine what no correct peer sends.
func TestEngineRejectsBadPeers(t *testing.T) {
	whole := content{}
	data := append(whole.appendHeader((&Msg{Kind: Data}).Append(nil), PageSize), make([]byte, PageSize)...)
	short := func(m Msg) []byte { return m.Append(nil) }
	for _, tc := range []struct {
		name  string
		view  uint32
		frame []byte
	}{
		{"garbage", 1, []byte{0xff, 0xff}},
		{"nothing", 1, nil},
		{"page out of range", 1, short(Msg{Kind: Req, Page: 1 << 30})},
		{"wrong view", 2, short(Msg{Kind: Req, Page: 1})},
		{"a message and garbage", 1, append(short(Msg{Kind: Req, Page: 1}), 1)},
		{"unasked data", 1, data},
		{"data cut short", 1, data[:len(data)-1]},
		{"data without content", 1, data[:MsgSize]},
		{"acknowledgement of nothing", 1, short(Msg{Kind: InvAck, Page: 1})},
		{"command from a node that is not home", 1, short(Msg{Kind: Inv, Page: 1})},
		{"grant of the token by a lender", 1, short(Msg{Kind: TokenGrant})},
	} {
		t.Run(tc.name, func(t *testing.T) {
			mem, err := uffd.NewMemory("victim", []uffd.Window{{GPA: 0, Size: RegionPages * PageSize}}, uffd.MemoryOptions{})
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			e, err := New(Config{Self: 0, Memory: mem, Homes: []NodeID{0}, View: 1, Clock: noClock{}, OnFail: func(err error) { failed <- err }})
			if errors.Is(err, uffd.ErrNotSupported) {
				t.Skipf("no userfaultfd here: %v", err)
			}
			if err != nil {
				t.Fatal(err)
			}
			mine, theirs := linktest.Pipe(t, link.Page, link.Options{}, link.Options{})
			if err := e.AddPeer(1, mine); err != nil {
				t.Fatal(err)
			}
			e.Start()
			if err := theirs.Send(link.Header{Kind: frameKind, View: tc.view}, tc.frame); err != nil {
				t.Fatal(err)
			}
			t.Log(<-failed)
			var h link.Header
			if _, err := theirs.Recv(&h, make([]byte, 64)); err == nil {
				t.Error("the offender was not told")
			}
			if err := errors.Join(e.Close(), mem.Close()); err != nil {
				t.Error(err)
			}
		})
	}
}
