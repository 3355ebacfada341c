// Bench measures a guest on one host and on two against the alternatives on the same machine, in one run, and prints
// ratios. What it runs takes turns, so that a slow moment does not fall on one of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/tests/lab"
	"coalesce/tests/product"
)

func main() {
	rounds := flag.Int("n", 5, "`rounds`: how often each kind of guest is run")
	limit := flag.Duration("limit", 5*time.Minute, "`time` for one run of a guest; one that takes longer counts as failed, and the others go on")
	b := &bench{}
	flag.StringVar(&b.memory, "memory", "512M", "the guests' memory, `SIZE`")
	flag.StringVar(&b.qemu, "qemu", "qemu-system-x86_64", "the `program` that a local guest is compared with")
	flag.BoolVar(&b.early, "early", false, "also boot with the lender's vCPU there from the start")
	flag.DurationVar(&b.delay, "ticks", 0, "also measure the timer's ticks over a link with this one-way `delay`")
	flag.Float64Var(&b.seconds, "seconds", 6, "how long the guests' vCPUs are compared in each run")
	verbose := flag.Bool("v", false, "show what the guests and the programs say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := b.run(ctx, *rounds, *limit, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run does all rounds and prints the table.
func (b *bench) run(ctx context.Context, rounds int, limit time.Duration, verbose bool) (err error) {
	if rounds < 1 || limit <= 0 || b.seconds <= 0 || flag.NArg() > 0 {
		flag.Usage()
		return errors.New("give only flags, and numbers above 0")
	}
	if b.files, err = product.Find(); err == nil {
		err = b.files.Check()
	}
	if err != nil {
		return err
	}
	if b.qemu, err = exec.LookPath(b.qemu); err != nil {
		return fmt.Errorf("QEMU is what a local guest is compared with: %w", err)
	}
	var out *os.File
	if verbose {
		out = os.Stderr
	}
	l := newLab(out)
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := b.hosts(ctx, l); err != nil {
		return err
	}
	for i := range rounds {
		fmt.Fprintf(os.Stderr, "bench: round %d of %d:", i+1, rounds)
		for _, k := range b.kinds() {
			limited, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
			start := time.Now()
			err := k.run(limited)
			cancel()
			if ctx.Err() != nil {
				return fmt.Errorf("interrupted: %w", context.Cause(ctx))
			}
			fmt.Fprintf(os.Stderr, " %s %.1f s", k.name, time.Since(start).Seconds())
			if err != nil {
				b.failures = append(b.failures, fmt.Sprintf("round %d, %s: %v", i+1, k.name, err))
				fmt.Fprint(os.Stderr, " (failed)")
			}
		}
		fmt.Fprintln(os.Stderr)
	}
	return b.print(os.Stdout)
}

// newLab returns a lab whose processes' output goes to out; nil for nowhere.
func newLab(out *os.File) *lab.Lab {
	if out == nil {
		return lab.New(nil)
	}
	return lab.New(out)
}
