package dsm

import "fmt"

// EventKind tells what happened to a page on a node.
type EventKind uint8

// The events of [Step].
const (
	EvFault   EventKind = iota // a thread of this node faulted; Write tells how
	EvFetch                    // the page is expected to be needed soon; Write tells how
	EvPin                      // a device wants the page; Write tells how
	EvUnpin                    // the device is done; Write as in its EvPin
	EvMessage                  // From sent Msg
	EvRelease                  // a hold ended: carry out what it deferred
	EvPromote                  // the faulting vCPU was granted the progress token
)

// Event is an input of [Step].
type Event struct {
	Kind  EventKind
	Write bool
	// Token: the fault belongs to the progress token's holder.
	Token bool
	// Held: the page is within its minimum hold, or in the token holder's
	// streak, so the home's command waits.
	Held bool
	From NodeID
	Msg  Msg
}

// Op is what an [Action] asks of the environment.
type Op uint8

// The operations, to be carried out in the order they are given.
const (
	OpSend    Op = iota // send Msg to To; a Data message takes the alias's content now
	OpInstall           // fill the alias with the event's data and map it: Writable or write-protected
	OpUpgrade           // lift the write protection and wake
	OpResolve           // the copy was fine: map it again (Writable or not) and wake
	OpProtect           // write-protect the mapping (M→O)
	OpZap               // remove the mapping (→I)
	OpDefer             // a hold delays a command: raise EvRelease when it ends
	OpPinned            // the pin asked for by this event is in force
)

// Action is an output of [Step].
type Action struct {
	Op       Op
	Writable bool
	To       NodeID
	Msg      Msg
}

// Actions collects what a step asks for. It has room for the longest answer
// (an invalidation for every other member, and a few more), so that a step
// never allocates.
type Actions struct {
	n    int
	list [MaxNodes + 8]Action
}

// Reset empties the list.
func (a *Actions) Reset() { a.n = 0 }

// All returns the actions in order. The slice is valid until the next Reset.
func (a *Actions) All() []Action { return a.list[:a.n] }

func (a *Actions) op(op Op, writable bool) {
	a.list[a.n] = Action{Op: op, Writable: writable}
	a.n++
}

func (a *Actions) send(to NodeID, m Msg) {
	a.list[a.n] = Action{Op: OpSend, To: to, Msg: m}
	a.n++
}

// ViolationError reports a message that no correct peer sends in this state.
type ViolationError struct {
	Node NodeID // where it was noticed
	From NodeID
	Msg  Msg
	Why  string
}

func (e *ViolationError) Error() string {
	return fmt.Sprintf("protocol violation: node %d sent %v for page %#x to node %d: %s",
		e.From, e.Msg.Kind, e.Msg.Page, e.Node, e.Why)
}

// Node is what [Step] knows about where it runs.
type Node struct {
	Self     NodeID
	Home     NodeID // of the page at hand
	Interval uint32 // current checkpoint interval
}

// Step applies one event to one page of one node. d is the directory entry
// and non-nil exactly at the page's home. Messages to the node itself appear
// among the actions like any other; the environment feeds them back in order.
// It returns a *ViolationError and leaves the state unusable when a peer broke
// the protocol.
func Step(n Node, p *Page, d *Dir, ev Event, out *Actions) error {
	switch ev.Kind {
	case EvFault, EvFetch, EvPin:
		p.access(n, ev, out)
	case EvUnpin:
		p.unpin(n, ev, out)
	case EvRelease:
		if p.Deferred != Nothing {
			p.command(n, p.deferred(ev.Msg.Page), ev.Held, out)
		}
	case EvPromote:
		if p.Want != WantNothing {
			out.send(n.Home, Msg{Kind: Req, Page: ev.Msg.Page, Flags: FlagToken | FlagPromote})
		}
	case EvMessage:
		switch ev.Msg.Kind {
		case Req, InvAck, Done:
			if d == nil {
				return &ViolationError{n.Self, ev.From, ev.Msg, "this node is not the page's home"}
			}
			return d.message(n, ev, out)
		case FwdRead, FwdWrite, Inv:
			return p.commanded(n, ev, out)
		case Data, Grant:
			return p.granted(n, ev, out)
		default:
			return &ViolationError{n.Self, ev.From, ev.Msg, "not a page message"}
		}
	}
	return nil
}

// access handles a fault, a fetch ahead of one, or a pin.
func (p *Page) access(n Node, ev Event, out *Actions) {
	if p.Access.allows(ev.Write) {
		switch ev.Kind {
		case EvFault:
			// Reclaim unmapped it, or the message was stale; a dropped one
			// would leave its thread asleep.
			out.op(OpResolve, p.Access == Modified)
		case EvPin:
			p.Pins++
			if ev.Write {
				p.WritePins++
			}
			out.op(OpPinned, false)
		}
		return
	}
	if p.Want != WantNothing {
		// The answer wakes every thread that waits on the page. One that
		// wants more than it brings faults again.
		if ev.Token && ev.Kind == EvFault {
			out.send(n.Home, Msg{Kind: Req, Page: ev.Msg.Page, Flags: FlagToken | FlagPromote})
		}
		return
	}
	msg := Msg{Kind: Req, Page: ev.Msg.Page}
	p.Want = WantRead
	if ev.Write {
		p.Want = WantWrite
		msg.Flags |= FlagWrite
	}
	if ev.Token {
		msg.Flags |= FlagToken
	}
	if p.Deferred != Nothing {
		// A hold never delays the invalidation of a page for which this node
		// itself waits: the home may be unable to serve us before it.
		p.command(n, p.deferred(ev.Msg.Page), false, out)
	}
	out.send(n.Home, msg)
}

