package apic

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// RouterStats counts since NewRouter.
type RouterStats struct {
	Local      uint64 // deliveries to APICs of this node
	Remote     uint64 // messages sent to other nodes
	Injected   uint64 // messages that came from other nodes
	EOIs       uint64 // EOI broadcasts passed on
	Unroutable uint64 // messages with no destination
}

// Router carries interrupt messages to APICs by their id: to a local APIC and
// the function that kicks its vCPU, or to the node that has it. It is the Bus
// of this node's APICs. All methods may be called by any thread; routing takes
// no lock, so that callbacks may route and change routes.
type Router struct {
	eoi func(vector uint8)

	table atomic.Pointer[table] // replaced as a whole
	mu    sync.Mutex            // held to replace table

	turn                                      atomic.Uint32 // breaks ties of lowest-priority arbitration
	local, remote, injected, eois, unroutable atomic.Uint64
}

// table is an immutable routing table.
type table struct {
	locals map[uint32]*local
	nodes  map[uint32]uint32          // APIC id to node
	send   map[uint32]func(m Message) // by node

	// In ascending order, so that expansion is deterministic:
	localOrder []*local // by APIC id
	nodeOrder  []uint32 // nodes that have an APIC and a send function
	idOrder    []uint32 // APIC ids that nodes have
}

type local struct {
	apic *APIC
	kick func()
}

// NewRouter returns a Router without routes. eoi takes the EOI broadcasts of
// this node's APICs to the IOAPIC or towards it.
func NewRouter(eoi func(vector uint8)) *Router {
	r := &Router{eoi: eoi}
	r.table.Store(&table{})
	return r
}

// SetLocal routes a's id to a. kick is called, with no lock held, when a
// delivery asks for it; never on the thread of the vCPU that sends. A route
// that the id had is replaced.
func (r *Router) SetLocal(a *APIC, kick func()) {
	r.change(func(t *table) {
		delete(t.nodes, a.id)
		t.locals[a.id] = &local{apic: a, kick: kick}
	})
}

// SetRemote routes an id to a node. A route that the id had is replaced.
func (r *Router) SetRemote(id, node uint32) {
	r.change(func(t *table) {
		delete(t.locals, id)
		t.nodes[id] = node
	})
}

// SetNode sets the function that sends messages to a node. It is called on the
// thread that routes, with no lock held, and must not block for long.
func (r *Router) SetNode(node uint32, send func(m Message)) {
	r.change(func(t *table) { t.send[node] = send })
}

// Remove removes the route of an id.
func (r *Router) Remove(id uint32) {
	r.change(func(t *table) {
		delete(t.locals, id)
		delete(t.nodes, id)
	})
}

// RemoveNode removes a node and the routes of the ids it has.
func (r *Router) RemoveNode(node uint32) {
	r.change(func(t *table) {
		delete(t.send, node)
		maps.DeleteFunc(t.nodes, func(_, n uint32) bool { return n == node })
	})
}

// change replaces the table by an edited copy.
func (r *Router) change(edit func(t *table)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.table.Load()
	t := &table{
		locals: make(map[uint32]*local, len(old.locals)),
		nodes:  make(map[uint32]uint32, len(old.nodes)),
		send:   make(map[uint32]func(Message), len(old.send)),
	}
	maps.Copy(t.locals, old.locals)
	maps.Copy(t.nodes, old.nodes)
	maps.Copy(t.send, old.send)
	edit(t)

	t.localOrder = slices.SortedFunc(maps.Values(t.locals), func(x, y *local) int {
		return cmp.Compare(x.apic.id, y.apic.id)
	})
	for id, node := range t.nodes {
		if t.send[node] != nil {
			t.idOrder = append(t.idOrder, id)
			t.nodeOrder = append(t.nodeOrder, node)
		}
	}
	slices.Sort(t.idOrder)
	slices.Sort(t.nodeOrder)
	t.nodeOrder = slices.Compact(t.nodeOrder)
	r.table.Store(t)
}

// Send implements Bus.
func (r *Router) Send(m Message, shorthand Shorthand) { r.Route(m, shorthand) }

// EOI implements Bus.
func (r *Router) EOI(vector uint8) {
	r.eois.Add(1)
	r.eoi(vector)
}

// Stats returns the counters.
func (r *Router) Stats() RouterStats {
	return RouterStats{
		Local: r.local.Load(), Remote: r.remote.Load(), Injected: r.injected.Load(),
		EOIs: r.eois.Load(), Unroutable: r.unroutable.Load(),
	}
}

