// Package kvm is a thin layer over /dev/kvm on x86-64: one method per ioctl,
// the kernel's structures with their sizes asserted, and the shared kvm_run
// page behind typed accessors. It holds no policy; package vcpu does.
//
// It is written here rather than taken from github.com/bobuhiro11/gokvm/kvm.
// What could have been used from there is the register, CPUID and MSR get and
// set calls, and these drop what a VMM needs: KVM_SET_MSRS and KVM_GET_MSRS
// report how many entries were accepted, which is the only sign of a refused
// MSR, and that package discards it; its structures hide the reserved words
// behind blank fields and travel through reflection on each call; its KVM_RUN
// hides EINTR, on which kicks rest. XSAVE, KVM_ENABLE_CAP, user-space MSR
// exits, the signal mask and the TSC offset are not there at all. The twenty
// remaining lines are not worth a dependency.
//
// # Threads
//
// A vCPU's ioctls take its mutex in the kernel, so one issued while another
// thread is inside KVM_RUN waits until that returns. Package vcpu therefore
// calls every method of VCPU and Run on the vCPU's own thread. System and VM
// may be used from any goroutine.
//
// # Names
//
// Constants carry their name in linux/kvm.h, so that they can be searched for
// in the kernel's documentation (Documentation/virt/kvm/api.rst).
package kvm
