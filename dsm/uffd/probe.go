package uffd

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Support is what Probe found out about this kernel's userfaultfd.
type Support struct {
	Features uint64 // UFFD_FEATURE_ bits that the kernel offers
	Device   bool   // opened through /dev/userfaultfd, not by CAP_SYS_PTRACE
}

// requirement is a feature that the two views cannot do without.
type requirement struct {
	bit          uint64
	name, kernel string
}

var requirements = []requirement{
	{FeaturePagefaultWP, "UFFD_FEATURE_PAGEFAULT_FLAG_WP", "5.7"},
	{FeatureMissingShmem, "UFFD_FEATURE_MISSING_SHMEM", "4.11"},
	{FeatureThreadID, "UFFD_FEATURE_THREAD_ID", "4.14"},
	{FeatureMinorShmem, "UFFD_FEATURE_MINOR_SHMEM", "5.14"},
	{FeatureWPShmem, "UFFD_FEATURE_WP_HUGETLBFS_SHMEM", "5.19"},
}

const requiredFeatures = FeaturePagefaultWP | FeatureMissingShmem | FeatureThreadID | FeatureMinorShmem | FeatureWPShmem

var (
	errNoContinueWP = &FeatureError{Feature: "UFFDIO_CONTINUE_MODE_WP", Kernel: "6.4"}
	errNoPoison     = &FeatureError{Feature: "UFFDIO_POISON", Kernel: "6.6"}
)

var probed struct {
	sync.Mutex
	done    bool
	support Support
	err     error
}

// Probe finds out, by using it on a page of its own, whether this kernel's
// userfaultfd can do what the package needs. A conclusive answer is kept for the
// process; lack of permission or of memory is not one. Errors: a *FeatureError
// (ErrNotSupported) for the first thing missing, or one that Is
// fs.ErrPermission. Support has what is known even then.
func Probe() (Support, error) {
	probed.Lock()
	defer probed.Unlock()
	if probed.done {
		return probed.support, probed.err
	}
	support, err := probe()
	if err == nil || errors.Is(err, ErrNotSupported) {
		probed.done, probed.support, probed.err = true, support, err
	}
	return support, err
}

func probe() (Support, error) {
	fd, device, err := newUserfaultfd()
	if err != nil {
		return Support{}, err
	}
	// UFFDIO_API answers once per descriptor; asking for nothing lists everything.
	api := uffdioAPI{api: uffdAPI}
	e := api.ioctl(fd)
	unix.Close(fd)
	if e != 0 {
		return Support{}, fmt.Errorf("userfaultfd: UFFDIO_API: %w", e)
	}
	support := Support{Features: api.features, Device: device}
	for _, r := range requirements {
		if api.features&r.bit == 0 {
			return support, &FeatureError{Feature: r.name, Kernel: r.kernel}
		}
	}
	return support, probeContinueWP()
}

// probeContinueWP tries UFFDIO_CONTINUE_MODE_WP, which no feature bit announces: a
// kernel without it says EINVAL.
func probeContinueWP() error {
	m, err := NewMemory("coalesce-probe", []Window{{0, PageSize}}, MemoryOptions{})
	if err != nil {
		return err
	}
	defer m.Close()
	fd, _, err := newUserfaultfd()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	api := uffdioAPI{api: uffdAPI, features: requiredFeatures}
	if e := api.ioctl(fd); e != 0 {
		return fmt.Errorf("userfaultfd: UFFDIO_API with features %#x: %w", uint64(requiredFeatures), e)
	}
	u := &Uffd{mem: m, fd: fd}
	if err := u.Register(0, 1); err != nil {
		return err
	}
	if err := m.PopulateAlias(0, 1); err != nil {
		return fmt.Errorf("userfaultfd: populate a page: %w", err)
	}
	switch _, err := u.Continue(0, 1, true); err {
	case nil:
		return nil
	case unix.EINVAL:
		return errNoContinueWP
	default:
		return fmt.Errorf("userfaultfd: UFFDIO_CONTINUE: %w", err)
	}
}

// newUserfaultfd opens a userfaultfd that reports faults taken inside the kernel,
// as KVM's are: through the device, whose file mode says who may, or by the system
// call, which wants CAP_SYS_PTRACE (or the sysctl vm.unprivileged_userfaultfd).
func newUserfaultfd() (fd int, device bool, err error) {
	const flags = unix.O_CLOEXEC | unix.O_NONBLOCK
	const path = "/dev/userfaultfd" // Linux 6.1
	dev, errDev := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errDev == nil {
		r, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), ioctlNew, flags)
		unix.Close(dev)
		if e == 0 {
			return int(r), true, nil
		}
		errDev = e
	}
	r, _, e := unix.Syscall(unix.SYS_USERFAULTFD, flags, 0, 0)
	switch e {
	case 0:
		return int(r), false, nil
	case unix.ENOSYS:
		return -1, false, &FeatureError{Feature: "userfaultfd(2) (CONFIG_USERFAULTFD)", Kernel: "4.3"}
	case unix.EPERM:
		return -1, false, fmt.Errorf("userfaultfd: %s: %w; without it CAP_SYS_PTRACE is needed: %w", path, errDev, e)
	}
	return -1, false, fmt.Errorf("userfaultfd: %w", e)
}
