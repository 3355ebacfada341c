package dsm

// A stream is pages that a vCPU reads one after the other, each the same number
// of pages from the one before. Once that is sure, pages ahead of the vCPU are
// asked for, so that they are on their way while it works on those before.
//
// What was asked for is used is not seen: a page that is mapped when it comes
// gives no fault. So one page of each lot, the first, is its mark: it is not
// mapped when it comes. The fault on it says that the vCPU has come so far, and
// asks for the next lot while the rest of this one is still there to be read.
// A stream whose mark nobody touches asks for nothing any more.
//
//	  last          mark                edge
//	───┼─────────────┼───────────────────┼──────────► in the direction of stride
//	   the vCPU      │◄── next lot is ───┤
//	                     asked for here
//	   ◄───────── at most depth ─────────►
type stream struct {
	last   uint32 // where its vCPU was last seen
	edge   uint32 // the first page not asked for; of a stream that asks
	mark   uint32 // noPage: there is none
	stride int32  // pages; 0: only last was seen
	seen   uint8  // how often in a row the stride came true
	depth  int32  // pages to be asked for ahead of last; 0: it does not ask yet
	turn   uint32 // the table's, when it was last of use
	proven bool   // a mark of it was used
}

// streams are what a vCPU's misses look like: the last few streams, and single
// pages that may become some.
type streams struct {
	list [maxStreams]stream
	n    int
	turn uint32
	// doubt grows with every stream whose mark was never touched: the vCPU
	// begins streams and does not follow them.
	doubt uint8
}

const (
	maxStreams = 8
	// maxStride bounds the distance of a stream's pages.
	maxStride = 512
	// streamSure is how often in a row a stride has to come true before pages
	// are asked for.
	streamSure = 2
	// maxDoubt bounds how often more than that it has to for a vCPU that does
	// not follow its streams.
	maxDoubt = 14
	// firstDepth is how many pages a stream asks for at first.
	firstDepth = 8
	minDepth   = 2
	maxSeen    = 100
	// streamSlack is how many pages behind those that were asked for may be here
	// already.
	streamSlack = 16
	// streamGrace is how much longer a stream that asks for pages is kept than
	// one that does not, in misses.
	streamGrace = 64
)

// asks reports whether it asks for pages ahead.
func (s *stream) asks() bool { return s.depth > 0 }

// steps returns how many strides page is ahead of last; 0 if it is not.
func (s *stream) steps(page uint32) int32 {
	d := int64(page) - int64(s.last)
	if s.stride == 0 || d%int64(s.stride) != 0 {
		return 0
	}
	return int32(max(0, d/int64(s.stride)))
}

// expects reports whether page may be the stream's next miss: a stride further,
// or, where pages were asked for, one of them that is gone again, or one not far
// behind them.
func (s *stream) expects(page uint32) bool {
	k := s.steps(page)
	if !s.asks() {
		return k == 1
	}
	return k > 0 && k <= s.steps(s.edge)+streamSlack
}

// miss takes in that the vCPU needs a page to read that is not here. It returns
// the stream that is sure enough of itself to ask for more, if there is one.
func (t *streams) miss(page uint32) *stream {
	s := t.find(page)
	if s == nil {
		return nil
	}
	t.turn++
	s.turn = t.turn
	if s.mark != noPage || !s.asks() && s.seen < streamSure+t.doubt+t.untried() {
		return nil
	}
	return s
}

// untried returns how many streams ask for pages and have shown no use yet.
func (t *streams) untried() (n uint8) {
	for i := range t.list[:t.n] {
		if s := &t.list[i]; s.mark != noPage && !s.proven {
			n++
		}
	}
	return n
}

// find returns the stream that page belongs to, brought up to date; nil if it is
// one that is where it was.
func (t *streams) find(page uint32) *stream {
	var near, oldest *stream
	again := false
	for i := range t.list[:t.n] {
		s := &t.list[i]
		if s.expects(page) {
			s.seen = min(s.seen+1, maxSeen)
			s.pass(page)
			return s
		}
		again = again || page == s.last
		if d := s.distance(page); d <= maxStride && s.seen < streamSure && (near == nil || d < near.distance(page)) {
			near = s
		}
		if oldest == nil || int32(s.worth()-oldest.worth()) < 0 {
			oldest = s
		}
	}
	if again {
		return nil
	}
	if near != nil {
		near.stride = int32(int64(page) - int64(near.last))
		near.last, near.seen = page, 1
		return near
	}
	if t.n < maxStreams {
		oldest = &t.list[t.n]
		t.n++
	} else if oldest.mark != noPage && !oldest.proven {
		t.doubt = min(t.doubt+2, maxDoubt)
	}
	*oldest = stream{last: page, mark: noPage}
	return oldest
}

// worth is when it was last of use, and later if it asks for pages: then it is
// seen at every lot of them only.
func (s *stream) worth() uint32 {
	if s.asks() {
		return s.turn + streamGrace
	}
	return s.turn
}

// distance is how far page is from last, in either direction.
func (s *stream) distance(page uint32) int64 {
	d := int64(page) - int64(s.last)
	return max(d, -d)
}

// pass takes in that the vCPU is at page, which is ahead. A mark that it has
// passed will not be touched any more.
func (s *stream) pass(page uint32) {
	if s.asks() {
		if s.mark != noPage && s.steps(s.mark) <= s.steps(page) {
			s.mark = noPage
		}
		if s.steps(s.edge) <= s.steps(page) {
			s.edge = uint32(int64(page) + int64(s.stride))
		}
	}
	s.last = page
}

// touched takes in that the vCPU has come to a mark, and returns its stream; nil
// if that is another vCPU's, or forgotten.
func (t *streams) touched(page uint32) *stream {
	for i := range t.list[:t.n] {
		s := &t.list[i]
		if s.mark != page {
			continue
		}
		s.mark, s.proven = noPage, true
		s.pass(page)
		t.turn++
		s.turn = t.turn
		t.doubt -= min(t.doubt, 1)
		return s
	}
	return nil
}

// deepen has the stream ask further ahead than before, up to limit pages. It
// returns how many pages from the edge on that is.
func (t *streams) deepen(s *stream, limit int32) int32 {
	if !s.asks() {
		s.depth = firstDepth >> min(t.doubt/2, 2)
		s.edge = uint32(int64(s.last) + int64(s.stride))
	} else {
		s.depth *= 2
	}
	asked := s.steps(s.edge) - 1 // when the limit was another
	s.depth = max(minDepth, min(s.depth, limit), asked)
	return s.depth - asked
}
