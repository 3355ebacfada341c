// Package lab makes hosts out of network namespaces on one machine, joins them by cables, and runs programs on them.
// Whole-system tests, the demo and the benchmark use it, inside the testbed and on any machine where they are root.
//
//	Lab
//	 ├─ Host "client"  10.77.1.1 ──┐
//	 │    └─ Process               │ Wire: a veth pair that can be shaped, cut and restored
//	 └─ Host "lender"  10.77.1.2 ──┘
//	      └─ Process
//
// Where the kernel cannot shape a cable, a [Relay] delays what passes through it.
//
// Nothing has to be cleaned up by hand. A namespace has no name: it is gone with the last process and descriptor in it,
// and its end of a cable with it. Every process dies with the thread that started it, so a program that uses a lab and
// is killed leaves nothing behind either. [Lab.Close] does the same in order and checks that it worked.
package lab
