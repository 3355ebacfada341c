//go:build !simulated

package dsm

import "sync"

// mutex is sync.Mutex. It has a name of its own so that the simulation can run
// other threads wherever one is taken or let go (mutex_simulated.go).
type mutex = sync.Mutex
