// Package bench measures the memory protocol against its floor: the same hops
// and the same kernel calls without a protocol, in the same processes, in turns
// with it.
//
//	near (CPU 0)                     home (CPU 1)        third (CPU 1)
//	┌────────────────────────┐  TCP  ┌───────────────┐   ┌───────────────┐
//	│ vCPU of a micro guest  │       │               │   │               │
//	│ product: dsm.Engine  0 │◄─────►│ dsm.Engine  1 │◄─►│ dsm.Engine  2 │
//	│ floor: a loop that     │◄─────►│ a loop        │◄─►│ a loop        │
//	│ answers its userfaults │       │               │   │               │
//	└────────────────────────┘       └───────────────┘   └───────────────┘
//
// Scans have a rig of their own (scan.go): the near node, and its memory's home
// behind a link that is shaped (shaped.go), beside raw TCP over that.
//
// What is timed is a load or store of the vCPU, by the guest itself, in cycles.
// It runs in ring 3, which every KVM runs at the processor's speed.
package bench
