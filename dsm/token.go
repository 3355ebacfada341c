package dsm

// StreakMax is the number of distinct pages after which a streak counts as
// progress: no x86 instruction needs as many (a gather whose elements all
// cross pages, with its page tables, needs about 140).
const StreakMax = 192

// robberies is how often a streak may have to fetch again what it lost before
// its vCPU asks for the progress token. Losing a page is no harm by itself: the
// vCPU may be done with it. (Asking at the second loss kept the token busy all
// through a guest's boot, and everybody's pages held for it.)
const robberies = 4

// Waiter names a vCPU that waits for, or holds, the progress token.
type Waiter struct {
	Node NodeID
	VCPU uint32 // index on its node
}

// TokenQueue is the client's side of the progress token: one holder, the
// others in FIFO order. The zero value is a free token.
type TokenQueue struct {
	held    bool
	holder  Waiter
	waiting []Waiter
}

// Request queues w and returns the vCPU to grant the token to, if it is free. A
// vCPU that already waits is ignored. One that holds it has ended that streak
// and released it; its request has overtaken the release, and waits.
func (q *TokenQueue) Request(w Waiter) (grant Waiter, ok bool) {
	if q.held {
		for _, x := range q.waiting {
			if x == w {
				return Waiter{}, false
			}
		}
		q.waiting = append(q.waiting, w)
		return Waiter{}, false
	}
	q.held, q.holder = true, w
	return w, true
}

// Release takes the token back from w and returns the next holder, if any. A
// release by anybody but the holder is ignored.
func (q *TokenQueue) Release(w Waiter) (grant Waiter, ok bool) {
	if !q.held || q.holder != w {
		return Waiter{}, false
	}
	if len(q.waiting) == 0 {
		q.held = false
		return Waiter{}, false
	}
	q.holder = q.waiting[0]
	q.waiting = q.waiting[1:]
	return q.holder, true
}

// Streak is what a vCPU faulted on since its last proof of progress.
//
//	         robbed too often           grant
//	counting ─────────────► asking ───────────► holding
//	   ▲ ▲                    │ proof              │ proof: release
//	   │ └── grant: release ──┴─ proven            │
//	   └───────────────────────────────────────────┘
//
// A proof is a completed exit of KVM_RUN, more than StreakMax distinct pages,
// or CPU time of the thread without a fault. Regaining its pages is not: the
// request stays until the grant.
type Streak struct {
	pages  [StreakMax]uint32
	n      int
	robbed int
	phase  streakPhase
	proven bool // while asking: proof came before the grant
}

type streakPhase uint8

const (
	counting streakPhase = iota
	asking
	holding
)

// Holding reports whether the vCPU has the progress token.
func (s *Streak) Holding() bool { return s.phase == holding }

// Open reports whether page belongs to the streak.
func (s *Streak) Open(page uint32) bool {
	for _, p := range s.pages[:s.n] {
		if p == page {
			return true
		}
	}
	return false
}

// Pages returns the pages of the streak, valid until the next call.
func (s *Streak) Pages() []uint32 { return s.pages[:s.n] }

// Last returns the page faulted on most recently.
func (s *Streak) Last() (page uint32, ok bool) {
	if s.n == 0 {
		return 0, false
	}
	return s.pages[s.n-1], true
}

// Fault adds a page, or puts it last if it is there: then it was taken from
// the streak and is fetched again. It reports whether it was there, and whether
// the streak is full, which is a proof the caller has to record by Proof before
// it adds the page again.
func (s *Streak) Fault(page uint32) (again, full bool) {
	s.proven = false
	for i, p := range s.pages[:s.n] {
		if p == page {
			copy(s.pages[i:s.n-1], s.pages[i+1:s.n])
			s.pages[s.n-1] = page
			return true, false
		}
	}
	if s.n == StreakMax {
		return false, true
	}
	s.pages[s.n] = page
	s.n++
	return false, false
}

// Robbed records that a page of the streak had to be fetched again. It reports
// whether the vCPU now asks for the token.
func (s *Streak) Robbed() (ask bool) {
	s.robbed++
	if s.phase != counting || s.robbed < robberies {
		return false
	}
	s.phase = asking
	return true
}

// Proof ends the streak. It reports whether the token is to be released; the
// caller copies Pages first if it holds commands for them.
func (s *Streak) Proof() (release bool) {
	release = s.phase == holding
	s.n, s.robbed = 0, 0
	switch s.phase {
	case holding:
		s.phase = counting
	case asking:
		s.proven = true
	}
	return release
}

// Granted gives the vCPU the token. It reports whether to release it at once,
// since the streak that asked ended meanwhile.
func (s *Streak) Granted() (release bool) {
	if s.phase != asking || s.proven {
		s.phase, s.proven = counting, false
		return true
	}
	s.phase = holding
	return false
}
