// Package doctor finds out what of coalesce works on this host and how to mend
// what does not.
//
// Every requirement is probed by using it: the processor's walks of guest page
// tables, for one, are seen by taking a page table away from a running guest of
// a few instructions (microguest.go) and waiting for the fault. What the kernel
// says of itself in /sys is printed beside the measurement, never instead of it,
// unless there is nothing to measure with.
//
// A probe returns a Check for the reader and leaves a fact for the Verdict
// (verdict.go), so that no decision rests on printed text. Nothing is changed on
// the host, and everything a probe opened is closed again.
package doctor
