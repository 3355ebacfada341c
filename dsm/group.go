package dsm

// follower is the page that a vCPU needed next after this one came, and how
// sure that is. Pages that are needed together are asked for together: a page
// walk under AMD's nested paging writes to every level, so the upper page
// tables of a kernel move between the nodes that run it, always the same few in
// the same order. Fetched one fault after the other, the first may be gone
// again before the last has come.
type follower struct {
	page  uint32
	write bool
	score uint8
}

const (
	// followScore is how often one page has to follow another before it is
	// fetched along with it.
	followScore = 3
	// maxScore bounds the score, and with it how long an outdated follower
	// survives.
	maxScore = 12
	// maxGroup bounds how many pages one fault brings.
	maxGroup = 12
)

// learn records that a thread needed page after the one it needed before.
func (f *follower) learn(page uint32, write bool) {
	switch {
	case f.score > 0 && f.page == page:
		f.write = f.write || write
		f.score = min(f.score+1, maxScore)
	case f.score > 0:
		f.score--
	default:
		*f = follower{page: page, write: write, score: 1}
	}
}

// fetchFollowers asks for the pages that are expected to be needed with page,
// which t has just asked for, and learns what follows what: page, if it was
// needed while the one before was still held. s is the stream that page belongs
// to, if that asks for pages ahead; if not and the followers are such a stream, it
// returns that: what is learnt to follow is as good as what was seen to. No
// region's lock may be held: followers may be anywhere. Fault reader only.
func (e *Engine) fetchFollowers(t *Thread, page uint32, write bool, s *stream) (*stream, error) {
	if t.lastMiss != noPage && t.lastMiss != page {
		e.withEntry(t.lastMiss, func(_ *region, en *entry) error {
			if e.host.Now() < en.heldUntil {
				en.follower.learn(page, write)
			}
			return nil
		})
	}
	t.lastMiss = page
	if s != nil {
		return s, nil
	}
	for range maxGroup {
		var next follower
		err := e.withEntry(t.lastMiss, func(_ *region, en *entry) error {
			next = en.follower
			return nil
		})
		if err != nil || next.score < followScore || next.page == page {
			return s, err
		}
		err = e.withEntry(next.page, func(r *region, en *entry) error {
			if en.page.Access.allows(next.write) || en.page.Want != WantNothing {
				return nil
			}
			e.stats.fetched.Add(1)
			en.thread = t
			_, err := e.stepLocked(r, next.page, Event{Kind: EvFetch, Write: next.write}, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		t.lastMiss = next.page
		if !write && !next.write {
			s = t.streams.miss(next.page)
		}
	}
	return s, nil
}

// withEntry runs f with a page's region locked.
func (e *Engine) withEntry(page uint32, f func(r *region, en *entry) error) error {
	r := e.region(page)
	r.mu.Lock()
	defer r.mu.Unlock()
	return f(r, &r.entriesLocked(e.cfg.Self)[page%RegionPages])
}
