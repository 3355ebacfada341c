package vmm

import (
	"fmt"
	"sync/atomic"
	"time"

	"coalesce/vmm/tsc"
)

// stamper is a dsm.Clock: it puts the guest's time on frames and holds received ones until the
// guest's time here has passed theirs, so that nobody in the guest sees an
// effect before its cause by the time stamp counter, however the links' two
// directions differ.
type stamper struct {
	offset atomic.Int64 // guest TSC minus this host's
	waits  atomic.Uint64
	khz    uint32 // of the TSC; 0: unknown
}

// patience bounds the wait for a stamp, in cycles; one further ahead is no
// clock skew.
const patience = 1 << 33

// wakeUp is what a sleep may take longer than it should.
const wakeUp = 60 * time.Microsecond

// Now returns the guest's TSC on this node.
func (s *stamper) Now() uint64 { return tsc.Read() + uint64(s.offset.Load()) }

// Await returns once the guest's TSC here has passed stamp.
func (s *stamper) Await(stamp uint64) error {
	if stamp == 0 {
		return nil
	}
	ahead := int64(stamp - s.Now())
	if ahead <= 0 {
		return nil
	}
	if ahead > patience {
		return fmt.Errorf("the peer's time stamp is %d cycles ahead of this node", ahead)
	}
	s.waits.Add(1)
	if s.khz != 0 {
		// What is long enough to sleep leaves the processor to others.
		if wait := time.Duration(ahead) * time.Millisecond / time.Duration(s.khz); wait > 2*wakeUp {
			time.Sleep(wait - wakeUp)
		}
	}
	for int64(stamp-s.Now()) > 0 {
	}
	return nil
}
