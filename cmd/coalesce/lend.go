package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"coalesce/vmm"
)

func newLend(g *global) *cobra.Command {
	var cpus int
	var memory, guestMemory, listen string
	var patience time.Duration
	var drift int64
	var watch watchFlags
	cmd := &cobra.Command{
		Use:   "lend [flags]",
		Short: "Lend this host's CPUs and memory to clients",
		Long: `Lend waits for clients and runs some of their guests' vCPUs here. It serves
several clients at once as far as what it lends suffices. When a client goes,
or is killed, everything it used is given back at once and can be lent again.
Ctrl-C ends it, and the sessions with it.`,
		Example: "  coalesce lend --cpus 2 --memory 1G --listen 10.0.0.2:" + vmm.DefaultPort,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			size, err := vmm.ParseSize(memory)
			if err != nil {
				return usageError{fmt.Errorf("--memory: %w", err)}
			}
			guest, err := guestLimit(guestMemory)
			if err != nil {
				return usageError{fmt.Errorf("--guest-memory: %w", err)}
			}
			if cpus < 1 || cpus > vmm.MaxCPUs {
				return usageError{fmt.Errorf("--cpus %d: a lender lends 1 to %d", cpus, vmm.MaxCPUs)}
			}
			host, err := g.host()
			if err != nil {
				return err
			}
			defer host.Close()
			l, err := vmm.NewLender(vmm.LendConfig{Listen: listen, CPUs: cpus, Memory: size, GuestMemory: guest, Patience: patience, Drift: drift, Host: host, Log: g.log})
			if err != nil {
				return err
			}
			stop, err := watch.serve(g, l)
			if err != nil {
				return errors.Join(err, l.Close())
			}
			defer stop()
			g.log.Info().Str("address", l.Addr()).Int("cpus", cpus).Uint64("memory_mib", size>>20).Msg("lending")
			return l.Serve(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&cpus, "cpus", 1, "CPUs to lend, to all clients together")
	f.StringVar(&memory, "memory", "0", "memory to lend, such as 512M or 2G, to all clients together")
	f.StringVar(&listen, "listen", ":"+vmm.DefaultPort, "address to wait for clients on")
	f.StringVar(&guestMemory, "guest-memory", "", "largest guest to take part in, its memory on all hosts together (default: as much as this host has)")
	f.DurationVar(&patience, "patience", 0, "how long a client may prepare a guest without a word (0: a minute)")
	hide(f, "patience")
	f.Int64Var(&drift, "drift", 0, "have this host's clock look so many parts per million faster than it is")
	hide(f, "drift")
	watch.add(f, "lend")
	g.shadowFlag(f)
	return cmd
}

// guestLimit is the size that was typed, or this host's memory.
func guestLimit(typed string) (uint64, error) {
	if typed != "" {
		return vmm.ParseSize(typed)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("find out this host's memory: %w", err)
	}
	return info.Totalram * uint64(info.Unit), nil
}