// Route carries a message that began on this node: an IPI, on the thread of the
// vCPU with the APIC id From, or a device's (From is FromDevice). A message for
// several APICs of one remote node goes there once, and Inject expands it. It
// reports whether there was a destination; one that is not there is no error
// for the guest.
func (r *Router) Route(m Message, shorthand Shorthand) (found bool) {
	t := r.table.Load()
	switch shorthand {
	case Self:
		m.Dest, m.DestMode = m.From, Physical
	case AllIncludingSelf, AllExcludingSelf:
		m.Dest, m.DestMode = Broadcast, Physical
	}
	skipSelf := shorthand == AllExcludingSelf

	switch {
	case m.Delivery == LowestPriority:
		found = r.arbitrate(t, m, skipSelf) || r.sendOne(t, m)
	case m.DestMode == Physical && m.Dest != Broadcast:
		found = r.unicast(t, m)
	default:
		found = r.expandRemote(t, m)
		found = r.expandLocal(t, m, skipSelf) || found
	}
	if !found {
		r.unroutable.Add(1)
	}
	return found
}

// Inject delivers a message that came from another node to the APICs of this
// one; it is never sent on. It reports whether one of them was meant: false
// says that the vCPU has moved, or that the sender's table is wrong.
//
// Of a message for several APICs the sender is left out: its own node has
// served it, and if it has moved here since, once is enough.
func (r *Router) Inject(m Message) (found bool) {
	r.injected.Add(1)
	t := r.table.Load()
	switch {
	case m.Delivery == LowestPriority:
		found = r.arbitrate(t, m, true)
	case m.DestMode == Physical && m.Dest != Broadcast:
		if l := t.locals[m.Dest]; l != nil {
			r.deliverKick(l, m)
			found = true
		}
	default:
		found = r.expandLocal(t, m, true)
	}
	if !found {
		r.unroutable.Add(1)
	}
	return found
}

// unicast delivers to the one APIC with the physical id Dest.
func (r *Router) unicast(t *table, m Message) bool {
	if l := t.locals[m.Dest]; l != nil {
		r.deliver(l, m)
		return true
	}
	node, ok := t.nodes[m.Dest]
	return ok && r.sendTo(t, node, m)
}

// expandLocal delivers to every local APIC that matches.
func (r *Router) expandLocal(t *table, m Message, skipSender bool) (found bool) {
	for _, l := range t.localOrder {
		if l.apic.Matches(m.Dest, m.DestMode) && !(skipSender && l.apic.id == m.From) {
			r.deliver(l, m)
			found = true
		}
	}
	return found
}

// expandRemote sends one message to each node that has an APIC that matches.
func (r *Router) expandRemote(t *table, m Message) (found bool) {
	for _, node := range t.nodeOrder {
		match := func(id uint32) bool { return t.nodes[id] == node && matches(id, m.Dest, m.DestMode) }
		if slices.ContainsFunc(t.idOrder, match) {
			found = r.sendTo(t, node, m) || found
		}
	}
	return found
}

// arbitrate delivers to the matching local APIC with the lowest processor
// priority; those with the same priority take turns.
func (r *Router) arbitrate(t *table, m Message, skipSender bool) bool {
	var best []*local
	lowest := 0x100
	for _, l := range t.localOrder {
		if !l.apic.Matches(m.Dest, m.DestMode) || skipSender && l.apic.id == m.From {
			continue
		}
		priority, ok := l.apic.arbitration()
		if !ok || int(priority) > lowest {
			continue
		}
		if int(priority) < lowest {
			lowest, best = int(priority), best[:0]
		}
		best = append(best, l)
	}
	if len(best) == 0 {
		return false
	}
	r.deliver(best[int(r.turn.Add(1)-1)%len(best)], m)
	return true
}

// sendOne sends a lowest-priority message that no local APIC takes to one that
// a node has; they take turns. Priorities of other nodes are not known here.
func (r *Router) sendOne(t *table, m Message) bool {
	var ids []uint32
	for _, id := range t.idOrder {
		if matches(id, m.Dest, m.DestMode) {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return false
	}
	m.Dest, m.DestMode, m.Delivery = ids[int(r.turn.Add(1)-1)%len(ids)], Physical, Fixed
	return r.sendTo(t, t.nodes[m.Dest], m)
}

func (r *Router) sendTo(t *table, node uint32, m Message) bool {
	send := t.send[node]
	if send == nil {
		return false
	}
	r.remote.Add(1)
	send(m)
	return true
}

// deliver delivers a message that Route carries. The sender itself is on the
// thread that routes: it is not kicked.
func (r *Router) deliver(l *local, m Message) {
	if m.From != l.apic.id {
		r.deliverKick(l, m)
		return
	}
	r.local.Add(1)
	l.apic.deliverSelf(m)
}

// deliverKick delivers to an APIC whose vCPU's thread is another one.
func (r *Router) deliverKick(l *local, m Message) {
	r.local.Add(1)
	if l.apic.Deliver(m) {
		l.kick()
	}
}
