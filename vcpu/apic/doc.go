// Package apic is a local APIC in user space: the x2APIC beside each vCPU of a
// virtual machine that runs without an in-kernel interrupt controller, and the
// Router that carries messages between APICs by APIC id, on this node or on
// another.
//
// The model follows the Intel SDM, volume 3, chapter "Advanced Programmable
// Interrupt Controller", section "Extended XAPIC (x2APIC)". It is always in
// x2APIC mode: there is no MMIO page, no destination format register and no
// way back. What it leaves out, and what a guest sees instead:
//
//   - TSC-deadline timer mode: its mode bit is reserved (#GP); CPUID must not
//     offer it.
//   - EOI-broadcast suppression: the version register does not announce it and
//     SVR bit 12 is reserved. Directed EOIs would cost every level interrupt an
//     IOAPIC access that a lender has to forward, in place of one message.
//   - LVT CMCI: the version register announces six LVT entries.
//   - SMM and the 8259: SMI and ExtINT messages are dropped and counted.
//
// # Threads
//
// Deliver, Matches, Stats and the Router's routing methods may be called by
// any thread. Everything else belongs to the thread of the vCPU that the APIC
// sits beside. One small mutex guards the whole register file; no callback is
// made while it is held, so a Bus may deliver back into the sender.
//
// # No lost wake-up
//
// A vCPU thread that is about to enter the guest or to block does, in this
// order:
//
//  1. consume the kick (the pending signal, the channel token);
//  2. TakeEvents, which also re-arms the kick;
//  3. Tick, Pending, Accept: look at what there is to do;
//  4. enter or block, in a way that a kick ends (also one that came after 1).
//
// Deliver records the message and reads the kick's armed flag in one critical
// section. If the flag was armed, its caller kicks, and step 4 ends. If not, an
// earlier caller's kick has not been followed by a TakeEvents yet; that kick is
// pending or about to be sent, so the thread will come to step 2 again and see
// this message in step 3. A message that adds nothing (its IRR bit was set
// already) asks for no kick: the one that set the bit did.
//
// What the vCPU thread does to its own APIC (self IPI, timer expiry, writes that
// lower the priority) asks for no kick: the thread is outside the guest and
// passes step 3 before it enters again.
package apic
