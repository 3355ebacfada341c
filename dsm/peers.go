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
	if node >= MaxNodes || node == e.cfg.Self {
		return fmt.Errorf("node %d cannot be a peer of node %d", node, e.cfg.Self)
	}
	if !e.peers[node].CompareAndSwap(nil, c) {
		return fmt.Errorf("node %d is connected already", node)
	}
	e.linked.Add(1)
	go e.servePeer(node, c)
	return nil
}

func (e *Engine) servePeer(node NodeID, c *link.Conn) {
	LockServiceThread(fmt.Sprintf("pages %d", node))
	defer e.linked.Done()
	buf := make([]byte, MsgSize+PageSize)
	var h link.Header
	for {
		b, err := c.Recv(&h, buf)
		if err == nil {
			err = e.receive(node, &h, b)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("connection closed by the peer")
			}
			err = &link.PeerError{Node: node, Class: link.Page, Err: err}
			c.Abort(err) // the peer learns why
			e.fail(err)
			return
		}
	}
}

// receive handles one frame of a peer.
func (e *Engine) receive(node NodeID, h *link.Header, b []byte) error {
	var m Msg
	data, err := m.Decode(b, uint32(e.mem.Pages()))
	switch {
	case err != nil:
		return err
	case h.Kind != byte(m.Kind):
		return fmt.Errorf("%w: frame of kind %d holds %v", ErrMalformed, h.Kind, m.Kind)
	case h.View != e.cfg.View:
		return fmt.Errorf("%w: frame of view %d, this is view %d", ErrMalformed, h.View, e.cfg.View)
	}
	e.stats.messagesIn.Add(1)
	if m.Kind >= TokenReq {
		return e.tokenMessage(node, m)
	}
	if m.Kind == Data || m.Kind == Grant {
		if err := e.cfg.Clock.Await(h.TSC); err != nil {
			return err
		}
	}
	r := e.region(m.Page)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := e.armLocked(r); err != nil {
		return err
	}
	en := &r.entriesLocked(e.cfg.Self)[m.Page%RegionPages]
	if _, err := e.stepLocked(r, m.Page, Event{Kind: EvMessage, From: node, Msg: m, Held: e.held(en, m.Page)}, data); err != nil {
		return err
	}
	return e.retryPinsLocked(r, m.Page)
}
