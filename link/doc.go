// Package link carries everything nodes of one guest tell each other: framed,
// measured connections, one per class of traffic.
//
// # Life of a connection
//
//	client (Dial)                                    lender (Listen)
//	     │                                                │
//	     │ ───────────── TCP connect ───────────────────► │ a goroutine per pending peer
//	     │ ───────────── Hello ─────────────────────────► │ read, bounds and version checked
//	     │                                                │ Accept returns an Incoming;
//	     │                                                │ its owner decides
//	     │ ◄──────────── Welcome, or Refuse and close ─── │ Welcome / Refuse
//	   *Conn                                            *Conn
//	     │ ◄──────────── frames, both ways ─────────────► │ Send, Recv, pings
//	     │ ───────────── CloseWrite: FIN ───────────────► │ Recv: io.EOF
//	     │ ◄──────────── CloseWrite: FIN ──────────────── │
//	   Close                                            Close
//
// A handshake message is a preface (see hello.go) and a body; a frame is a
// header (see header.go) and a payload. All numbers are little endian. A session
// is as many connections as it uses classes, all with the same SessionID; to put
// them together, and to judge the Hello's CPU features, page size and TSC rate,
// is the roles' work. What is checked here: layout, bounds, protocol version,
// and that an answer belongs to its question.
//
// # Who may call what, and on which thread
//
//	Send, Ping, CloseWrite, Abort     any thread; never block on the peer
//	Recv                              one at a time; blocks its thread in read(2)
//	RTT, Offset, Stats, Err, …        any thread; never block on the peer
//	AwaitPings, Flush                 a goroutine other than Recv's; block
//	Close                             any goroutine; waits for Recv and the writer to return
//
// After the handshake the socket is a plain blocking descriptor outside the
// runtime's poller. A thread locked to its goroutine that calls Recv sleeps in
// the kernel and is woken by it directly: no netpoll, no channel, no hand-over
// between threads on the way of a page or an interrupt. Send and Recv do not
// allocate. Two conditions are the caller's: GOMAXPROCS leaves a P for every
// thread that may come back from read(2), or it sleeps again until one is free;
// and buffers are never the guest view of memory. The class decides the bound on a payload; the caller's buffer of
// Class.MaxPayload bytes always suffices.
//
// Send offers a frame to the socket without waiting. What a slow peer's socket
// does not take is queued in memory, in order, and drained by a writer goroutine
// that exists only while there is something to drain. A queue longer than
// Options.MaxQueued ends the connection: a peer that far behind is not coming
// back, and memory is finite. Who sends more than that, a bulk transfer, calls
// Flush in between.
//
// # How a connection ends
//
//   - Orderly: CloseWrite, Recv until io.EOF, Close. A peer that was killed
//     between two frames reads the same (its kernel sends the FIN): a role that
//     must tell the two apart says goodbye in a frame of its own.
//   - Malformed frame: the receiver's Recv fails with a *FrameError; the sender
//     is told (its Recv: *AbortError), as after Abort. Other connections are not
//     touched; whether the session survives is the roles' decision.
//   - Vanished host: no FIN ever comes. Keepalive and TCP_USER_TIMEOUT turn it
//     into ErrVanished after Options.KeepAlive.
//   - Close: the other side reads io.EOF or a reset.
//
// Each end must be Closed by its owner, after any of these.
package link
