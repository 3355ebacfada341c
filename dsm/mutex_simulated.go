//go:build simulated

package dsm

// Scheduler decides who runs where threads of the simulation meet. Package sim
// sets it.
var Scheduler interface {
	// Switch lets other threads run, perhaps.
	Switch()
	// Wait lets them run until Unlocked is called with the same mutex, or for less;
	// false: nobody can run any more, and the caller only looks.
	Wait(mutex any) bool
	Unlocked(mutex any)
}

// mutex is a lock of simulated threads, only one of which runs at a time.
type mutex struct{ held bool }

func (m *mutex) Lock() {
	Scheduler.Switch()
	for m.held && Scheduler.Wait(m) {
	}
	m.held = true
}

func (m *mutex) Unlock() {
	m.held = false
	Scheduler.Unlocked(m)
	Scheduler.Switch()
}
