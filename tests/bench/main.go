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

// runLimit bounds one run of a guest. One that takes longer counts as failed, and the others go on.
const runLimit = 5 * time.Minute

func main() {
	rounds := flag.Int("n", 5, "`rounds`: how often each kind of guest is run")
	memory := flag.String("memory", "512M", "the guests' memory, `SIZE`")
	verbose := flag.Bool("v", false, "show what the guests and the programs say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	if err := run(ctx, *rounds, *memory, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, rounds int, memory string, verbose bool) (err error) {
	if rounds < 1 || flag.NArg() > 0 {
		return errors.New("usage: bench [-n ROUNDS] [-memory SIZE] [-v]")
	}
	b := &bench{memory: memory}
	if b.files, err = product.Find(); err == nil {
		err = b.files.Check()
	}
	if err != nil {
		return err
	}
	if b.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
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
			limited, cancel := context.WithTimeoutCause(ctx, runLimit, fmt.Errorf("not within %v", runLimit))
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
