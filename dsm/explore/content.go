package explore

import (
	"slices"

	"coalesce/dsm"
)

// content is what a node's alias holds, and what the node knows of that. Contents
// have numbers: the same number is the same bytes, and no more is known of them.
// So renumber may give them others.
type content struct {
	is      uint8 // what the alias holds
	twin    uint8 // what it held when it became writable
	lineage dsm.Lineage
}

// parcel is the content of a Data message.
type parcel struct {
	on      bool
	form    form
	is      uint8 // what the receiver is to hold
	base    uint8 // changes: what they were made from
	version uint8
	holders dsm.NodeSet
}

// form is how a content travels.
type form uint8

const (
	wholePage form = iota
	changes
	nothing
)

func (c *content) append(b []byte) []byte {
	return append(b, c.is|c.twin<<4, byte(c.lineage.Version), byte(c.lineage.Holders)|bit(c.lineage.Dirty)<<7)
}

func (c *content) restore(b []byte) []byte {
	*c = content{is: b[0] & 15, twin: b[0] >> 4, lineage: dsm.Lineage{
		Version: uint32(b[1]), Holders: dsm.NodeSet(b[2] & 0x7f), Dirty: b[2]>>7 != 0}}
	return b[3:]
}

func (x *parcel) append(b []byte) []byte {
	if !x.on {
		return append(b, 0)
	}
	return append(b, 1|byte(x.form)<<1|byte(x.holders)<<4, x.is|x.base<<4, x.version)
}

func (x *parcel) restore(b []byte) []byte {
	if b[0] == 0 {
		*x = parcel{}
		return b[1:]
	}
	*x = parcel{on: true, form: form(b[0] >> 1 & 3), holders: dsm.NodeSet(b[0] >> 4), is: b[1] & 15, base: b[1] >> 4, version: b[2]}
	return b[3:]
}

// firstContents sets the contents of a page's copies in the first state: its
// home's are the guest's, the others' hold nothing.
func (s *state) firstContents(p *Profile, page int) {
	if !p.Contents {
		return
	}
	s.last[page] = 1
	for n := range p.Nodes {
		s.copies[n][page].holds.is = 2
	}
	s.copies[p.Homes[page]][page].holds = content{is: 1, lineage: dsm.Lineage{Dirty: true}}
}

// mayWrite is the engine's writable: what the content becomes is told from what
// it was.
func (w *world) mayWrite(c *copyState, page uint8) {
	if !w.p.Contents {
		return
	}
	c.holds.lineage.Dirty = true
	c.holds.twin = c.holds.is
	if !w.does(dutyTwin) {
		c.holds.twin = w.unusedContent(page) // an old one
	}
}

// rewrite gives a copy a content that is nowhere else, or writes back what it
// held before.
func (w *world) rewrite(n dsm.NodeID, page uint8) {
	c := &w.s.copies[n][page].holds
	if c.twin != 0 && c.twin != c.is && w.tape.choose(2) == 1 {
		c.is = c.twin
	} else {
		c.is = w.unusedContent(page)
	}
	w.s.last[page] = c.is
}

// unusedContent returns a number that no content of the page has.
func (w *world) unusedContent(page uint8) uint8 {
	var used uint16
	for n := range w.p.Nodes {
		c, x := &w.s.copies[n][page].holds, &w.s.parts[page][n]
		used |= 1<<c.is | 1<<c.twin | 1<<x.is | 1<<x.base
	}
	for i := uint8(1); ; i++ {
		if used>>i&1 == 0 {
			return i
		}
	}
}

// wrap is what sendData does: it puts the page's content on its way in the least
// form that the receiver can use. The twin may be gone, and the changes may be
// too many.
func (w *world) wrap(n, to dsm.NodeID, page uint8) {
	c := &w.s.copies[n][page].holds
	hasTwin, changed, short := false, false, false
	if c.lineage.Dirty {
		hasTwin = c.twin != 0 && w.tape.choose(2) == 0
		changed = !hasTwin || c.twin != c.is
		short = hasTwin && changed && w.tape.choose(2) == 0
	}
	pass := (*dsm.Lineage).Pass
	if w.wrong != nil && w.wrong.pass != nil {
		pass = w.wrong.pass
	}
	version, holders, knew := pass(&c.lineage, to, changed)
	x := parcel{on: true, is: c.is, version: uint8(version), holders: holders}
	switch {
	case knew && !changed:
		x.form = nothing
	case knew && short:
		x.form, x.base = changes, c.twin
	}
	if w.s.parts[page][to].on {
		w.breaks("two contents of %s are on their way to node %d", pageName(page), to)
	}
	w.s.parts[page][to] = x
	if w.words != nil {
		w.say("(version %d: %s)", version, [...]string{"the page", "what changed", "known there"}[x.form])
	}
}

// unwrap is content.apply and what OpInstall does around it.
func (w *world) unwrap(from, n dsm.NodeID, page uint8, writes bool) {
	c := &w.s.copies[n][page]
	x := w.s.parts[page][n]
	w.s.parts[page][n] = parcel{}
	had := uint8(c.holds.lineage.Version)
	switch {
	case !x.on:
		w.breaks("node %d installs %s without a content", n, pageName(page))
	case x.form == nothing && had != x.version, x.form == changes && had != x.version-1:
		w.breaks("node %d has version %d of %s, which is no base for what came of version %d", n, had, pageName(page), x.version)
	case x.form == wholePage, x.form == changes && c.holds.is == x.base:
		c.holds.is = x.is
	case x.form == changes:
		c.holds.is = w.unusedContent(page) // some mixture
	}
	c.holds.lineage.Fetched(from, n, uint32(x.version), x.holders)
	c.fresh = c.holds.is == w.s.last[page]
	if writes {
		w.mayWrite(c, page)
	}
}

// renumber gives contents and versions the least numbers, and forgets what has no
// meaning any more. Of versions it keeps the order, and which follow each other at
// once: only the newest is ever counted on from.
func (s *state) renumber(p *Profile) {
	for i := range p.Homes {
		var ids [16]uint8
		next := uint8(0)
		id := func(x *uint8) {
			if *x != 0 {
				if ids[*x] == 0 {
					next++
					ids[*x] = next
				}
				*x = ids[*x]
			}
		}
		id(&s.last[i])
		var list [2 * maxNodes]uint32
		versions := list[:0]
		for n := range p.Nodes {
			c, x := &s.copies[n][i], &s.parts[i][n]
			if !c.holds.lineage.Dirty {
				c.holds.twin = 0
			}
			if c.page.Access == dsm.Invalid && !s.pend[n].on {
				c.holds.lineage.Holders = 0
			}
			id(&c.holds.is)
			id(&c.holds.twin)
			id(&x.is)
			id(&x.base)
			versions = append(versions, c.holds.lineage.Version)
			if x.on {
				versions = append(versions, uint32(x.version))
			}
		}
		slices.Sort(versions)
		// now returns the new number of a version that is in the list.
		now := func(v uint32) uint32 {
			to := uint32(1)
			for j := 1; j < len(versions) && versions[j-1] < v; j++ {
				to += min(versions[j]-versions[j-1], 2)
			}
			return to
		}
		for n := range p.Nodes {
			c, x := &s.copies[n][i], &s.parts[i][n]
			c.holds.lineage.Version = now(c.holds.lineage.Version)
			if x.on {
				x.version = uint8(now(uint32(x.version)))
			}
		}
	}
}
