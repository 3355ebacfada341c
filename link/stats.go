package link

import "sync/atomic"

// counters are what Stats reports, field by field. Each is written by whoever
// does what it counts and read at any time.
type counters struct {
	framesIn, bytesIn, framesOut, bytesOut atomic.Uint64
	reads                                  atomic.Uint64
	sentInline, sentQueued, queuedHigh     atomic.Uint64
	pingsDropped, pingsAnswered            atomic.Uint64
}

// Stats is a snapshot of a connection's counters, all since it began.
type Stats struct {
	FramesIn      uint64 // frames received whole, this package's own among them
	BytesIn       uint64 // bytes of those frames, headers included
	FramesOut     uint64 // frames Send took, this package's own among them
	BytesOut      uint64 // bytes of those frames, headers included
	Reads         uint64 // read(2) calls that returned data
	SentInline    uint64 // frames the socket took whole at once
	SentQueued    uint64 // frames that waited, at least in part, for the writer
	QueuedHigh    uint64 // most bytes ever waiting for the writer
	PingsDropped  uint64 // pongs whose stamps made no sense
	PingsAnswered uint64 // pings of the peer answered
}

// Stats returns the counters. Any thread; takes no lock, so the numbers may be
// of slightly different moments.
func (c *Conn) Stats() Stats {
	return Stats{
		FramesIn:      c.stats.framesIn.Load(),
		BytesIn:       c.stats.bytesIn.Load(),
		FramesOut:     c.stats.framesOut.Load(),
		BytesOut:      c.stats.bytesOut.Load(),
		Reads:         c.stats.reads.Load(),
		SentInline:    c.stats.sentInline.Load(),
		SentQueued:    c.stats.sentQueued.Load(),
		QueuedHigh:    c.stats.queuedHigh.Load(),
		PingsDropped:  c.stats.pingsDropped.Load(),
		PingsAnswered: c.stats.pingsAnswered.Load(),
	}
}
