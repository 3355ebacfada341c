package vmm

import (
	"errors"
	"fmt"

	"coalesce/dsm"
	"coalesce/link"
	"coalesce/vcpu"
)

// errTripleFault ends a lender's session on behalf of the guest.
var errTripleFault = errors.New("the guest shut down (triple fault)")

// PortIO implements vcpu.Exits: the client's vCPUs access devices directly,
// a lender's by way of the I/O link.
func (n *node) PortIO(v *vcpu.VCPU, op *vcpu.PortIO) error {
	return n.deviceAccess(ioAccess{CPU: uint16(v.ID()), Size: uint8(op.Size), Write: op.Write,
		Count: uint32(op.Count), Address: uint64(op.Port)}, op.Data)
}

// MMIO implements vcpu.Exits.
func (n *node) MMIO(v *vcpu.VCPU, op *vcpu.MMIO) error {
	return n.deviceAccess(ioAccess{CPU: uint16(v.ID()), Size: uint8(len(op.Data)), Write: op.Write,
		MMIO: true, Count: 1, Address: op.GPA}, op.Data)
}

func (n *node) deviceAccess(a ioAccess, data []byte) error {
	if n.id == 0 {
		perform(n.ports, n.mmio, a, data)
		return nil
	}
	n.forward.Add(1)
	return n.remote.access(a, data)
}

// Shutdown implements vcpu.Exits.
func (n *node) Shutdown(v *vcpu.VCPU) {
	n.report(event{kind: evReset, err: fmt.Errorf("%v: %w", v, errTripleFault)})
}

// Fatal implements vcpu.Exits.
func (n *node) Fatal(v *vcpu.VCPU, err error) {
	n.report(event{kind: evFailed, err: fmt.Errorf("%v on node %d: %w", v, n.id, err)})
}

// serveDevices performs a lender's device accesses until its link ends.
func (n *node) serveDevices(peer link.NodeID, c *link.Conn) {
	dsm.LockServiceThread(fmt.Sprintf("devices %d", peer))
	owns := func(cpu int) bool { return cpu < len(n.layout.CPUs) && n.layout.CPUs[cpu].Node == peer }
	err := serveIO(c, peer, &n.clock, n.trace, n.ports, n.mmio, owns)
	n.report(event{kind: evFailed, err: &link.PeerError{Node: peer, Class: link.IO, Err: err}})
}

// serveReplies brings the answers to a lender's device accesses.
func (n *node) serveReplies() {
	dsm.LockServiceThread("replies")
	err := n.remote.serve()
	n.report(event{kind: evFailed, err: &link.PeerError{Node: 0, Class: link.IO, Err: err}})
}
