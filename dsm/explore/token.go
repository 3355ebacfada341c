package explore

import (
	"coalesce/dsm"
)

// What follows stands for dsm/streaks.go, whose functions have the same names.

// load reads a thread's streak.
func (w *world) load(k int) *dsm.Streak {
	w.streak.Restore(w.s.threads[k].streak[:])
	return &w.streak
}

// store writes it back.
func (w *world) store(k int) {
	b := &w.s.threads[k].streak
	var enc [len(b)]byte
	e := w.streak.Append(enc[:0])
	if len(e) > len(b) {
		w.breaks("the model has no room for a streak of %d pages", len(w.streak.Pages()))
		return
	}
	*b = [len(b)]byte{}
	copy(b[:], e)
}

// faulted adds a page to a thread's streak and reports whether it has the token.
func (w *world) faulted(k int, page uint8) (token bool) {
	t := &w.s.threads[k]
	if t.unseen {
		t.unseen = false
		w.endStreak(k)
	}
	s := w.load(k)
	again, full := s.Fault(uint32(page))
	w.store(k)
	if full || again && t.ran && w.tape.choose(2) == 1 { // ranLocked
		t.ran = false
		w.endStreak(k)
		s = w.load(k)
		again, _ = s.Fault(uint32(page))
	}
	asks := again && s.Robbed()
	for i := 0; again && w.p.Eager && !asks && !s.Asking() && !s.Holding() && i < 8; i++ {
		asks = s.Robbed()
	}
	holds := s.Holding()
	w.store(k)
	if asks {
		if w.words != nil {
			w.say("vCPU %d asks for the token", k)
		}
		w.sendToken(w.p.Threads[k].Node, 0, dsm.TokenReq, k)
	}
	return holds
}

// endStreak records a proof of progress.
func (w *world) endStreak(k int) {
	s := w.load(k)
	var set uint8
	for _, p := range s.Pages() {
		set |= 1 << p
	}
	release := s.Proof()
	w.store(k)
	if !release {
		return
	}
	t := &w.s.threads[k]
	if t.giving != givesNothing {
		w.breaks("vCPU %d gives back a token while it gives back another", k)
	}
	t.giving, t.pages = givesBack, set
	if w.words != nil {
		w.say("vCPU %d proved its progress and gives the token back", k)
	}
}

// prove ends the streak after a proof that was noticed.
func (w *world) prove(k int) {
	w.s.threads[k].unseen = false
	w.endStreak(k)
}

// giveBack does the next part of returning the token.
func (w *world) giveBack(k int) {
	t := &w.s.threads[k]
	n := w.p.Threads[k].Node
	if t.giving == givesBack {
		if w.s.holding[n] == uint8(k)+1 {
			w.s.holding[n] = 0
		}
		t.giving = giving
		if !w.does(dutyReleaseStreak) {
			t.pages = 0
		}
	}
	if t.pages == 0 {
		t.giving = givesNothing
		w.sendToken(n, 0, dsm.TokenRelease, k)
		return
	}
	// In the engine the streak's order decides; no order matters.
	var pages [maxPages]uint8
	count := 0
	for i := range w.p.Homes {
		if t.pages>>i&1 != 0 {
			pages[count] = uint8(i)
			count++
		}
	}
	page := pages[w.tape.choose(count)]
	t.pages &^= 1 << page
	if w.words != nil {
		w.say("node %d gives up %s with the token", n, pageName(page))
	}
	w.release(n, page, false)
}

// inHoldersStreak reports whether the page may not leave before the token's
// holder has made progress.
func (w *world) inHoldersStreak(n dsm.NodeID, page uint8) bool {
	k := int(w.s.holding[n]) - 1
	if k < 0 || !w.does(dutyStreak) {
		return false
	}
	if w.s.threads[k].unseen {
		return false
	}
	s := w.load(k)
	return s.Holding() && s.Open(uint32(page))
}

