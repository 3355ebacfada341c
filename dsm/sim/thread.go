package sim

import "iter"

// thread is a simulated thread. It runs, alone in the world and in no time, until
// it sleeps or parks.
type thread struct {
	n    *node
	name string
	next func() (struct{}, bool)
	stop func()
	// yield goes back to whoever called next.
	yield func(struct{}) bool
	turn  uint64 // counts the times it was told to run; only the last one counts
	ended bool   // will not run any more
	mutex any    // what it waits for
}

// errStopped unwinds threads that are not done when the world ends.
type errStopped struct{}

// spawn makes a thread; wakeIn starts it.
func (n *node) spawn(name string, body func(t *thread)) *thread {
	t := &thread{n: n, name: name}
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		defer func() {
			t.ended = true
			if n.w.over {
				_ = recover() // errStopped
			}
		}()
		t.yield = yield
		body(t)
	})
	n.w.threads = append(n.w.threads, t)
	return t
}

// wakeIn has the thread run in ns from now, unless it is told anew before.
func (t *thread) wakeIn(ns int64) {
	t.turn++
	turn, w := t.turn, t.n.w
	w.after(ns, func() {
		if t.turn == turn && !t.ended && !t.n.dead {
			w.current = t
			t.next()
			w.current = nil
		}
	})
}

// park lets others run until somebody wakes the thread, which may be for another
// reason than the caller waits for.
func (t *thread) park() {
	if !t.yield(struct{}{}) {
		panic(errStopped{})
	}
}

// sleep lets others run for some time.
func (t *thread) sleep(ns int64) {
	w := t.n.w
	for until := w.now + max(ns, 1); w.now < until; {
		t.wakeIn(until - w.now)
		t.park()
	}
}

// The world is the scheduler of engines that are built with simulated locks.

// Switch lets other threads run, at a place where they may: a lock, or a system
// call. With locks that are not simulated nobody may.
func (w *World) Switch() {
	if t := w.current; locks && t != nil && !w.over && w.dice.chance(w.sc.Switch) {
		t.sleep(t.n.cost(w.dice.spread(50, 50_000)))
	}
}

// Wait lets other threads run while one of them has a lock.
func (w *World) Wait(mutex any) bool {
	t := w.current
	if t == nil {
		return false
	}
	t.mutex = mutex
	w.blocked++
	t.park()
	w.blocked--
	t.mutex = nil
	return true
}

// Unlocked wakes one that waits for the lock.
func (w *World) Unlocked(mutex any) {
	if w.over || w.blocked == 0 {
		return
	}
	for _, t := range w.threads {
		if t.mutex == mutex {
			t.mutex = nil
			t.wakeIn(t.n.cost(costWake))
			return
		}
	}
}

// end unwinds all threads.
func (w *World) end() {
	w.over = true
	for _, t := range w.threads {
		t.stop()
	}
}
