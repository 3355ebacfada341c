package vmm

import (
	"errors"
	"fmt"

	"coalesce/dsm"
	"coalesce/link"
	"coalesce/vcpu/apic"
	"coalesce/vmm/trace"
)

// Frame kinds of the interrupt class.
const (
	irqMessage = 1 + iota // an apic.Message for the receiver's APICs
	irqEOI                // lender → client: one byte, a level-triggered vector was ended
)

var errMalformedIRQ = errors.New("malformed interrupt frame")

// sendIPI sends an interrupt message to another node. It may be called on any
// thread and does not block.
func (n *node) sendIPI(peer link.NodeID, c *link.Conn, m apic.Message) {
	var b [apic.MessageSize]byte
	h := link.Header{Kind: irqMessage, TSC: n.clock.Now()}
	if n.trace != nil {
		defer n.traceIPI(trace.IPISent, peer, n.trace.Now(), h.TSC, m)
	}
	if err := c.Send(h, m.Append(b[:0])); err != nil {
		n.report(event{kind: evFailed, err: fmt.Errorf("send an interrupt: %w", err)})
	}
}

// endOfInterrupt takes a local APIC's EOI of a level-triggered vector to the
// I/O APIC, which is the client's.
func (n *node) endOfInterrupt(vector uint8) {
	if n.id == 0 {
		n.ioapic(vector)
		return
	}
	h := link.Header{Kind: irqEOI, TSC: n.clock.Now()}
	if err := n.ipis[0].Send(h, []byte{vector}); err != nil {
		n.report(event{kind: evFailed, err: fmt.Errorf("send an end of interrupt: %w", err)})
	}
}

// serveIPIs delivers what a peer sends, on a thread of its own.
func (n *node) serveIPIs(peer link.NodeID, c *link.Conn) {
	dsm.LockServiceThread(fmt.Sprintf("ipis %d", peer))
	var buf [apic.MessageSize]byte
	var h link.Header
	for {
		b, err := c.Recv(&h, buf[:])
		if err == nil {
			err = n.receiveIPI(peer, &h, b)
		}
		if err != nil {
			err = &link.PeerError{Node: peer, Class: link.Interrupt, Err: err}
			c.Abort(err)
			n.report(event{kind: evFailed, err: err})
			return
		}
	}
}

func (n *node) receiveIPI(peer link.NodeID, h *link.Header, b []byte) error {
	var came uint64
	if n.trace != nil {
		came = n.trace.Now()
	}
	if err := n.clock.Await(h.TSC); err != nil {
		return err
	}
	switch h.Kind {
	case irqMessage:
		m, err := apic.DecodeMessage(b)
		if err != nil {
			return err
		}
		n.ipisIn.Add(1)
		if !n.router.Inject(m) {
			// Every node knows where all vCPUs are, from the layout: this peer does not.
			return fmt.Errorf("%w: none of the APICs here is the destination of %+v", errMalformedIRQ, m)
		}
		if n.trace != nil {
			n.traceIPI(trace.IPIReceived, peer, came, h.TSC, m)
		}
		return nil
	case irqEOI:
		if n.id == 0 && len(b) == 1 {
			n.ioapic(b[0])
			return nil
		}
	}
	return fmt.Errorf("%w: kind %d of %d bytes", errMalformedIRQ, h.Kind, len(b))
}
