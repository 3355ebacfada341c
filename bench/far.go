package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
	"coalesce/link"
)

const (
	nodes      = 3
	nearNode   = 0
	homeNode   = 1
	thirdNode  = 2
	benchPages = dsm.RegionPages
)

// Guest-physical addresses of the memories.
const (
	productGPA = 0x1000_0000
	floorGPA   = 0x2000_0000
)

// order is what the bench tells a far process to do; it answers each.
type order struct {
	Do    string // touch, floor-map, usage, stats
	Write bool   `json:",omitempty"` // touch
	Pages []uint32
}

type answer struct {
	Error  string    `json:",omitempty"`
	CPU    int64     // usage: ns of CPU time of this process
	Frames [2]uint64 // stats: on all page links, in and out
	Bytes  [2]uint64
}

// side is a process's product and floor.
type side struct {
	engine *dsm.Engine
	mem    *uffd.Memory
	floor  *floorMemory
	links  []*link.Conn
	failed chan error
}

// newSide makes a node's memories and starts its engine. product holds its wires
// to the other nodes, in the order of their ids; they are taken over.
func newSide(self dsm.NodeID, product map[dsm.NodeID]*os.File) (*side, error) {
	s := &side{failed: make(chan error, 4)}
	var err error
	s.mem, err = uffd.NewMemory("product", []uffd.Window{{GPA: productGPA, Size: benchPages * dsm.PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		return nil, err
	}
	if s.floor, err = newFloorMemory(floorGPA); err != nil {
		return nil, err
	}
	s.engine, err = dsm.New(dsm.Config{Self: self, Memory: s.mem, Homes: []dsm.NodeID{homeNode}, Clock: noClock{},
		OnFail: func(err error) { s.failed <- err }})
	if err != nil {
		return nil, err
	}
	for node, f := range product {
		c, err := pageLink(f, self, node)
		if err != nil {
			return nil, err
		}
		if err := s.engine.AddPeer(node, c); err != nil {
			return nil, err
		}
		s.links = append(s.links, c)
	}
	s.engine.Start()
	return s, nil
}

// traffic is what the page links of this side have carried.
func (s *side) traffic() (a answer) {
	for _, c := range s.links {
		st := c.Stats()
		a.Frames[0] += st.FramesIn
		a.Frames[1] += st.FramesOut
		a.Bytes[0] += st.BytesIn
		a.Bytes[1] += st.BytesOut
	}
	return a
}

// noClock leaves frames unstamped: all nodes are on one host.
type noClock struct{}

func (noClock) Now() uint64        { return 0 }
func (noClock) Await(uint64) error { return nil }

// Far is the body of a far node's process. It gets its wires as inherited files
// from 3 on, product before floor, each to the other nodes in the order of their
// ids, and its orders on in.
func Far(self int, in io.Reader, out io.Writer) error {
	if self != homeNode && self != thirdNode {
		return fmt.Errorf("node %d is no far node", self)
	}
	if err := pin(runtime.NumCPU() - 1); err != nil {
		return err
	}
	product, floor := map[dsm.NodeID]*os.File{}, map[dsm.NodeID]*os.File{}
	fd := uintptr(3)
	for _, m := range []map[dsm.NodeID]*os.File{product, floor} {
		for n := range dsm.NodeID(nodes) {
			if int(n) != self {
				unix.CloseOnExec(int(fd))
				m[n] = os.NewFile(fd, "wire")
				fd++
			}
		}
	}
	s, err := newSide(dsm.NodeID(self), product)
	if err != nil {
		return err
	}
	if err := s.serveFloor(self, floor); err != nil {
		return err
	}
	// The engine groups pages by the vCPU that needs them; here it is this thread.
	runtime.LockOSThread()
	thread := s.engine.AddThread(unix.Gettid(), nil)
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if err == io.EOF {
				return nil // the bench has ended, and with it the links
			}
			return err
		}
		a, err := s.obey(&o, thread)
		select {
		case failed := <-s.failed:
			err = errors.Join(failed, err)
		default:
		}
		if err != nil {
			a.Error = err.Error()
		}
		if err := answers.Encode(a); err != nil {
			return err
		}
	}
}

// serveFloor answers the floor's questions on threads of their own.
func (s *side) serveFloor(self int, wires map[dsm.NodeID]*os.File) error {
	sockets := map[dsm.NodeID]int{}
	for n, f := range wires {
		fd, err := rawSocket(f)
		if err != nil {
			return err
		}
		sockets[n] = fd
	}
	server := floorServer{mem: s.floor, near: sockets[nearNode]}
	if self == homeNode {
		server.onward = sockets[thirdNode]
	}
	from := []dsm.NodeID{nearNode}
	if self == thirdNode {
		from = append(from, homeNode)
	}
	for _, n := range from {
		go func() {
			defer runtime.KeepAlive(wires) // the sockets are theirs
			if err := server.serve(sockets[n]); err != nil {
				s.failed <- err
			}
		}()
	}
	return nil
}

func (s *side) obey(o *order, thread *dsm.Thread) (answer, error) {
	switch o.Do {
	case "touch":
		thread.Idle(false)
		defer thread.Idle(true)
		for _, p := range o.Pages {
			addr := s.mem.HVA(p % benchPages)
			var err error
			if o.Write {
				err = uffdtest.Increment(addr + 128)
			} else {
				_, err = uffdtest.Load(addr)
			}
			if err != nil {
				return answer{}, err
			}
		}
		thread.Proof()
		return answer{}, nil
	case "floor-map":
		return answer{}, s.floor.mapAll()
	case "usage":
		cpu, err := cpuTime()
		return answer{CPU: cpu}, err
	case "stats":
		return s.traffic(), nil
	}
	return answer{}, fmt.Errorf("there is no order %q", o.Do)
}

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
