package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm"
	"coalesce/dsm/uffd/uffdtest"
)

// role is what a far process is told at its start, as JSON.
type role struct {
	Self, Nodes int
	Home        int // of the memory
	Pages       int // of it; whole regions
	CPU         int // to run on
	Floor       bool
	Bulk        bool          // answer bulkServer's questions
	Hold        time.Duration // fixed minimum hold; 0: as transfers turn out
	Device      string        // of KVM, for a vCPU of its own; "": none
}

// order is what the bench tells a far process to do; it answers each.
type order struct {
	Do    string // touch, fill, floor-map, usage, count, stop
	Write bool   `json:",omitempty"` // touch
	Pages []uint32
}

type answer struct {
	Error    string    `json:",omitempty"`
	CPU      int64     `json:",omitempty"` // usage: ns of CPU time of this process
	Count    uint64    `json:",omitempty"` // stop: increments made
	Waits    []float64 `json:",omitempty"` // stop: ns
	Transfer int64     `json:",omitempty"` // stop: how long one takes at present, in µs
}

// far is a far node.
type far struct {
	*side
	guest  *guest
	thread *dsm.Thread // of the orders' goroutine
}

// Far is the body of a far node's process; its role is as a rig wrote it. It gets
// its wires as inherited files from 3 on, the product's before the floor's, each
// to the other nodes in the order of their ids, and its orders on in.
func Far(roleJSON string, in io.Reader, out io.Writer) error {
	var ro role
	if err := json.Unmarshal([]byte(roleJSON), &ro); err != nil {
		return fmt.Errorf("a far node's role: %w", err)
	}
	if ro.Nodes < 2 || ro.Nodes > dsm.MaxNodes || ro.Self < 0 || ro.Self >= ro.Nodes || ro.Home < 0 || ro.Home >= ro.Nodes ||
		ro.Pages <= 0 || ro.Pages > maxPages || ro.Pages%dsm.RegionPages != 0 {
		return fmt.Errorf("node %d of %d, home %d, %d pages: there is no such far node", ro.Self, ro.Nodes, ro.Home, ro.Pages)
	}
	if err := pin(ro.CPU); err != nil {
		return err
	}
	fd := uintptr(3)
	inherited := func() []*os.File {
		wires := make([]*os.File, ro.Nodes)
		for n := range wires {
			if n != ro.Self {
				unix.CloseOnExec(int(fd))
				wires[n] = os.NewFile(fd, "wire")
				fd++
			}
		}
		return wires
	}
	s, err := newSide(ro.Self, ro.Home, ro.Pages, ro.Hold, inherited())
	if err != nil {
		return err
	}
	f := &far{side: s}
	if ro.Floor {
		if err := s.serveFloor(ro.Self, inherited()); err != nil {
			return err
		}
	}
	if ro.Bulk {
		if err := s.serveBulk(inherited()[nearNode]); err != nil {
			return err
		}
	}
	if ro.Device != "" {
		if f.guest, err = newGuest(ro.Device, s); err != nil {
			return err
		}
	}
	// The engine groups pages by the vCPU that needs them; here it is this thread.
	runtime.LockOSThread()
	f.thread = s.engine.AddThread(unix.Gettid(), nil)
	return f.serve(json.NewDecoder(in), json.NewEncoder(out))
}

// serve obeys orders until they end, and with them the bench and the links.
func (f *far) serve(orders *json.Decoder, answers *json.Encoder) error {
	for {
		var o order
		if err := orders.Decode(&o); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		a, err := f.obey(&o)
		select {
		case failed := <-f.failed:
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
func (s *side) serveFloor(self int, wires []*os.File) error {
	sockets := make([]int, len(wires))
	for n, f := range wires {
		if f == nil {
			continue
		}
		var err error
		if sockets[n], err = rawSocket(f); err != nil {
			return err
		}
	}
	server := floorServer{mem: s.floor, near: sockets[nearNode]}
	from := []int{nearNode}
	if self == homeNode {
		server.onward = sockets[thirdNode]
	} else {
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

func (f *far) obey(o *order) (a answer, err error) {
	switch o.Do {
	case "touch":
		return a, f.touch(o.Pages, o.Write)
	case "fill":
		return a, f.fill(o.Pages)
	case "floor-map":
		return a, f.floor.mapAll()
	case "usage":
		a.CPU, err = cpuTime()
		return a, err
	case "count", "stop":
		if f.guest == nil {
			return a, errors.New("this node has no vCPU")
		}
		if o.Do == "count" {
			return a, f.guest.startCounting(context.Background())
		}
		a.Count, a.Waits, err = f.guest.stopCounting(context.Background())
		a.Transfer = f.engine.Stats().Transfer
		return a, err
	}
	return a, fmt.Errorf("there is no order %q", o.Do)
}

// touch accesses pages of the product, as a vCPU that has nothing else to do.
func (f *far) touch(pages []uint32, write bool) error {
	f.thread.Idle(false)
	defer f.thread.Idle(true)
	for _, p := range pages {
		addr := f.mem.HVA(p % f.pages)
		var err error
		if write {
			err = uffdtest.Increment(addr + 128)
		} else {
			_, err = uffdtest.Load(addr)
		}
		if err != nil {
			return err
		}
	}
	f.thread.Proof()
	return nil
}

// fill writes the whole of pages of the product, with what was never there.
func (f *far) fill(pages []uint32) error {
	f.thread.Idle(false)
	defer f.thread.Idle(true)
	content := make([]byte, dsm.PageSize)
	for _, p := range pages {
		for i := 0; i < len(content); i += 8 {
			binary.LittleEndian.PutUint64(content[i:], rand.Uint64())
		}
		if err := uffdtest.Write(f.mem.HVA(p%f.pages), content); err != nil {
			return err
		}
	}
	f.thread.Proof()
	return nil
}