// sendToken sends a message about thread k; the client's to itself run on
// goroutines of their own.
func (w *world) sendToken(from, to dsm.NodeID, kind dsm.Kind, k int) {
	if from != to {
		w.send(from, to, msg{kind: kind, page: uint8(k)})
		return
	}
	b := &w.s.bag[kind-dsm.TokenReq]
	if *b>>k&1 != 0 && w.wrong == nil {
		w.breaks("vCPU %d has two messages %v under way", k, kind)
	}
	*b |= 1 << k
}

// tokenMessage handles a message about the token.
func (w *world) tokenMessage(n dsm.NodeID, m msg) {
	k := int(m.page)
	if m.kind == dsm.TokenGrant {
		w.tokenGranted(k)
		return
	}
	var b [1 + 2*(maxThreads+1)]byte
	enc := append(b[:0], w.s.tokens.n)
	for _, t := range w.s.tokens.threads[:w.s.tokens.n] {
		enc = append(enc, byte(w.vcpus[t].Node), byte(w.vcpus[t].VCPU))
	}
	w.queue.Restore(enc)
	if w.wrong != nil && w.wrong.queue != nil && !w.wrong.queue(&w.queue, m.kind, w.vcpus[k]) {
		return
	}
	var next dsm.Waiter
	var ok bool
	if m.kind == dsm.TokenReq {
		next, ok = w.queue.Request(w.vcpus[k])
	} else {
		next, ok = w.queue.Release(w.vcpus[k])
	}
	w.setTokens()
	if ok {
		w.sendToken(n, next.Node, dsm.TokenGrant, w.threadOf(next))
	}
}

func (w *world) threadOf(v dsm.Waiter) int {
	for k := range w.p.Threads {
		if w.vcpus[k] == v {
			return k
		}
	}
	w.breaks("the token queue names vCPU %d of node %d", v.VCPU, v.Node)
	return 0
}

// setTokens takes over the token queue and checks that places only fall.
func (w *world) setTokens() {
	var q tokens
	if holder, held := w.queue.Holder(); held {
		q.n = 1
		q.threads[0] = uint8(w.threadOf(holder))
	}
	for _, v := range w.queue.Waiting() {
		if int(q.n) == len(q.threads) {
			w.breaks("more wait for the token than there are")
			return
		}
		q.threads[q.n] = uint8(w.threadOf(v))
		q.n++
	}
	for i := 1; i < int(w.s.tokens.n); i++ {
		for j := i + 1; j < int(q.n); j++ {
			if w.s.tokens.threads[i] == q.threads[j] {
				w.breaks("vCPU %d falls back in the token's queue", q.threads[j])
			}
		}
	}
	w.s.tokens = q
}

// tokenGranted gives the token to a thread, up to the point where the engine is
// about to learn that it holds it.
func (w *world) tokenGranted(k int) {
	t := &w.s.threads[k]
	s := w.load(k)
	if t.unseen {
		t.unseen = false
		s.Proof()
	}
	release := s.Granted()
	w.store(k)
	if release {
		if w.words != nil {
			w.say("vCPU %d has no use for the token any more", k)
		}
		w.sendToken(w.p.Threads[k].Node, 0, dsm.TokenRelease, k)
		return
	}
	t.granting = true
}

// hold is the rest of tokenGranted but for the promotion.
func (w *world) hold(k int) {
	t := &w.s.threads[k]
	t.granting = false
	w.s.holding[w.p.Threads[k].Node] = uint8(k) + 1
	if w.words != nil {
		w.say("vCPU %d holds the token", k)
	}
	if t.unseen {
		w.prove(k)
		return
	}
	if page, waits := w.load(k).Last(); waits {
		t.promote = uint8(page) + 1
	}
}

// promote moves the request that the holder waits for to its queue's head, unless
// it has proved its progress meanwhile.
func (w *world) promote(k int) {
	t := &w.s.threads[k]
	n, page := w.p.Threads[k].Node, t.promote-1
	t.promote = 0
	if w.words != nil {
		w.say("node %d: vCPU %d has the token, and last wanted %s", n, k, pageName(page))
	}
	if w.inHoldersStreak(n, page) || !w.does(dutyProven) {
		w.event(n, page, dsm.Event{Kind: dsm.EvPromote}, false)
	}
}
