// Package control is how programs on a host talk to a running coalesce: HTTP and
// JSON over a Unix socket, which only the user who runs it (mode 0600) and root
// can open. It knows nothing of what is said; paths begin with the version of
// what is behind them, such as /v1/status.
//
// An answer is a JSON value, or on a path that streams one JSON value a line for
// as long as the caller listens. Anything but status 200 comes with
// {"error": "one line"}.
//
//	coalesce status ── Client ──► /run/coalesce/run-1234.sock ──► Server ── Handle'd functions
//
// Sockets are in $XDG_RUNTIME_DIR/coalesce, or in /run/coalesce where that is not
// set or another user's, one for each instance, by its name. One whose process was killed stays behind: it is
// found by nobody listening, skipped by List and removed by the next Listen.
package control
