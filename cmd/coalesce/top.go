package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"coalesce/vmm"
	"coalesce/vmm/control"
	"coalesce/vmm/top"
)

// topFlags are the flags of "coalesce top" as they are typed.
type topFlags struct {
	json      bool
	interval  time.Duration
	count     int
	pages     int
	systemMap string
	base      string
}

func newTop() *cobra.Command {
	var fl topFlags
	cmd := &cobra.Command{
		Use:   "top [NAME] [flags]",
		Short: "Show what moves between the hosts of a running guest",
		Long: `Top shows for each node of a running guest how often it faults, what its page
links carry, and how long pages take to come; and the pages that move most: their
guest-physical address, how they are used, and what part of the guest's memory
they belong to. On a terminal a table takes the place of the one before, and
Ctrl-C ends it; elsewhere tables follow one another. The first one is of the time
since the guest began.

Of a lender it shows this host's part in the guests that it serves.

From outside the guest only the parts that the machine's description names can be
told. With --system-map pages of the kernel's own text and data get its symbols;
the guest's kernel must then be where it was loaded, as it is with nokaslr on its
command line, or where --kernel-base says.`,
		Example: `  coalesce top
  coalesce top run-1234 --interval 5s --pages 20
  coalesce top --json --count 2 | jq .guests[0].nodes
  coalesce top --system-map /boot/System.map-6.12.0-amd64`,
		Args:              atMostOne,
		ValidArgsFunction: completeInstance,
		RunE:              func(cmd *cobra.Command, args []string) error { return fl.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.BoolVar(&fl.json, "json", false, "print a JSON object a line, for each interval")
	f.DurationVarP(&fl.interval, "interval", "i", time.Second, "time between two tables")
	f.IntVarP(&fl.count, "count", "n", 0, "end after so many tables (0: when the guest does)")
	f.IntVar(&fl.pages, "pages", 10, "how many of the hottest pages to show")
	f.StringVar(&fl.systemMap, "system-map", "", "System.map of the guest's kernel")
	f.StringVar(&fl.base, "kernel-base", "", "guest-physical address of the kernel's text (where it was loaded)")
	return cmd
}

func (fl *topFlags) run(ctx context.Context, args []string) error {
	switch {
	case fl.interval < vmm.MinEvery || fl.interval > vmm.MaxEvery:
		return usageError{fmt.Errorf("--interval %v: from %v to %v", fl.interval, vmm.MinEvery, vmm.MaxEvery)}
	case fl.pages < 0 || fl.pages > vmm.MaxPages:
		return usageError{fmt.Errorf("--pages %d: 0 to %d", fl.pages, vmm.MaxPages)}
	case fl.count < 0:
		return usageError{fmt.Errorf("--count %d: 0 or more", fl.count)}
	case fl.base != "" && fl.systemMap == "":
		return usageError{errors.New("--kernel-base says where the symbols of --system-map are, which is missing")}
	}
	c, err := instance(args)
	if err != nil {
		return err
	}
	defer c.Close()
	symbols, err := fl.symbols(ctx, c)
	if err != nil {
		return err
	}
	screen := top.NewScreen(os.Stdout)
	err = fl.watch(ctx, c, symbols, screen)
	err = errors.Join(err, screen.Close())
	switch {
	case ctx.Err() != nil:
		return nil // Ctrl-C is how one ends it
	case errors.Is(err, errEnded):
		fmt.Fprintf(os.Stderr, "%s has ended\n", c.Name())
		return nil
	}
	return err
}

// errEnded tells that the instance was there and has ended.
var errEnded = errors.New("ended")

// symbols reads the kernel's symbols; there are none without --system-map.
func (fl *topFlags) symbols(ctx context.Context, c *control.Client) (*top.Symbols, error) {
	if fl.systemMap == "" {
		return nil, nil
	}
	f, err := os.Open(fl.systemMap)
	if err != nil {
		return nil, fmt.Errorf("--system-map: %w", err)
	}
	defer f.Close()
	var base uint64
	if fl.base != "" {
		if base, err = strconv.ParseUint(fl.base, 0, 64); err != nil {
			return nil, usageError{fmt.Errorf("--kernel-base %s: not an address such as 0x1000000", fl.base)}
		}
	} else {
		var s vmm.Status
		if err := get(ctx, c, "/v1/status", &s); err != nil {
			return nil, err
		}
		if s.Guest == nil {
			return nil, fmt.Errorf("%s does not say where its guest's kernel was loaded: say it with --kernel-base", c.Name())
		}
		base = s.Guest.KernelBase
	}
	symbols, err := top.ReadSymbols(f, base)
	if err != nil {
		return nil, fmt.Errorf("--system-map %s: %w", fl.systemMap, err)
	}
	return symbols, nil
}

// watch shows one interval after another until the instance ends.
func (fl *topFlags) watch(ctx context.Context, c *control.Client, symbols *top.Symbols, screen *top.Screen) error {
	tick := time.NewTicker(fl.interval)
	defer tick.Stop()
	path := fmt.Sprintf("/v1/statistics?pages=%d", fl.pages)
	var before *vmm.Statistics
	for n := 1; ; n++ {
		now := new(vmm.Statistics)
		err := get(ctx, c, path, now)
		var refused *control.Error
		switch {
		case notThere(err) && n > 1:
			return errEnded
		case errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable:
			now = &vmm.Statistics{Taken: time.Now()} // between two boots
		case err != nil:
			return err
		}
		if err := fl.show(c.Name(), top.Difference(before, now, symbols), before == nil, screen); err != nil {
			return err
		}
		if n == fl.count {
			return nil
		}
		before = now
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// show shows what happened in one interval.
func (fl *topFlags) show(name string, s *top.Sample, first bool, screen *top.Screen) error {
	if fl.json {
		if err := json.NewEncoder(os.Stdout).Encode(s); err != nil {
			return fmt.Errorf("print the statistics: %w", err)
		}
		return nil
	}
	var b bytes.Buffer
	what := "the last " + fl.interval.String()
	if first {
		what = "the time since it began"
	}
	fmt.Fprintf(&b, "%s at %s, of %s\n\n", name, s.Taken.Local().Format(time.TimeOnly), what)
	if err := s.WriteTable(&b); err != nil {
		return err
	}
	b.WriteByte('\n')
	return screen.Show(b.Bytes())
}
