package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"coalesce/dsm/uffd"

	"golang.org/x/sys/unix"
)

// probeUserfaultfd asks for every feature that the DSM uses.
func probeUserfaultfd(p *patient) Check {
	support, err := uffd.Probe()
	var feature *uffd.FeatureError
	c := Check{Status: Missing, Costs: "a guest cannot span hosts"}
	switch {
	case err == nil:
		p.uffd = true
		way := "/dev/userfaultfd"
		if !support.Device {
			way = "CAP_SYS_PTRACE"
		}
		return ok("features %#x, opened by %s", support.Features, way)
	case errors.As(err, &feature):
		c.Mend = fmt.Sprintf("a kernel %s or newer with CONFIG_USERFAULTFD", feature.Kernel)
	case errors.Is(err, fs.ErrPermission):
		c.Mend = UserfaultfdAccess()
	default:
		c.Mend = "none known"
	}
	c.Measured = err.Error()
	return c
}

// probeKernelFaults has a vCPU, or without KVM a system call, wait for a page.
func probeKernelFaults(p *patient) Check {
	c := Check{Status: Missing, Costs: "a guest cannot span hosts", Mend: "make the userfaultfd check ok"}
	if !p.uffd {
		c.Measured = "not probed: needs userfaultfd"
		return c
	}
	who, took, err := "a vCPU's", time.Duration(0), error(nil)
	if p.sys != nil {
		took, err = vcpuFault(p)
	} else {
		who = "a system call's"
		took, err = faultTime()
	}
	if err != nil {
		c.Measured = fmt.Sprintf("%s fault: %v", who, err)
		return c
	}
	p.kernelFaults = true
	return ok("%s fault on a missing page handled in %s", who, short(took))
}

// vcpuFault measures how long a guest's touch of a missing page takes, with the
// exit after it: the median of several.
func vcpuFault(p *patient) (_ time.Duration, err error) {
	g, err := newMicroGuest(p.sys, countProgram, 3, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	r, err := startResolver(g.mem, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	const data, rounds = gpaData / uffd.PageSize, 33
	g.mail(1)
	if _, err := g.toDoor(); err != nil {
		return 0, err
	}
	return median(rounds, func() error {
		_, err := g.toDoor()
		return err
	}, func() error {
		if _, err := r.take(); err != nil {
			return err
		}
		return r.u.Zap(data, 1)
	})
}

// faultTime measures how long a system call waits for a missing page: the median
// of several.
func faultTime() (_ time.Duration, err error) {
	const rounds = 101
	mem, err := uffd.NewMemory("coalesce-doctor", []uffd.Window{{GPA: 0, Size: uffd.PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	r, err := startResolver(mem, nil)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return median(rounds, func() error {
		_, err := readGuestView(mem, 0)
		return err
	}, func() error { return r.u.Zap(0, 1) })
}

// median runs prepare and f in turn and returns the median time of f.
func median(rounds int, f, prepare func() error) (time.Duration, error) {
	took := make([]time.Duration, rounds)
	for i := range took {
		if err := prepare(); err != nil {
			return 0, err
		}
		start := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took[rounds/2], nil
}

// readGuestView reads the first byte of a page through the guest view, by a system
// call: Go code must not fault there.
func readGuestView(mem *uffd.Memory, page uint32) (byte, error) {
	var b [1]byte
	local := unix.Iovec{Base: &b[0], Len: 1}
	remote := unix.RemoteIovec{Base: mem.HVA(page), Len: 1}
	n, err := unix.ProcessVMReadv(unix.Getpid(), []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	if err != nil || n != 1 {
		return 0, fmt.Errorf("read the guest view: %d bytes: %w", n, err)
	}
	return b[0], nil
}

// short prints a time with a useful number of digits.
func short(d time.Duration) string {
	if d < time.Millisecond {
		return fmt.Sprintf("%.1f us", float64(d.Nanoseconds())/1e3)
	}
	return fmt.Sprintf("%.1f ms", float64(d.Nanoseconds())/1e6)
}
