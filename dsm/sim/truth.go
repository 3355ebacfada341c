package sim

import (
	"bytes"
	"fmt"

	"coalesce/dsm"
)

// pageBytes is the content of a page.
type pageBytes = [dsm.PageSize]byte

var zeroes pageBytes

// truth is what the guest's memory must hold, and who may touch it at present by
// the page tables and pins, whatever the engines believe.
type truth struct {
	w       *World
	content []*pageBytes // what was last written; nil: zeroes
	// Nodes whose guest view maps the page, for writing or only for reading. A
	// node whose region faults nowhere has all its pages mapped in effect.
	writers, readers []dsm.NodeSet
	pinned           []*pinned // by devices at present, on any node
	counted          map[counter]uint64
}

// counter is a word of a page that programs only add to.
type counter struct {
	page uint32
	word int
}

func newTruth(w *World, pages int) truth {
	return truth{w: w, content: make([]*pageBytes, pages), counted: map[counter]uint64{},
		writers: make([]dsm.NodeSet, pages), readers: make([]dsm.NodeSet, pages)}
}

// page returns what a page must hold.
func (t *truth) page(page uint32) *pageBytes {
	if c := t.content[page]; c != nil {
		return c
	}
	return &zeroes
}

// write returns it for changing.
func (t *truth) write(page uint32) *pageBytes {
	if t.content[page] == nil {
		t.content[page] = new(pageBytes)
	}
	return t.content[page]
}

// mapped takes note of what a node's guest view allows from now on.
func (t *truth) mapped(n *node, page uint32, read, write bool) {
	t.writers[page] = t.writers[page].Without(n.id)
	t.readers[page] = t.readers[page].Without(n.id)
	switch {
	case write:
		t.writers[page] = t.writers[page].With(n.id)
	case read:
		t.readers[page] = t.readers[page].With(n.id)
	default:
		return
	}
	t.single(page)
	t.holds(n, page, "is mapped")
}

// single checks that a page has one writer or only readers.
func (t *truth) single(page uint32) {
	writers, users := t.writers[page], t.writers[page]|t.readers[page]
	for _, p := range t.pinned {
		if p.page == page {
			users = users.With(p.node.id)
			if p.write {
				writers = writers.With(p.node.id)
			}
		}
	}
	if writers != 0 && users&(users-1) != 0 {
		t.w.violated("page %#x: nodes %016b may write, %016b may use it", page, writers, users)
	}
}

// holds checks that a node's copy is what was last written.
func (t *truth) holds(n *node, page uint32, when string) {
	got, want := n.kernel.alias[page], t.page(page)
	if got == nil {
		got = &zeroes
	}
	if *got == *want {
		return
	}
	at := 0
	for got[at] == want[at] {
		at++
	}
	word := at &^ 7
	t.w.violated("page %#x of node %d when it %s: byte %#x is wrong (%x, last written was %x); %d bytes differ",
		page, n.id, when, at, got[word:word+8], want[word:word+8], differing(got, want))
}

func differing(a, b *pageBytes) (n int) {
	if bytes.Equal(a[:], b[:]) {
		return 0
	}
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// pin takes note of a device's pin; unpin of its end.
func (t *truth) pin(p *pinned) {
	t.pinned = append(t.pinned, p)
	t.single(p.page)
	t.holds(p.node, p.page, "is pinned")
}

func (t *truth) unpin(p *pinned) {
	t.single(p.page)
	t.holds(p.node, p.page, "is unpinned")
	for i, o := range t.pinned {
		if o == p {
			t.pinned = append(t.pinned[:i], t.pinned[i+1:]...)
			return
		}
	}
}

func (c counter) String() string { return fmt.Sprintf("word %d of page %#x", c.word, c.page) }
