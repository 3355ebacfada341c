package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"coalesce/vcpu/kvm"
)

// ShadowPagingError says that KVM does not let the processor walk guest page
// tables here: this host must not be one of several under a Linux guest.
type ShadowPagingError struct {
	Measured string // what was seen
	Mend     string // the command, or the change, that ends it
}

func (e *ShadowPagingError) Error() string {
	return fmt.Sprintf("this host cannot take part in a guest on several hosts: %s; translations would outlive another host's change of a page table; what to do: %s",
		e.Measured, e.Mend)
}

// NestedPaging makes the probe of the same name by itself. It returns nil if the
// processor walks guest page tables here, otherwise a *ShadowPagingError.
func NestedPaging(sys *kvm.System) error {
	// A vCPU belongs to the thread that runs it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	p := &patient{root: os.DirFS("/"), sys: sys}
	c := probeNestedPaging(p)
	if p.nested {
		return nil
	}
	return &ShadowPagingError{Measured: c.Measured, Mend: c.Mend}
}

// StableTSC makes the probe of the same name by itself: what is wrong with this
// host's time stamp counter for guests that span hosts, in a line that says how to
// mend it. root is "/".
func StableTSC(root fs.FS) error {
	p := &patient{root: root}
	if c := probeTSC(p); !p.tsc {
		return fmt.Errorf("%s, and %s (%s)", c.Measured, c.Costs, c.Mend)
	}
	return nil
}
