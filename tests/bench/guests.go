package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"coalesce/guest/check"
	"coalesce/tests/lab"
	"coalesce/tests/product"
)

// Lines of the guest's init: its first one, and the one for the CPU that it starts itself, which is the lender's.
const (
	guestUp      = "coalesce-guest: up"
	remoteOnline = "coalesce-guest: cpu 1 online"
)

// bench is the guests and what was measured of them.
type bench struct {
	files   product.Files
	qemu    string
	memory  string
	early   bool          // boot with the lender's CPU there from the start, too
	delay   time.Duration // of the slow link, one way, over which the timer's ticks are measured; 0: they are not
	seconds float64       // of comparing a guest's CPUs

	client *lab.Host
	lender *product.Lender

	// Seconds from the program's start to init's first line, and until the lender's CPU runs.
	boot struct{ qemu, local, span, online, early sample }
	// Nanoseconds an iteration of a loop in user mode, alone on CPU 0 or 1 of a guest on one host, and of one on two.
	loop struct{ local, span [2]sample }
	rest struct{ local, client, lender sample }
	// What a timer's tick takes from a loop in user mode, in ms: on CPU 0 here, on CPU 1 over the slow link, and by how much
	// that is more; and the link's round trip.
	tick struct{ local, remote, added, rtt sample }

	failures []string // runs that did not do what they should
}

// kind is a kind of guest.
type kind struct {
	name string
	run  func(context.Context) error
}

// kinds are those of each round.
func (b *bench) kinds() []kind {
	kinds := []kind{{"qemu", b.runQEMU}, {"local", b.runLocal}, {"span", b.runSpan}}
	if b.early {
		kinds = append(kinds, kind{"early", b.runEarly})
	}
	if b.delay > 0 {
		kinds = append(kinds, kind{"ticks", b.runTicks})
	}
	return kinds
}

// hosts makes the two hosts; the lender serves all rounds.
func (b *bench) hosts(ctx context.Context, l *lab.Lab) (err error) {
	if b.client, err = l.AddHost("client"); err != nil {
		return err
	}
	lender, err := l.AddHost("lender")
	if err != nil {
		return err
	}
	wire, err := l.Join(b.client, lender)
	if err != nil {
		return err
	}
	b.lender, err = b.files.Lend(ctx, lender, wire.Addr(lender).String(), "--cpus", "1")
	return err
}

// words are on every guest's command line.
const words = "quiet "

// coalesce starts a guest and returns it when its init says that it is up, with the time that took.
func (b *bench) coalesce(ctx context.Context, what string, flags ...string) (*lab.Process, float64, error) {
	flags = append(flags, "--kernel", b.files.Kernel, "--initrd", b.files.Initrd, "--memory", b.memory, "--append", words+what)
	p, err := b.files.Run(b.client, lab.Command{Name: "client", Console: "guest"}, flags...)
	if err != nil {
		return nil, 0, err
	}
	_, err = p.Stdout.Await(ctx, guestUp)
	if err != nil {
		p.Kill()
	}
	return p, time.Since(p.Started).Seconds(), err
}

// compare is what a guest does that compares its CPUs' speed.
func (b *bench) compare() string {
	return fmt.Sprintf("coalesce.run=check coalesce.check=--json,--seconds,%g,compute", b.seconds)
}

// compared adds what a guest has found that has compared its CPUs.
func compared(p *lab.Process, loop *[2]sample) error {
	m, err := metrics(p, "compute")
	for i := range loop {
		if err == nil {
			loop[i].add(m[fmt.Sprintf("alone_ns_cpu%d", i)])
		}
	}
	return err
}

// metrics are what a guest's check has measured.
func metrics(p *lab.Process, test string) (map[string]float64, error) {
	for line := range strings.Lines(p.Stdout.String()) {
		if r, ok := check.ParseResult(line); ok && r.Test == test && r.Verdict == check.OK {
			return r.Metrics, nil
		}
	}
	return nil, fmt.Errorf("the guest has not done its check %q:\n%s", test, p.Stdout.Tail(5))
}

// runLocal is a guest with two vCPUs on this host, which then compares their speed.
func (b *bench) runLocal(ctx context.Context) error {
	p, seconds, err := b.coalesce(ctx, b.compare(), "--cpus", "2")
	if err != nil {
		return err
	}
	defer p.Kill() // should anything fail
	b.boot.local.add(seconds)
	if err := b.measureRest(p, &b.rest.local); err != nil {
		return err
	}
	if err := succeed(ctx, p); err != nil {
		return err
	}
	return compared(p, &b.loop.local)
}

