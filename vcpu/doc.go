// Package vcpu runs a guest's virtual CPUs over KVM.
//
// A VCPU is an actor: one goroutine locked to one OS thread owns the KVM vCPU
// and everything about it; the rest of the process sends it requests (Pause,
// Resume, Capture, Restore, Close) and kicks. There is no in-kernel irqchip:
// the local APIC is package apic's, whose registers reach it as MSR exits, and
// its interrupts enter the guest through KVM_INTERRUPT.
//
// # Kicks
//
// A kick makes the vCPU's thread look at its APIC and its requests again, out
// of the guest or out of a wait. It is one signal, kickSignal, aimed at the
// thread (tgkill). The signal is blocked on the thread except inside KVM_RUN,
// where KVM_SET_SIGNAL_MASK unblocks it and blocks every other: so it never
// runs a handler, it only ends KVM_RUN with EINTR (or rt_sigtimedwait, in which
// a halted vCPU waits), and rt_sigtimedwait consumes it. A kick that arrives
// between the thread's last look and its entry stays pending and ends that
// entry at once: none is lost. The APIC timer is a POSIX timer that sends the
// same signal to the same thread, so a timer interrupt costs no other thread.
//
// Kicks are coalesced: from the first until the thread looks, further ones do
// nothing, and a thread that is outside the guest gets no signal at all, which
// covers a vCPU that interrupts itself. That is more than thrift: a vCPU that
// waits for a page inside KVM's instruction emulator spins while a signal is
// pending, and must not be signalled again and again.
//
// What Go adds: it force-unblocks signals 32 to 34, hence a higher one; it
// starts new threads from a thread of its own when the caller is locked, so
// they do not inherit the blocked kick; its SIGURG preemption waits, blocked,
// until KVM_RUN returns, where the goroutine reaches a safe point anyway.
// KVM_RUN goes through syscall.Syscall, so a thread in the guest holds no P
// for long; still, a process needs GOMAXPROCS of at least its vCPUs plus what
// else must run at once.
//
// # Time
//
// A guest's TSC is the host's plus an offset that the VM sets for all its
// vCPUs (SetTSCOffset). It is no part of a vCPU's State: the receiving node has
// its own. Every paravirtual clock is masked from CPUID.
package vcpu
