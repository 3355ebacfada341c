package doctor

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"coalesce/dsm/uffd"
	"coalesce/vmm/latency"

	"golang.org/x/sys/unix"
)

// Oldest kernel that has everything (UFFDIO_CONTINUE_MODE_WP). The features
// themselves decide; the number is for the reader.
const oldestMajor, oldestMinor = 6, 4

// probeKernel reads the kernel's version.
func probeKernel(*patient) Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Check{Status: Missing, Measured: fmt.Sprintf("uname: %v", err)}
	}
	return kernelCheck(unix.ByteSliceToString(u.Release[:]))
}

func kernelCheck(release string) Check {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return Check{Status: Degraded, Measured: fmt.Sprintf("Linux %q: unknown version", release)}
	}
	if major < oldestMajor || major == oldestMajor && minor < oldestMinor {
		return Check{
			Status:   Degraded,
			Measured: "Linux " + release,
			Costs:    "guests cannot span hosts",
			Mend:     fmt.Sprintf("a kernel %d.%d or newer (Debian: from backports)", oldestMajor, oldestMinor),
		}
	}
	return ok("Linux %s", release)
}

// probeMemfd writes through one mapping of a memfd and reads through another.
func probeMemfd(p *patient) Check {
	if err := twoViews(); err != nil {
		return Check{
			Status:   Missing,
			Measured: err.Error(),
			Costs:    "there is nothing to keep guest memory in",
			Mend:     "a kernel with CONFIG_MEMFD_CREATE, and no rule (seccomp, vm.memfd_noexec) against it",
		}
	}
	p.memfd = true
	return ok("one memfd, two mappings, one content")
}

func twoViews() (err error) {
	mem, err := uffd.NewMemory("coalesce-doctor", []uffd.Window{{GPA: 0, Size: uffd.PageSize}}, uffd.MemoryOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	const mark = 0xa5
	mem.Alias(0, 1)[0] = mark
	b, err := readGuestView(mem, 0)
	if err == nil && b != mark {
		err = fmt.Errorf("wrote %#x through one mapping, read %#x through the other", mark, b)
	}
	return err
}

const clocksourcePath = "sys/devices/system/clocksource/clocksource0/"

// probeTSC looks at what the kernel, which watches the TSC, thinks of it.
func probeTSC(p *patient) Check {
	khz := ""
	if p.sys != nil {
		if n, err := p.sys.TSCKHz(); err == nil {
			khz = fmt.Sprintf(", %d kHz", n)
		}
	}
	current := p.file(clocksourcePath + "current_clocksource")
	if current != "tsc" {
		c := Check{
			Status:   Missing,
			Measured: fmt.Sprintf("the clock source is %q%s", current, khz),
			Costs:    "guests cannot span hosts: their clocks are made of the hosts' TSCs",
			Mend:     "boot the host with tsc=reliable if its TSC is sound: the kernel does not offer tsc",
		}
		for s := range strings.FieldsSeq(p.file(clocksourcePath + "available_clocksource")) {
			if s == "tsc" {
				c.Mend = "echo tsc | sudo tee /" + clocksourcePath + "current_clocksource"
			}
		}
		return c
	}
	p.tsc = true
	if !p.cpuFlag("constant_tsc") || !p.cpuFlag("nonstop_tsc") {
		return Check{
			Status:   Degraded,
			Measured: "the clock source is tsc, but the processor does not promise that it is invariant" + khz,
			Costs:    "clocks of vCPUs on this host may drift against other hosts'",
			Mend:     "none here: the processor, or the hypervisor below, must say so (CPUID 0x80000007)",
		}
	}
	return ok("the clock source is tsc, invariant%s", khz)
}

const shmemEnabledPath = "sys/kernel/mm/transparent_hugepage/shmem_enabled"

// probeHugePages makes a huge page of 512 small ones.
func probeHugePages(p *patient) Check {
	setting := "no huge pages for shmem"
	for s := range strings.FieldsSeq(p.file(shmemEnabledPath)) {
		if strings.HasPrefix(s, "[") {
			setting = "shmem_enabled=" + strings.Trim(s, "[]")
		}
	}
	took, err := collapse()
	if err != nil {
		return Check{
			Status:   Degraded,
			Measured: fmt.Sprintf("%v (%s)", err, setting),
			Costs:    "guests run on 4 KiB pages: more TLB misses, most with nested paging",
			Mend:     "a kernel 6.1 or newer with CONFIG_TRANSPARENT_HUGEPAGE; or echo advise | sudo tee /" + shmemEnabledPath,
		}
	}
	return ok("2 MiB collapsed in %s (%s)", short(took), setting)
}

func collapse() (_ time.Duration, err error) {
	const size = 2 << 20
	mem, err := uffd.NewMemory("coalesce-doctor", []uffd.Window{{GPA: 0, Size: size}}, uffd.MemoryOptions{Huge: true})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	if err := mem.PopulateAlias(0, mem.Pages()); err != nil {
		return 0, err
	}
	start := time.Now()
	err = mem.Collapse(0, mem.Pages())
	return time.Since(start), err
}

// probeCPULatency holds /dev/cpu_dma_latency at 0 and looks at what that does to a
// fault.
func probeCPULatency(p *patient) Check {
	c := Check{
		Status: Degraded,
		Costs:  "each fault waits for an idle processor to wake up",
	}
	var idle, held time.Duration
	var err error
	if p.uffd {
		if idle, err = faultTime(); err != nil {
			c.Measured = fmt.Sprintf("fault time: %v", err)
			return c
		}
	}
	f, err := latency.Hold()
	if err != nil {
		c.Measured = err.Error()
		c.Mend = "sudo setfacl -m u:$USER:rw " + latency.Device
		if errors.Is(err, os.ErrNotExist) {
			c.Mend = "none here: the kernel has no such device (CONFIG_CPU_IDLE)"
		}
		return c
	}
	defer f.Close()
	if !p.uffd {
		return ok("%s can be held at 0", latency.Device)
	}
	if held, err = faultTime(); err != nil {
		c.Measured = fmt.Sprintf("fault time: %v", err)
		return c
	}
	return ok("%s held at 0: a local fault takes %s, without %s", latency.Device, short(held), short(idle))
}

// probeLockedMemory locks as much as a guest of half the host's memory has, page by
// page as they are touched, of which there are none here.
func probeLockedMemory(*patient) Check {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return Check{Status: Missing, Measured: fmt.Sprintf("sysinfo: %v", err)}
	}
	half := (info.Totalram * uint64(info.Unit) / 2) &^ (uffd.PageSize - 1)
	mem, err := uffd.NewMemory("coalesce-doctor", []uffd.Window{{GPA: 0, Size: half}}, uffd.MemoryOptions{Lock: true})
	if err == nil {
		err = mem.Close()
	}
	if err != nil {
		return Check{
			Status:   Degraded,
			Measured: err.Error(),
			Costs:    "under memory pressure the host unmaps guest pages, each of which then faults once more",
			Mend:     "ulimit -l unlimited (lasting: memlock in /etc/security/limits.conf, LimitMEMLOCK= in a unit)",
		}
	}
	return ok("%d MiB can be locked", half>>20)
}
