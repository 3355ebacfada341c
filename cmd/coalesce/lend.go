package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"coalesce/vmm"
)

func newLend(g *global) *cobra.Command {
	var cpus int
	var memory, listen string
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
			if cpus < 1 || cpus > vmm.MaxCPUs {
				return usageError{fmt.Errorf("--cpus %d: a lender lends 1 to %d", cpus, vmm.MaxCPUs)}
			}
			host, err := g.host()
			if err != nil {
				return err
			}
			defer host.Close()
			l, err := vmm.NewLender(vmm.LendConfig{Listen: listen, CPUs: cpus, Memory: size, Host: host, Log: g.log})
			if err != nil {
				return err
			}
			g.log.Info().Str("address", l.Addr()).Int("cpus", cpus).Uint64("memory_mib", size>>20).Msg("lending")
			return l.Serve(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.IntVar(&cpus, "cpus", 1, "CPUs to lend, to all clients together")
	f.StringVar(&memory, "memory", "0", "memory to lend, such as 512M or 2G, to all clients together")
	f.StringVar(&listen, "listen", ":"+vmm.DefaultPort, "address to wait for clients on")
	g.shadowFlag(f)
	return cmd
}
