package vmm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"coalesce/link"
	"coalesce/vmm/bus"
	"coalesce/vmm/trace"
)

// Frame kinds of the I/O class.
const (
	ioRequest = 1 + iota // lender → client
	ioReply              // client → lender
)

// ioAccess is a device access of a remote vCPU on the wire, followed by the
// data it writes; a reply repeats it, followed by the data read.
//
//	0 vCPU id (u16)  2 size of one access  3 flags  4 count (u32)  8 address (u64)
type ioAccess struct {
	CPU     uint16
	Size    uint8 // bytes of one access; MMIO: all of them, with a count of 1
	Write   bool
	MMIO    bool
	Count   uint32
	Address uint64
}

const (
	ioAccessSize = 16
	ioMaxData    = 4096 // KVM hands out at most a page of a string instruction

	ioFlagWrite = 1 << 0
	ioFlagMMIO  = 1 << 1
)

var errMalformedIO = errors.New("malformed device access")

func (a *ioAccess) encode(b *[ioAccessSize]byte) {
	binary.LittleEndian.PutUint16(b[0:], a.CPU)
	b[2], b[3] = a.Size, 0
	if a.Write {
		b[3] |= ioFlagWrite
	}
	if a.MMIO {
		b[3] |= ioFlagMMIO
	}
	binary.LittleEndian.PutUint32(b[4:], a.Count)
	binary.LittleEndian.PutUint64(b[8:], a.Address)
}

// event is the access as a trace has it, of one of its two ends: which began at a
// time, and whose request had a stamp.
func (a *ioAccess) event(k trace.Kind, peer link.NodeID, began, stamp uint64) trace.Event {
	e := trace.Event{Kind: k, Start: began, ID: stamp, Arg: a.Address, Peer: uint8(peer), CPU: a.CPU, Size: uint16(uint32(a.Size) * a.Count)}
	if a.Write {
		e.Flags |= trace.Writing
	}
	if a.MMIO {
		e.Flags |= trace.MMIO
	}
	return e
}

// decode parses an access and checks that its data, the rest of b, is as long
// as it has to be in a request or in a reply.
func (a *ioAccess) decode(b []byte, reply bool) (data []byte, err error) {
	if len(b) < ioAccessSize || b[3]&^(ioFlagWrite|ioFlagMMIO) != 0 {
		return nil, fmt.Errorf("%w: %d bytes", errMalformedIO, len(b))
	}
	*a = ioAccess{
		CPU: binary.LittleEndian.Uint16(b), Size: b[2],
		Write: b[3]&ioFlagWrite != 0, MMIO: b[3]&ioFlagMMIO != 0,
		Count: binary.LittleEndian.Uint32(b[4:]), Address: binary.LittleEndian.Uint64(b[8:]),
	}
	sizes := a.Size == 1 || a.Size == 2 || a.Size == 4
	if a.MMIO {
		sizes = a.Size >= 1 && a.Size <= 8 && a.Count == 1
	} else if a.Address > 0xffff {
		sizes = false
	}
	n := uint64(a.Size) * uint64(a.Count)
	if !sizes || a.Count == 0 || n > ioMaxData {
		return nil, fmt.Errorf("%w: %+v", errMalformedIO, *a)
	}
	data = b[ioAccessSize:]
	want := uint64(0)
	if a.Write != reply {
		want = n
	}
	if uint64(len(data)) != want {
		return nil, fmt.Errorf("%w: %d bytes of data for %+v", errMalformedIO, len(data), *a)
	}
	return data, nil
}

// remoteBus carries the device accesses of a lender's vCPUs to the client and
// brings the answers back.
type remoteBus struct {
	conn    *link.Conn
	stamp   *stamper
	trace   *trace.Recorder
	pending []pendingIO // by vCPU id; guest-wide, most are never used
}

// pendingIO is the one access a vCPU may have under way.
type pendingIO struct {
	mu      sync.Mutex
	waiting bool
	want    ioAccess
	data    []byte // where the data read goes
	done    chan error
}

func newRemoteBus(conn *link.Conn, stamp *stamper, rec *trace.Recorder, cpus int) *remoteBus {
	r := &remoteBus{conn: conn, stamp: stamp, trace: rec, pending: make([]pendingIO, cpus)}
	for i := range r.pending {
		r.pending[i].done = make(chan error, 1)
	}
	return r
}

