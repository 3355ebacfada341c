package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"coalesce/bench"
)

func newBench(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure coalesce on this host",
		Args:  noArgs,
	}
	cmd.AddCommand(newBenchDSM(g), newBenchMemory(g), newBenchFar())
	return cmd
}

func newBenchDSM(g *global) *cobra.Command {
	var o bench.Options
	cmd := &cobra.Command{
		Use:   "dsm [flags]",
		Short: "Measure the memory protocol against its floor",
		Long: `Dsm prints how long a vCPU waits for pages of other nodes, beside the floor: the
same hops between the same processes and the same kernel calls, without a
protocol. Floor and product take turns; ratios are the medians of the rounds',
with the least and the greatest. The nodes are processes on this host, pinned to
its first and last CPU.

Scans of 16 MiB that another node has just written go over a link of 1 Gbit/s, a
veth pair with a token bucket, beside raw TCP over the same one. That takes the
right to make network namespaces, and the kernel's tbf; without, they are left out.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rounds < 1 {
				return usageError{fmt.Errorf("--rounds %d: measure at least once", o.Rounds)}
			}
			o.Device, o.Out, o.FarArgs = g.device, os.Stdout, []string{"bench", farCommand}
			o.Progress = progress(os.Stderr)
			err := bench.DSM(cmd.Context(), o)
			o.Progress(0, 0, "")
			return err
		},
	}
	cmd.Flags().IntVarP(&o.Rounds, "rounds", "n", 9, "how often to measure each line")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the table as JSON")
	return cmd
}

func newBenchMemory(g *global) *cobra.Command {
	var o bench.Options
	cmd := &cobra.Command{
		Use:   "memory [flags]",
		Short: "Measure what a guest pays for lenders it does not have",
		Long: `Memory prints how long a guest takes to read at random in memory, beside a plain
KVM guest: one vCPU, private memory in 2 MiB pages, and nothing else. Both take
turns on this host's last CPU; the ratio is the median of the rounds', with the
least and the greatest.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Rounds < 1 {
				return usageError{fmt.Errorf("--rounds %d: measure at least once", o.Rounds)}
			}
			host, err := g.host()
			if err != nil {
				return err
			}
			defer host.Close()
			o.Device, o.Out, o.Progress = g.device, os.Stdout, progress(os.Stderr)
			err = bench.Memory(cmd.Context(), o, host)
			o.Progress(0, 0, "")
			return err
		},
	}
	cmd.Flags().IntVarP(&o.Rounds, "rounds", "n", 9, "how often to measure each line")
	cmd.Flags().BoolVar(&o.JSON, "json", false, "print the table as JSON")
	g.shadowFlag(cmd.Flags())
	return cmd
}

// progress returns a function that shows on a terminal what is being done, in one
// line that an empty one clears; elsewhere it says nothing.
func progress(f *os.File) func(round, rounds int, what string) {
	if !term.IsTerminal(int(f.Fd())) {
		return func(int, int, string) {}
	}
	return func(round, rounds int, what string) {
		fmt.Fprint(f, "\r\x1b[K")
		if what != "" {
			fmt.Fprintf(f, "round %d of %d: %s", round, rounds, what)
		}
	}
}

// farCommand is what the benchmark runs its other nodes with.
const farCommand = "far"

func newBenchFar() *cobra.Command {
	return &cobra.Command{
		Use:    farCommand + " ROLE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return bench.Far(args[0], os.Stdin, os.Stdout)
		},
	}
}
