package dsm

// message handles what arrives at the home about one page.
func (d *Dir) message(n Node, ev Event, out *Actions) error {
	switch ev.Msg.Kind {
	case Req:
		return d.request(n, ev, out)
	case InvAck:
		if d.Phase != Invalidating || !d.Acks.Has(ev.From) {
			return &ViolationError{n.Self, ev.From, ev.Msg, "no invalidation is outstanding there"}
		}
		d.Acks = d.Acks.Without(ev.From)
		d.Copies = d.Copies.Without(ev.From)
		if d.Acks == 0 {
			d.move(n, ev.Msg.Page, FlagDelayed, out)
		}
	case Done:
		if d.Phase != Moving || d.Requester != ev.Msg.Peer || ev.From != ev.Msg.Peer && ev.From != n.Self {
			return &ViolationError{n.Self, ev.From, ev.Msg, "no transfer to it is under way"}
		}
		d.complete()
	}
	d.next(n, ev.Msg.Page, FlagDelayed, out)
	return nil
}

// request queues a node's request, or moves the one it has to the head.
func (d *Dir) request(n Node, ev Event, out *Actions) error {
	write := ev.Msg.Flags&FlagWrite != 0
	token := ev.Msg.Flags&FlagToken != 0
	waiting := d.queue.has(ev.From)
	if ev.Msg.Flags&FlagPromote != 0 {
		// It follows its request on one ordered connection: either that still
		// waits, or the answer is on its way.
		if waiting {
			d.queue.toFront(ev.From)
		}
		return nil
	}
	switch {
	case waiting || d.Phase != Idle && d.Requester == ev.From:
		return &ViolationError{n.Self, ev.From, ev.Msg, "a second request before the first was answered"}
	case d.Phase == Idle && d.Owner == ev.From && !write:
		// While the page moves this is no mistake: the owner gave it up and
		// its request overtook the new owner's Done.
		return &ViolationError{n.Self, ev.From, ev.Msg, "the owner asks to read what it owns"}
	}
	if token {
		d.queue.pushFront(ev.From, write)
	} else {
		d.queue.push(ev.From, write)
	}
	d.next(n, ev.Msg.Page, 0, out)
	return nil
}

// next starts waiting transactions until one must wait for another node. delayed
// is FlagDelayed unless the first of them is a request that has just come.
func (d *Dir) next(n Node, page uint32, delayed Flags, out *Actions) {
	for ; d.Phase == Idle && d.queue.n > 0; delayed = FlagDelayed {
		d.Requester, d.Write = d.queue.pop()
		d.Phase = Invalidating
		if d.Write {
			d.Acks = d.Copies.Without(d.Requester)
			if !d.Copies.Has(d.Requester) {
				// The owner hands the page over when all others are gone.
				d.Acks = d.Acks.Without(d.Owner)
			}
		}
		if d.Acks == 0 {
			d.move(n, page, delayed, out)
			continue
		}
		for left := d.Acks; left != 0; left = left.Without(left.first()) {
			out.send(left.first(), Msg{Kind: Inv, Page: page})
		}
	}
}

// move lets the requester have the page: nothing stands in its way any more.
// delayed is FlagDelayed if something did.
func (d *Dir) move(n Node, page uint32, delayed Flags, out *Actions) {
	d.Phase = Moving
	supplier := d.Owner
	switch {
	case d.Write && d.Copies.Has(d.Requester):
		out.send(d.Requester, Msg{Kind: Grant, Page: page})
		d.complete()
		return
	case d.Write:
		out.send(d.Owner, Msg{Kind: FwdWrite, Flags: delayed, Page: page, Peer: d.Requester})
	default:
		if d.Copies.Has(n.Self) {
			supplier = n.Self // a hop nearer than the owner, the same content
		}
		out.send(supplier, Msg{Kind: FwdRead, Flags: delayed, Page: page, Peer: d.Requester})
	}
}

// complete records the outcome of the transaction.
func (d *Dir) complete() {
	if d.Write {
		d.Owner = d.Requester
		d.Copies = 0
	}
	d.Copies = d.Copies.With(d.Requester)
	d.Phase = Idle
}