// access performs one access on the calling vCPU's thread and returns when the
// client has done it.
func (r *remoteBus) access(a ioAccess, data []byte) error {
	p := &r.pending[a.CPU]
	p.mu.Lock()
	p.waiting, p.want, p.data = true, a, data
	p.mu.Unlock()
	var head [ioAccessSize]byte
	a.encode(&head)
	var out []byte
	if a.Write {
		out = data
	}
	h := link.Header{Kind: ioRequest, TSC: r.stamp.Now()}
	if r.trace != nil {
		defer r.trace.Message(a.event(trace.IOForwarded, 0, r.trace.Now(), h.TSC))
	}
	if err := r.conn.Send(h, head[:], out); err != nil {
		return fmt.Errorf("forward device access at %#x: %w", a.Address, err)
	}
	return <-p.done
}

// serve reads replies until the link ends, then fails what waits.
func (r *remoteBus) serve() error {
	buf := make([]byte, ioAccessSize+ioMaxData)
	var h link.Header
	for {
		b, err := r.conn.Recv(&h, buf)
		if err == nil {
			err = r.reply(&h, b)
		}
		if err != nil {
			r.conn.Abort(err)
			for i := range r.pending {
				r.pending[i].finish(err)
			}
			return err
		}
	}
}

func (r *remoteBus) reply(h *link.Header, b []byte) error {
	var a ioAccess
	data, err := a.decode(b, true)
	if err != nil {
		return err
	}
	if h.Kind != ioReply || int(a.CPU) >= len(r.pending) {
		return fmt.Errorf("%w: frame kind %d for vCPU %d", errMalformedIO, h.Kind, a.CPU)
	}
	p := &r.pending[a.CPU]
	p.mu.Lock()
	if !p.waiting || p.want != a {
		p.mu.Unlock()
		return fmt.Errorf("%w: a reply nobody waits for: %+v", errMalformedIO, a)
	}
	copy(p.data, data)
	p.mu.Unlock()
	if err := r.stamp.Await(h.TSC); err != nil {
		return err
	}
	p.finish(nil)
	return nil
}

// finish wakes the vCPU, if it waits.
func (p *pendingIO) finish(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		p.waiting = false
		p.data = nil
		p.done <- err
	}
}

// serveIO is the client's side: it performs the accesses of one lender's vCPUs
// in the order they come.
func serveIO(conn *link.Conn, peer link.NodeID, stamp *stamper, rec *trace.Recorder, ports, mmio *bus.Bus, allowed func(cpu int) bool) error {
	buf := make([]byte, ioAccessSize+ioMaxData)
	read := make([]byte, ioMaxData)
	var h link.Header
	for {
		b, err := conn.Recv(&h, buf)
		if err != nil {
			return err
		}
		var came uint64
		if rec != nil {
			came = rec.Now()
		}
		var a ioAccess
		data, err := a.decode(b, false)
		if err == nil && (h.Kind != ioRequest || !allowed(int(a.CPU))) {
			err = fmt.Errorf("%w: frame kind %d from vCPU %d", errMalformedIO, h.Kind, a.CPU)
		}
		if err == nil {
			err = stamp.Await(h.TSC)
		}
		if err != nil {
			conn.Abort(err)
			return err
		}
		if !a.Write {
			data = read[:int(a.Size)*int(a.Count)]
		}
		perform(ports, mmio, a, data)
		if a.Write {
			data = nil
		}
		if rec != nil {
			rec.Message(a.event(trace.IOServed, peer, came, h.TSC))
		}
		var head [ioAccessSize]byte
		a.encode(&head)
		if err := conn.Send(link.Header{Kind: ioReply, TSC: stamp.Now()}, head[:], data); err != nil {
			return fmt.Errorf("answer device access at %#x: %w", a.Address, err)
		}
	}
}

// perform carries an access out on the client's buses: a string instruction
// accesses one port repeatedly.
func perform(ports, mmio *bus.Bus, a ioAccess, data []byte) {
	target := ports
	if a.MMIO {
		target = mmio
	}
	size := int(a.Size)
	for i := range int(a.Count) {
		item := data[i*size : (i+1)*size]
		if a.Write {
			target.Write(a.Address, item)
		} else {
			target.Read(a.Address, item)
		}
	}
}
