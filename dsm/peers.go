package dsm

import (
	"errors"
	"fmt"
	"io"

	"coalesce/link"
)

// AddPeer connects a node: c carries the Page class to it and is read on a
// thread of its own from now on. The engine closes c.
func (e *Engine) AddPeer(node NodeID, c *link.Conn) error {
	if err := e.connect(node, c); err != nil {
		return err
	}
	e.linked.Add(1)
	go e.servePeer(node, c)
	return nil
}

// connect gives a node an outbox, whose frames l carries.
func (e *Engine) connect(node NodeID, l Link) error {
	if node >= MaxNodes || node == e.cfg.Self {
		return fmt.Errorf("node %d cannot be a peer of node %d", node, e.cfg.Self)
	}
	if !e.peers[node].CompareAndSwap(nil, newOutbox(l)) {
		return fmt.Errorf("node %d is connected already", node)
	}
	return nil
}

func (e *Engine) servePeer(node NodeID, c *link.Conn) {
	LockServiceThread(fmt.Sprintf("pages %d", node))
	defer e.linked.Done()
	buf := make([]byte, link.Page.MaxPayload())
	var h link.Header
	for {
		b, err := c.Recv(&h, buf)
		if err == nil {
			err = e.receive(node, &h, b)
			e.flush()
		}
		if err != nil {
			e.lost(node, err)
			return
		}
	}
}

// lost ends the session since a peer, or the link to it, is gone or broke a rule.
func (e *Engine) lost(node NodeID, err error) {
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("connection closed by the peer: %w", err)
	}
	err = &link.PeerError{Node: node, Class: link.Page, Err: err}
	e.peers[node].Load().link.Abort(err) // the peer learns why
	e.fail(err)
}

// receive handles one frame of a peer: its messages in their order. flush follows.
func (e *Engine) receive(node NodeID, h *link.Header, b []byte) error {
	switch {
	case h.Kind != frameKind:
		return fmt.Errorf("%w: frame of kind %d", ErrMalformed, h.Kind)
	case h.View != e.cfg.View:
		return fmt.Errorf("%w: frame of view %d, this is view %d", ErrMalformed, h.View, e.cfg.View)
	case len(b) == 0:
		return fmt.Errorf("%w: frame without a message", ErrMalformed)
	}
	shown := false // the guest may see what the frame brings
	for len(b) > 0 {
		var m Msg
		rest, err := m.Decode(b, uint32(e.host.Pages()))
		if err != nil {
			return err
		}
		var c content
		if m.Kind == Data {
			if c, rest, err = decodeContent(rest); err != nil {
				return err
			}
			o := e.peers[node].Load()
			o.arrived++
			c.number = o.arrived
		}
		if !shown && (m.Kind == Data || m.Kind == Grant) {
			if err := e.cfg.Clock.Await(h.TSC); err != nil {
				return err
			}
			shown = true
		}
		c.came = e.traceNow()
		if err := e.message(node, m, &c); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// message handles one message of a peer; c is the content of a Data message.
func (e *Engine) message(node NodeID, m Msg, c *content) error {
	e.stats.messagesIn.Add(1)
	if m.Kind >= TokenReq {
		return e.tokenMessage(node, m)
	}
	r := e.region(m.Page)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := e.armLocked(r); err != nil {
		return err
	}
	en := &r.entriesLocked(e.cfg.Self)[m.Page%RegionPages]
	if _, err := e.stepLocked(r, m.Page, Event{Kind: EvMessage, From: node, Msg: m, Held: e.held(en, m.Page)}, c); err != nil {
		return err
	}
	return e.retryPinsLocked(r, m.Page)
}
