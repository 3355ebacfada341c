package vcpu

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kickSignal is the signal that ends KVM_RUN. Above SIGRTMIN, so that it
// means nothing to anyone else, and clear of 32 to 34, which Go unblocks
// whenever it sets a mask.
const kickSignal = 40

// signalBit is a signal's bit in the kernel's 64-bit sigset.
func signalBit(sig int) uint64 { return 1 << (sig - 1) }

// blockKick blocks the kick on the calling thread, which must be locked to its
// goroutine for the rest of the goroutine's life.
func blockKick() error {
	set := unix.Sigset_t{}
	set.Val[0] = signalBit(kickSignal)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil); err != nil {
		return fmt.Errorf("blocking signal %d: %w", kickSignal, err)
	}
	return nil
}
