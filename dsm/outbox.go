package dsm

import (
	"fmt"
	"sync/atomic"

	"coalesce/link"
)

// frameKind is the kind of every frame on a page link.
const frameKind = 1

// frameSize bounds what is gathered for one frame, in bytes.
const frameSize = 32 << 10

// outbox gathers the messages to one peer, in the order in which the pages' steps
// gave them, until somebody who has no more to add flushes it: pages that are
// needed together are asked for, and come, in one frame.
//
// Whoever adds flushes when it is done (Engine.flush). That sends what others
// have added meanwhile, too, so nothing waits for longer than its own flush.
type outbox struct {
	link    Link
	pending atomic.Bool // there is something to flush
	arrived uint64      // contents that came from the peer; its reader's alone

	mu       mutex // below a region's and a Thread's
	buf      []byte
	frame    [1][]byte // buf, as Send wants it
	contents uint64    // sent so far
}

func newOutbox(l Link) *outbox {
	return &outbox{link: l, buf: make([]byte, 0, frameSize)}
}

// maxMessage is the most a message takes, in bytes.
const maxMessage = MsgSize + contentHeader + PageSize

// lockRoom locks the outbox with room for one more message.
func (o *outbox) lockRoom(e *Engine) error {
	o.mu.Lock()
	if len(o.buf)+maxMessage <= frameSize {
		return nil
	}
	err := o.flushLocked(e)
	if err != nil {
		o.mu.Unlock()
	}
	return err
}

// flushLocked sends what was gathered. mu must be held. It may not block: what
// the socket does not take is queued by the link.
func (o *outbox) flushLocked(e *Engine) error {
	o.pending.Store(false)
	if len(o.buf) == 0 {
		return nil
	}
	h := link.Header{Kind: frameKind, View: e.cfg.View, Interval: e.interval.Load(), TSC: e.cfg.Clock.Now()}
	o.frame[0] = o.buf
	err := o.link.Send(h, o.frame[:]...)
	o.buf = o.buf[:0]
	return err
}

// flush runs errands and sends what was gathered for peers. Whatever called send,
// and holds no lock any more, ends with it.
func (e *Engine) flush() {
	e.runErrands()
	for i := range e.peers {
		o := e.peers[i].Load()
		if o == nil || !o.pending.Load() {
			continue
		}
		o.mu.Lock()
		err := o.flushLocked(e)
		o.mu.Unlock()
		if err != nil {
			e.fail(fmt.Errorf("send pages' messages to node %d: %w", i, err))
		}
	}
}

// send adds a message without content for a peer.
func (e *Engine) send(to NodeID, m *Msg) error {
	o := e.peers[to].Load()
	if o == nil {
		return fmt.Errorf("no link to node %d for %v of page %#x", to, m.Kind, m.Page)
	}
	if err := o.lockRoom(e); err != nil {
		return fmt.Errorf("send %v for page %#x to node %d: %w", m.Kind, m.Page, to, err)
	}
	defer o.mu.Unlock()
	o.buf = m.Append(o.buf)
	o.pending.Store(true)
	e.stats.messagesOut.Add(1)
	return nil
}

// sendData adds a Data message with the page's content, in the least form that
// the peer can use. The page's region is locked and its mapping not writable.
func (e *Engine) sendData(to NodeID, m *Msg, en *entry) error {
	o := e.peers[to].Load()
	if o == nil {
		return fmt.Errorf("no link to node %d for page %#x", to, m.Page)
	}
	if err := o.lockRoom(e); err != nil {
		return fmt.Errorf("send page %#x to node %d: %w", m.Page, to, err)
	}
	defer o.mu.Unlock()
	began := e.traceNow()
	page := e.host.Alias(m.Page, 1)
	// The runs go where they will be sent from, behind headers yet to come.
	start := len(o.buf)
	at := start + MsgSize + contentHeader
	runs, changed, short := o.buf[:at], false, false
	if en.lineage.Dirty {
		runs, changed, short = e.twins.compare(runs, m.Page, en.twin, page)
	}
	version, holders, knew := en.lineage.Pass(to, changed)
	size := PageSize
	switch {
	case knew && !changed:
		size = 0
		e.stats.pagesKnown.Add(1)
	case knew && short:
		size = len(runs) - at
		e.stats.pagesChanged.Add(1)
	}
	c := content{version: version, holders: holders}
	c.appendHeader(m.Append(o.buf), size)
	o.buf = o.buf[:at+size]
	if size == PageSize {
		copy(o.buf[at:], page)
	}
	o.contents++
	if e.cfg.Tracer != nil {
		e.cfg.Tracer.PageSent(to, o.contents, e.host.GPA(m.Page), size, m.Flags&FlagWrite != 0, began)
	}
	o.pending.Store(true)
	e.stats.pagesOut.Add(1)
	e.stats.messagesOut.Add(1)
	return nil
}
