package dsm

// Tracer is told what happens to pages, if somebody wants to see it. Its methods may
// neither block nor allocate; regions and outboxes are locked.
type Tracer interface {
	// Now is the tracer's clock, from which the times come that it is told.
	Now() uint64
	// Fault: the vCPU at a place on this node waited for a page from a time until
	// now. local: this node answered it.
	Fault(vcpu uint32, gpa uint64, write, local bool, from uint64)
	// PageSent: the n-th content for a node was put together, from a time until now;
	// so many bytes of the page travel. PageReceived: the n-th content from a node
	// came at a time and is mapped now.
	PageSent(to NodeID, n, gpa uint64, bytes int, write bool, from uint64)
	PageReceived(from NodeID, n, gpa uint64, bytes int, write bool, at uint64)
}

// traceNow reads the tracer's clock, if there is one.
func (e *Engine) traceNow() uint64 {
	if e.cfg.Tracer == nil {
		return 0
	}
	return e.cfg.Tracer.Now()
}