// runSpan is a guest with a vCPU here and one on the lender, which then compares their speed. Its init starts the
// lender's CPU, once the kernel has booted.
func (b *bench) runSpan(ctx context.Context) error {
	from := b.lender.Stderr.Len()
	p, seconds, err := b.coalesce(ctx, "maxcpus=1 "+b.compare(), "--cpus", "1", "--lender", b.lender.Addr+",cpus=1")
	if err != nil {
		return err
	}
	defer p.Kill()
	b.boot.span.add(seconds)
	if _, err := p.Stdout.Await(ctx, remoteOnline); err != nil {
		return err
	}
	b.boot.online.add(time.Since(p.Started).Seconds())
	if err := errors.Join(b.measureRest(p, &b.rest.client), b.measureRest(b.lender.Process, &b.rest.lender)); err != nil {
		return err
	}
	if err := b.leave(ctx, p, from); err != nil {
		return err
	}
	return compared(p, &b.loop.span)
}

// runEarly is such a guest whose kernel starts the lender's CPU itself.
func (b *bench) runEarly(ctx context.Context) error {
	from := b.lender.Stderr.Len()
	p, seconds, err := b.coalesce(ctx, "coalesce.run=poweroff", "--cpus", "1", "--lender", b.lender.Addr+",cpus=1")
	if err != nil {
		return err
	}
	defer p.Kill()
	b.boot.early.add(seconds)
	return b.leave(ctx, p, from)
}

// runTicks is a guest whose second CPU is at the end of a slow link, and both get ticks all the time (nohz=off).
func (b *bench) runTicks(ctx context.Context) (err error) {
	slow, err := b.client.Relay("127.0.0.1:0", b.lender.Addr, lab.Path{Delay: b.delay})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, slow.Close()) }()
	from := b.lender.Stderr.Len()
	what := fmt.Sprintf("nohz=off maxcpus=1 coalesce.run=check coalesce.check=--json,--timeout,600,--seconds,%g,ticks", 5*b.seconds)
	p, _, err := b.coalesce(ctx, what, "--json", "--cpus", "1", "--lender", slow.Addr+",cpus=1")
	if err != nil {
		return err
	}
	defer p.Kill()
	if err := b.leave(ctx, p, from); err != nil {
		return err
	}
	m, err := metrics(p, "ticks")
	if err != nil {
		return err
	}
	r, err := product.Report(p)
	if err != nil {
		return err
	}
	local, remote := m["tick_us_cpu0"]/1000, m["tick_us_cpu1"]/1000
	b.tick.local.add(local)
	b.tick.remote.add(remote)
	b.tick.added.add(remote - local)
	b.tick.rtt.add(float64(r.Nodes[1].RTT) / 1e6)
	return nil
}

// leave waits until a guest has ended well and the lender, whose words after the byte at from count, is free again.
func (b *bench) leave(ctx context.Context, p *lab.Process, from int) error {
	err := succeed(ctx, p)
	if err == nil {
		_, err = b.lender.Stderr.AwaitFrom(ctx, from, product.SessionOver)
	}
	return err
}

// runQEMU is the same guest as runLocal's in QEMU's smallest machine. It goes without ACPI and trusts the TSC, as ours
// does: otherwise this kernel hangs there in the testbed (QEMU 10.0, Linux 6.12).
func (b *bench) runQEMU(ctx context.Context) error {
	p, err := b.client.Start(lab.Command{Name: "qemu", Path: b.qemu, Args: []string{
		"-M", "microvm,acpi=off", "-enable-kvm", "-cpu", "host", "-smp", "2", "-m", b.memory,
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", b.files.Kernel, "-initrd", b.files.Initrd, "-append", "console=ttyS0 tsc=reliable " + words + "coalesce.run=poweroff",
	}})
	if err != nil {
		return err
	}
	defer p.Kill()
	if _, err := p.Stdout.Await(ctx, guestUp); err != nil {
		return fmt.Errorf("%w\n%s", err, p.Stderr.Tail(5))
	}
	b.boot.qemu.add(time.Since(p.Started).Seconds())
	p.Kill() // its power-off is not what is measured
	_, err = p.Wait(ctx)
	return err
}

// measureRest adds what a process has resident that is not guest memory.
func (b *bench) measureRest(p *lab.Process, s *sample) error {
	u, err := p.Usage()
	if err == nil {
		s.add(float64(u.Resident(func(m *lab.Mapping) bool { return !m.Memfd() })) / (1 << 20))
	}
	return err
}

// succeed waits for a client's end with status 0.
func succeed(ctx context.Context, p *lab.Process) error {
	e, err := p.Wait(ctx)
	if err == nil && e.Status != 0 {
		err = fmt.Errorf("%v:\n%s", e, p.Stderr.Tail(5))
	}
	return err
}
