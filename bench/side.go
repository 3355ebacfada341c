package bench

import (
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/link"
)

// Guest-physical addresses of the memories; the floor's is one region.
const (
	productGPA = 0x1000_0000
	floorGPA   = 0x2000_0000
	benchPages = dsm.RegionPages
)

// side is a process's product and floor.
type side struct {
	engine *dsm.Engine
	mem    *uffd.Memory
	pages  uint32 // of mem
	floor  *floorMemory
	links  []*link.Conn
	failed chan error
}

// newSide makes a node's memories, the product's of so many pages, and starts its
// engine. wires holds the product's to the other nodes, by their ids; they are
// taken over.
func newSide(self, home, pages int, hold time.Duration, wires []*os.File) (*side, error) {
	s := &side{failed: make(chan error, 4), pages: uint32(pages)}
	var err error
	s.mem, err = uffd.NewMemory("product", []uffd.Window{{GPA: productGPA, Size: uint64(pages) * dsm.PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		return nil, err
	}
	if s.floor, err = newFloorMemory(floorGPA); err != nil {
		return nil, err
	}
	homes := slices.Repeat([]dsm.NodeID{dsm.NodeID(home)}, pages/dsm.RegionPages)
	s.engine, err = dsm.New(dsm.Config{Self: dsm.NodeID(self), Memory: s.mem, Homes: homes, Hold: hold, Clock: noClock{},
		OnFail: func(err error) { s.failed <- err }})
	if err != nil {
		return nil, err
	}
	for node, f := range wires {
		if node == self {
			continue
		}
		c, err := pageLink(f, dsm.NodeID(self), dsm.NodeID(node))
		if err != nil {
			return nil, err
		}
		if err := s.engine.AddPeer(dsm.NodeID(node), c); err != nil {
			return nil, err
		}
		s.links = append(s.links, c)
	}
	s.engine.Start()
	return s, nil
}

// traffic is what the page links of this side have carried, both ways.
func (s *side) traffic() (frames, bytes uint64) {
	for _, c := range s.links {
		st := c.Stats()
		frames += st.FramesIn + st.FramesOut
		bytes += st.BytesIn + st.BytesOut
	}
	return frames, bytes
}

// noClock leaves frames unstamped: all nodes are on one host.
type noClock struct{}

func (noClock) Now() uint64        { return 0 }
func (noClock) Await(uint64) error { return nil }

// cpuTime is the CPU time of this process in ns.
func cpuTime() (int64, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		return 0, fmt.Errorf("read the process's CPU time: %w", err)
	}
	return ts.Nano(), nil
}

// pin keeps all threads of this process, and those they make, on one CPU.
func pin(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("list this process's threads: %w", err)
	}
	for _, t := range tasks {
		var tid int
		if _, err := fmt.Sscan(t.Name(), &tid); err != nil {
			return fmt.Errorf("thread %q: %w", t.Name(), err)
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && err != unix.ESRCH {
			return fmt.Errorf("pin thread %d to CPU %d: %w", tid, cpu, err)
		}
	}
	return nil
}
