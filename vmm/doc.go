// Package vmm is the machine: it joins memory, vCPUs, interrupts and devices
// into a guest, in two roles.
//
// The client ([Run]) owns the guest: its kernel, its devices, the I/O APIC and
// the console. A lender ([Lender]) runs some of its vCPUs over its own
// /dev/kvm. Both hold the guest's whole physical address space, kept coherent
// by package dsm.
//
//	client process                          lender process
//	┌───────────────────────────────┐       ┌──────────────────────┐
//	│ vCPU 0   devices   console    │       │ vCPU 1               │
//	│ APIC 0   I/O APIC             │ IPIs  │ APIC 1               │
//	│    └─ router ─────────────────┼───────┼── router             │
//	│          bus ◄────────────────┼─ I/O ─┼── remote bus         │
//	│ guest view                    │       │ guest view           │
//	│    └─ uffd ─ dsm engine ──────┼ pages ┼── dsm engine ─ uffd  │
//	│ session ──────────────────────┼control┼── session            │
//	└───────────────────────────────┘       └──────────────────────┘
//
// The life of a session, client's words to the left:
//
//	Hello{ask, CPU features} ─►  ◄─ Welcome{offer, CPU features} or Refuse
//	pings: round trip, offset of the two time stamp counters
//	setup{layout, CPUID, TSC} ─►   memory, vCPUs, engine are made
//	                             ◄─ ready
//	page, interrupt, I/O links ─►  (and between lenders)
//	                             ◄─ linked
//	start ─►                       the vCPUs wait for their SIPI
//	        ...the guest runs...
//	report ─►                    ◄─ report
//	stop ─►                      ◄─ stop
//	end of the connection ─►       everything is given back
package vmm
