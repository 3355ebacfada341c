package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// hop is what the floor does on the way of one page.
type hop uint32

const (
	hopCopy    hop = iota // home: send the page
	hopProtect            // home: write-protect it, then send it
	hopZap                // home: unmap it, then say so
	hopRelay              // home: have the third node do as hopProtect
)

// questionSize is how many bytes the floor asks for a page with.
const questionSize = 16

// brings reports whether the answer to a question is a page; otherwise it is
// questionSize bytes.
func (h hop) brings() bool { return h != hopZap }

// ask writes a question.
func ask(b *[questionSize]byte, page uint32, h hop) {
	binary.LittleEndian.PutUint32(b[0:], page)
	binary.LittleEndian.PutUint32(b[4:], uint32(h))
}

// floorMemory is guest memory with a userfaultfd of its own.
type floorMemory struct {
	*uffd.Memory
	faults *uffd.Uffd
}

// newFloorMemory makes memory of benchPages pages, all registered, none mapped.
func newFloorMemory(gpa uint64) (*floorMemory, error) {
	mem, err := uffd.NewMemory("floor", []uffd.Window{{GPA: gpa, Size: benchPages * dsm.PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		return nil, err
	}
	u, err := uffd.Open(mem, uffd.Options{})
	if err != nil {
		return nil, errors.Join(err, mem.Close())
	}
	err = u.Register(0, benchPages)
	if err == nil {
		err = mem.PopulateAlias(0, benchPages)
	}
	return &floorMemory{mem, u}, err
}

// mapAll maps every page writable.
func (m *floorMemory) mapAll() error {
	for p := range uint32(benchPages) {
		if _, err := m.faults.Continue(p, 1, false); err != nil && err != uffd.ErrPresent {
			return fmt.Errorf("map the floor's page %d: %w", p, err)
		}
	}
	return m.faults.Unprotect(0, benchPages)
}

// zapAll unmaps every page.
func (m *floorMemory) zapAll() error { return m.faults.Zap(0, benchPages) }

// floorServer answers the floor's questions at a far node. near is where pages
// go, onward the third node; 0: there is none.
type floorServer struct {
	mem          *floorMemory
	near, onward int
}

// serve answers what arrives on a socket until it ends.
func (s *floorServer) serve(from int) error {
	dsm.LockServiceThread("floor")
	var q [questionSize]byte
	for {
		if err := readFull(from, q[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return fmt.Errorf("read a question: %w", err)
		}
		page, h := binary.LittleEndian.Uint32(q[0:]), hop(binary.LittleEndian.Uint32(q[4:]))
		if err := s.answer(page%benchPages, h, &q); err != nil {
			return err
		}
	}
}

func (s *floorServer) answer(page uint32, h hop, q *[questionSize]byte) error {
	switch h {
	case hopRelay:
		ask(q, page, hopProtect)
		return writeFull(s.onward, q[:])
	case hopProtect:
		if err := s.mem.faults.WriteProtect(page, 1); err != nil {
			return err
		}
	case hopZap:
		if err := s.mem.faults.Zap(page, 1); err != nil {
			return err
		}
		return writeFull(s.near, q[:])
	}
	return writeFull(s.near, s.mem.Alias(page, 1))
}

// floorClient answers the vCPU's faults on the floor's memory at the near node.
type floorClient struct {
	mem         *floorMemory
	home, third int // sockets
	hop         atomic.Uint32
}

func (c *floorClient) serve() error {
	dsm.LockServiceThread("floor")
	defer runtime.UnlockOSThread()
	var buf [16]uffd.Fault
	var q [questionSize]byte
	for {
		n, err := c.mem.faults.Read(buf[:])
		if err != nil {
			if errors.Is(err, uffd.ErrInterrupted) || errors.Is(err, uffd.ErrClosed) {
				return nil
			}
			return err
		}
		for _, f := range buf[:n] {
			if err := c.resolve(f.Page, hop(c.hop.Load()), &q); err != nil {
				return err
			}
		}
	}
}

func (c *floorClient) resolve(page uint32, h hop, q *[questionSize]byte) error {
	ask(q, page, h)
	if err := writeFull(c.home, q[:]); err != nil {
		return fmt.Errorf("ask for page %d: %w", page, err)
	}
	answer, from := q[:], c.home
	if h.brings() {
		answer = c.mem.Alias(page, 1)
	}
	if h == hopRelay {
		from = c.third
	}
	if err := readFull(from, answer); err != nil {
		return fmt.Errorf("wait for page %d: %w", page, err)
	}
	if h == hopZap {
		return c.mem.faults.Unprotect(page, 1)
	}
	_, err := c.mem.faults.Continue(page, 1, true)
	return err
}