func (p *Page) unpin(n Node, ev Event, out *Actions) {
	p.Pins--
	if ev.Write {
		p.WritePins--
	}
	if p.Pins == 0 && p.Deferred != Nothing {
		p.command(n, p.deferred(ev.Msg.Page), ev.Held, out)
	}
}

// deferred returns the command that was put off.
func (p *Page) deferred(page uint32) Msg {
	return Msg{Kind: p.Deferred, Flags: FlagDelayed, Page: page, Peer: p.DeferredTo}
}

// commanded checks a command of the home before it is carried out.
func (p *Page) commanded(n Node, ev Event, out *Actions) error {
	why := ""
	switch {
	case ev.From != n.Home:
		why = "commands come from the home only"
	case p.Deferred != Nothing:
		why = "a second command before the first was answered"
	case p.Access == Invalid:
		why = "there is no copy here"
	case ev.Msg.Kind == FwdWrite && p.Access == Shared:
		why = "only the owner hands a page over"
	case ev.Msg.Kind == FwdRead && p.Access == Shared && n.Self != n.Home:
		why = "only the owner or the home supplies a copy"
	case ev.Msg.Kind != Inv && ev.Msg.Peer == n.Self:
		why = "a node does not supply itself"
	}
	if why != "" {
		return &ViolationError{n.Self, ev.From, ev.Msg, why}
	}
	p.command(n, ev.Msg, ev.Held, out)
	return nil
}

// command carries out FwdRead, FwdWrite or Inv, or defers it while the page is
// held or a device copies it.
func (p *Page) command(n Node, m Msg, held bool, out *Actions) {
	takes := m.Kind != FwdRead || p.Access == Modified // something is taken from us
	pinned := p.Pins > 0 && (m.Kind != FwdRead || p.WritePins > 0)
	if takes && (pinned || held && p.Want == WantNothing) {
		p.Deferred, p.DeferredTo = m.Kind, m.Peer
		out.op(OpDefer, false)
		return
	}
	p.Deferred = Nothing
	switch m.Kind {
	case FwdRead:
		if p.Access == Modified {
			p.Access = Owned
			out.op(OpProtect, false)
		}
		p.supply(n, m, 0, out)
	case FwdWrite:
		p.Access = Invalid
		out.op(OpZap, false)
		p.supply(n, m, FlagWrite, out)
	case Inv:
		p.Access = Invalid
		out.op(OpZap, false)
		out.send(n.Home, Msg{Kind: InvAck, Page: m.Page})
	}
}

// supply sends the content to the requester. At the home that completes the
// transaction: the requester reads whatever the home sends next after it.
func (p *Page) supply(n Node, m Msg, f Flags, out *Actions) {
	out.send(m.Peer, Msg{Kind: Data, Flags: f | m.Flags&FlagDelayed, Page: m.Page, LastWritten: p.LastWritten})
	if n.Self == n.Home {
		out.send(n.Self, Msg{Kind: Done, Page: m.Page, Peer: m.Peer})
	}
}

// granted handles the answer to this node's request.
func (p *Page) granted(n Node, ev Event, out *Actions) error {
	write := ev.Msg.Kind == Grant || ev.Msg.Flags&FlagWrite != 0
	why := ""
	switch {
	case p.Want == WantNothing:
		why = "nothing was asked for"
	case write != (p.Want == WantWrite):
		why = "not the access that was asked for"
	case ev.Msg.Kind == Grant && ev.From != n.Home:
		why = "only the home grants"
	case ev.Msg.Kind == Grant && p.Access != Shared && p.Access != Owned:
		why = "a grant without data for a copy that is not there"
	case ev.Msg.Kind == Data && p.Access != Invalid:
		why = "data for a copy that is there"
	}
	if why != "" {
		return &ViolationError{n.Self, ev.From, ev.Msg, why}
	}
	p.Want = WantNothing
	if ev.Msg.Kind == Grant {
		p.Access = Modified
		p.LastWritten = n.Interval
		out.op(OpUpgrade, true)
		return nil
	}
	p.Access, p.LastWritten = Shared, ev.Msg.LastWritten
	if write {
		p.Access, p.LastWritten = Modified, n.Interval
	}
	out.op(OpInstall, write)
	if ev.From != n.Home {
		out.send(n.Home, Msg{Kind: Done, Page: ev.Msg.Page, Peer: n.Self})
	}
	return nil
}
