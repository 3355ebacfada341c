package vmm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"coalesce/dsm/uffd"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vmm/doctor"
	"coalesce/vmm/tsc"
)

// Host is this machine as both roles see it.
type Host struct {
	Name   string
	Build  string // of this program, shown to peers
	KVM    *kvm.System
	TSCKHz uint32
	CPUID  *vcpu.CPUIDSet // what KVM can give a guest here
	// FixedTSC says why KVM cannot set a guest's TSC apart from the host's here;
	// nil if it can.
	FixedTSC error
	// AllowShadowPaging lets this host take part in a guest of several although
	// the processor does not walk guest page tables here. Only a guest that
	// leaves its page tables alone once two hosts use them is safe then: the
	// bare guests of the tests are, Linux is not.
	AllowShadowPaging bool

	span func() error // see checkSpan
}

// OpenHost opens /dev/kvm, or the device named, and asks it what it can do.
func OpenHost(device, build string) (*Host, error) {
	sys, err := kvm.Open(device)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w (%s)", err, doctor.DeviceAccess(device))
	case errors.Is(err, kvm.ErrNotSupported):
		return nil, fmt.Errorf("%w (coalesce doctor says what to do)", err)
	case err != nil:
		return nil, err
	}
	h := &Host{Build: build, KVM: sys}
	h.span = sync.OnceValue(h.probeSpan)
	if h.TSCKHz, err = sys.TSCKHz(); err != nil {
		sys.Close()
		return nil, err
	}
	if h.CPUID, err = vcpu.HostCPUID(sys); err != nil {
		sys.Close()
		return nil, err
	}
	if err := sys.ProbeTSCOffset(); errors.Is(err, kvm.ErrNotSupported) {
		h.FixedTSC = err
	} else if err != nil {
		sys.Close()
		return nil, err
	}
	if h.Name, err = os.Hostname(); err != nil {
		h.Name = "unnamed"
	}
	return h, nil
}

// Close closes the KVM device.
func (h *Host) Close() error { return h.KVM.Close() }

// probeSpan tries what a host of a guest on several needs beyond a guest of its
// own. It takes a fraction of a second.
func (h *Host) probeSpan() error {
	_, err := uffd.Probe()
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w (what gives the right: %s)", err, doctor.UserfaultfdAccess())
	case err != nil:
		return err
	}
	if err := doctor.StableTSC(os.DirFS("/")); err != nil {
		return err
	}
	return doctor.NestedPaging(h.KVM)
}

// checkSpan says why this host must not be one of several under a guest.
func (h *Host) checkSpan(log zerolog.Logger) error {
	err := h.span()
	var shadow *doctor.ShadowPagingError
	if h.AllowShadowPaging && errors.As(err, &shadow) {
		log.Warn().Str("measured", shadow.Measured).Msg("shadow paging is allowed: a guest that changes its page tables goes wrong")
		return nil
	}
	return err
}

// firstTSCOffset returns the offset from this host's TSC to that of a guest
// which begins now: its time starts at 0, or is the host's where KVM has no
// other.
func (h *Host) firstTSCOffset() int64 {
	if h.FixedTSC != nil {
		return 0
	}
	return -int64(tsc.Read())
}

// fixedTSCSlack is how far, in time, a guest's TSC may be from that of a host
// which cannot set it: what measuring it over a link may be wrong by.
const fixedTSCSlack = time.Millisecond

// checkTSCOffset says why a guest whose TSC is that far from this host's cannot
// run here.
func (h *Host) checkTSCOffset(offset int64) error {
	if h.FixedTSC == nil {
		return nil
	}
	if slack := fixedTSCSlack.Milliseconds() * int64(h.TSCKHz); offset < -slack || offset > slack {
		return fmt.Errorf("the guest's time stamp counter is %d cycles from this host's: %w", offset, h.FixedTSC)
	}
	return nil
}

// hello is what this host says of itself in every handshake.
func (h *Host) hello() link.Hello {
	return link.Hello{Build: h.Build, PageSize: pageSize, TSCKHz: h.TSCKHz, CPU: h.CPUID.Append(nil)}
}

// tscTolerance is how far two hosts' TSC rates may differ to be taken as they
// are, in parts per million; KVM applies none of a smaller difference.
const tscTolerance = 250

// checkTSC compares a peer's rate with this host's.
func (h *Host) checkTSC(khz uint32) error {
	diff := int64(h.TSCKHz) - int64(khz)
	if diff < 0 {
		diff = -diff
	}
	if diff*1_000_000 > int64(h.TSCKHz)*tscTolerance {
		return fmt.Errorf("its time stamp counter runs at %d kHz, here it is %d kHz: more than %d ppm apart, and scaling is not supported yet",
			khz, h.TSCKHz, tscTolerance)
	}
	return nil
}
