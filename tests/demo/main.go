// Demo shows the main job and checks that it is done: one stock Linux guest on two hosts, over one coherent memory.
//
// The hosts are two network namespaces joined by a cable. The lender lends one CPU; the client boots the guest with one
// CPU of its own and the lender's. What both and the guest say is shown as it comes. Then each thing that had to hold is
// listed; the exit status is 0 only if all did.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/lab"
	"coalesce/tests/product"
)

// Time limits of the parts, generous: an emulated machine on a busy host takes a hundred times as long as a real one.
const (
	startLimit = time.Minute
	bootLimit  = 6 * time.Minute
	checkLimit = 15 * time.Minute
)

// distance between the two nodes as the guest is to see it: not the default, so that it is seen to be configured.
const distance = 40

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := demo(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Printf("demo: "+format+"\n", args...) }

func demo(ctx context.Context) (err error) {
	started := time.Now()
	files, err := product.Find()
	if err == nil {
		err = files.Check()
	}
	if err != nil {
		return err
	}
	l := lab.New(os.Stdout)
	defer func() {
		// Also after an error or Ctrl-C nothing may be left.
		err = errors.Join(err, l.Close())
	}()
	s := &show{files: files}
	if err := s.run(ctx, l); err != nil {
		return err
	}
	if failed := s.verdict(); failed > 0 {
		return fmt.Errorf("%d of %d did not hold", failed, len(s.findings))
	}
	say("all %d hold, after %v", len(s.findings), time.Since(started).Round(time.Second))
	return nil
}

// show is one run of the demo.
type show struct {
	files          product.Files
	client, lender *lab.Process
	findings       []finding
}

// finding is something that had to hold, and whether it did.
type finding struct {
	what   string
	detail string
	err    error
}

// found keeps a finding; detail says what was seen.
func (s *show) found(what, detail string, err error) {
	s.findings = append(s.findings, finding{what, detail, err})
}

// verdict lists the findings and returns how many did not hold.
func (s *show) verdict() (failed int) {
	say("what had to hold:")
	for _, f := range s.findings {
		mark, text := "ok  ", f.detail
		if f.err != nil {
			mark, text = "FAIL", f.err.Error()
			failed++
		}
		fmt.Printf("  %s  %-34s  %s\n", mark, f.what, strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", 44)))
	}
	return failed
}

// run starts lender and client and follows the guest from its boot to its power-off.
func (s *show) run(ctx context.Context, l *lab.Lab) error {
	clientHost, errClient := l.AddHost("client")
	lenderHost, errLender := l.AddHost("lender")
	if err := errors.Join(errClient, errLender); err != nil {
		return err
	}
	wire, err := l.Join(clientHost, lenderHost)
	if err != nil {
		return err
	}
	ip := wire.Addr(lenderHost).String()
	say("two hosts: %s at %v, %s at %s", clientHost.Name, wire.Addr(clientHost), lenderHost.Name, ip)

	lendFlags := []string{"--cpus", "1", "--memory", "256M"}
	say("on the lender: coalesce lend --listen %s:%s %s", ip, product.Port, strings.Join(lendFlags, " "))
	start, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	lender, err := s.files.Lend(start, lenderHost, ip, lendFlags...)
	if err != nil {
		return err
	}
	s.lender = lender.Process

	arguments := fmt.Sprintf("--seconds,.1,--slack,20000,--wake,60000,--timeout,300,--expect-cpus,2,--expect-nodes,0:0;1:1,--expect-distance,10/%[1]d;%[1]d/10", distance)
	flags := []string{"--kernel", s.files.Kernel, "--initrd", s.files.Initrd, "--cpus", "1", "--memory", "512M",
		"--lender", fmt.Sprintf("%s,cpus=1,memory=64M,distance=%d", lender.Addr, distance),
		"--mark", guestUp,
		// The lender's CPU is started once the kernel has booted: the guest's init does that.
		"--append", "maxcpus=1 coalesce.run=check coalesce.check=" + arguments}
	say("on the client: coalesce run %s", strings.Join(flags, " "))
	s.client, err = s.files.Run(clientHost, lab.Command{Name: "client", Console: "guest"}, flags...)
	if err != nil {
		return err
	}

	boot, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("the guest is not up after %v", bootLimit))
	defer cancel()
	if _, err := s.client.Stdout.Await(boot, guestUp); err != nil {
		return err
	}
	say("the guest is up; now its check")
	s.hosts()

	check, cancel := context.WithTimeoutCause(ctx, checkLimit, fmt.Errorf("the guest has not powered off after %v", checkLimit))
	defer cancel()
	exit, err := s.client.Wait(check)
	if err != nil {
		return err
	}
	s.topology()
	s.coherence()
	s.table()
	s.powerOff(exit)

	ready, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	line, err := s.lender.Stderr.Await(ready, product.SessionOver)
	if err == nil && !s.lender.Running() {
		err = errors.New("the lender has ended")
	}
	s.found("the lender is ready for the next", line, err)

	s.lender.Signal(unix.SIGINT)
	exit, err = s.lender.Wait(ready)
	if err == nil && exit.Status != 0 {
		err = fmt.Errorf("the lender: %v", exit)
	}
	s.found("Ctrl-C ends the lender", exit.String(), err)
	return nil
}
