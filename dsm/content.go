package dsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Lineage says which content a copy has, so that a page whose content a node
// had before need not travel again, or only what changed in it. A node that
// gives a page up keeps the bytes: no longer mapped, they stay in the memfd.
//
// One version of a page's content becomes the next when a node that could write
// it passes it on changed. Only a page's single writer does that, so a number
// names one content, and holders is true of it wherever the content is: a node
// among them has had no other content since, but what it is about to pass on
// itself as a new version.
type Lineage struct {
	Version uint32  // what the alias holds, or held when it became writable
	Holders NodeSet // other nodes whose bytes, valid or stale, are that version
	Dirty   bool    // writable since: the alias may hold something else
}

// Fetched records that the content came from a node, with its lineage.
func (l *Lineage) Fetched(from, self NodeID, version uint32, holders NodeSet) {
	*l = Lineage{Version: version, Holders: holders.With(from).Without(self)}
}

// settle names what the alias holds, now that it is not writable any more.
// changed tells whether that differs from the version it had.
func (l *Lineage) settle(changed bool) {
	if l.Dirty && changed {
		l.Version++
		l.Holders = 0
	}
	l.Dirty = false
}

// Pass returns how the alias's content, not writable any more, is named in a Data
// message to a node. knew tells whether that has the version which the content had
// before it perhaps changed.
func (l *Lineage) Pass(to NodeID, changed bool) (version uint32, holders NodeSet, knew bool) {
	knew = l.Holders.Has(to)
	l.settle(changed)
	holders = l.Holders
	l.Holders = holders.With(to)
	return l.Version, holders, knew
}

// A content is a page as it travels: the whole of it, what changed in it since
// the version before, or nothing where the receiver has it.
//
//	0 version (u32): of the result
//	4 holders (u16): other nodes that have it
//	6 size (u16): bytes that follow: PageSize, the page; 0, none: the
//	  receiver has this version; any other number, the runs that differ from
//	  version-1, which the receiver has
//	8 runs, in ascending order: first (u16) and count (u16) of 8-byte words,
//	  then the words
type content struct {
	version uint32
	holders NodeSet
	body    []byte

	// For the tracer, at the receiver: which of its contents, and when it came.
	number, came uint64
}

const (
	contentHeader = 8
	runHeader     = 4
	word          = 8
	pageWords     = PageSize / word
)

// appendHeader writes what precedes the body.
func (c *content) appendHeader(b []byte, size int) []byte {
	b = binary.LittleEndian.AppendUint32(b, c.version)
	b = binary.LittleEndian.AppendUint16(b, uint16(c.holders))
	return binary.LittleEndian.AppendUint16(b, uint16(size))
}

// decodeContent parses the content at b's front, which it keeps referring to,
// and returns what follows it.
func decodeContent(b []byte) (c content, rest []byte, err error) {
	if len(b) < contentHeader {
		return content{}, nil, fmt.Errorf("%w: page content of %d bytes, at least %d", ErrMalformed, len(b), contentHeader)
	}
	c.version = binary.LittleEndian.Uint32(b)
	c.holders = NodeSet(binary.LittleEndian.Uint16(b[4:]))
	size := int(binary.LittleEndian.Uint16(b[6:]))
	b = b[contentHeader:]
	if size > PageSize || size > len(b) {
		return content{}, nil, fmt.Errorf("%w: page content of %d bytes, %d left in the frame", ErrMalformed, size, len(b))
	}
	c.body = b[:size]
	return c, b[size:], nil
}

// apply brings page, which holds the receiver's version had, to the content.
func (c *content) apply(page []byte, had uint32) error {
	switch {
	case len(c.body) == PageSize:
		copy(page, c.body)
		return nil
	case len(c.body) == 0:
		if had != c.version {
			return fmt.Errorf("%w: no content for version %d, here is version %d", ErrMalformed, c.version, had)
		}
		return nil
	case had != c.version-1:
		return fmt.Errorf("%w: changes to version %d, here is version %d", ErrMalformed, c.version-1, had)
	}
	return applyRuns(page, c.body)
}

// applyRuns copies the runs of a delta to page.
func applyRuns(page, runs []byte) error {
	for next := 0; len(runs) > 0; {
		if len(runs) < runHeader {
			return fmt.Errorf("%w: changes end within a run's header", ErrMalformed)
		}
		first, count := int(binary.LittleEndian.Uint16(runs)), int(binary.LittleEndian.Uint16(runs[2:]))
		runs = runs[runHeader:]
		if first < next || count == 0 || first+count > pageWords || len(runs) < count*word {
			return fmt.Errorf("%w: changes of %d words from word %d, %d bytes left", ErrMalformed, count, first, len(runs))
		}
		copy(page[first*word:], runs[:count*word])
		runs = runs[count*word:]
		next = first + count
	}
	return nil
}

// appendRuns appends to b what differs in page from base, which is something,
// unless that takes PageSize bytes or more.
func appendRuns(b, base, page []byte) (_ []byte, ok bool) {
	start := len(b)
	differs := func(w int) bool {
		return binary.LittleEndian.Uint64(base[w*word:]) != binary.LittleEndian.Uint64(page[w*word:])
	}
	for w := 0; w < pageWords; {
		if !differs(w) {
			w++
			continue
		}
		first := w
		for w++; w < pageWords && differs(w); w++ {
		}
		if len(b)-start+runHeader+(w-first)*word >= PageSize {
			return b[:start], false
		}
		b = binary.LittleEndian.AppendUint16(b, uint16(first))
		b = binary.LittleEndian.AppendUint16(b, uint16(w-first))
		b = append(b, page[first*word:w*word]...)
	}
	return b, true
}

// twins are copies of what pages held when they became writable here, for
// telling what was changed in them. There are few: a page that has none travels
// whole, and the oldest goes when another is taken.
type twins struct {
	mu    mutex
	pages []byte   // maxTwins pages; untouched ones cost no memory
	of    []uint32 // page index of each
	next  int
}

// maxTwins bounds the twins of a node: 2 MiB.
const maxTwins = 512

func (t *twins) init() {
	t.pages = make([]byte, maxTwins*PageSize)
	t.of = make([]uint32, maxTwins)
	for i := range t.of {
		t.of[i] = noPage
	}
}

// take copies the content of a page, whose twin was slot before. It returns the
// slot it has now.
func (t *twins) take(page uint32, slot int32, content []byte) int32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[slot] != page {
		slot = int32(t.next)
		t.next = (t.next + 1) % maxTwins
		t.of[slot] = page
	}
	copy(t.pages[slot*PageSize:][:PageSize], content)
	return slot
}

// compare tells whether content differs from the page's twin, and appends what
// does to runs if that is shorter than the page. Without a twin it is taken to
// differ.
func (t *twins) compare(runs []byte, page uint32, slot int32, content []byte) (_ []byte, changed, short bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[slot] != page {
		return runs, true, false
	}
	twin := t.pages[slot*PageSize:][:PageSize]
	if bytes.Equal(twin, content) {
		return runs, false, false
	}
	runs, short = appendRuns(runs, twin, content)
	return runs, true, short
}
