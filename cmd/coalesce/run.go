package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"coalesce/boot"
	"coalesce/vmm"
)

// runFlags are the flags of "coalesce run" as they are typed.
type runFlags struct {
	kernel, initrd, append_ string
	cpus                    int
	memory                  string
	lenders                 []string
	cpu, boot               string
	noReboot, json          bool
	mark                    string
	hold                    time.Duration
	trace                   string
	watch                   watchFlags
}

func newRun(g *global) *cobra.Command {
	var fl runFlags
	cmd := &cobra.Command{
		Use:   "run --kernel FILE [flags]",
		Short: "Boot a Linux guest here, and on lenders if any are named",
		Long: `Run boots an unmodified Linux kernel with its serial console on this terminal.
Ctrl-a x quits, Ctrl-a h shows the other keys. With --lender the guest's further
CPUs run on that host, as a NUMA node of their own, over one coherent memory.

The exit status is 0 after a power-off or Ctrl-a x, 3 after a kernel panic, 4
after a reset with --no-reboot, 2 for a mistake on the command line and 1 for
everything else.`,
		Example: `  coalesce run --kernel vmlinuz --initrd guest.cpio --cpus 2 --memory 512M
  coalesce run --kernel vmlinuz --initrd guest.cpio --lender 10.0.0.2,cpus=1,memory=256M`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return fl.run(cmd, g) },
	}
	f := cmd.Flags()
	f.StringVar(&fl.kernel, "kernel", "", "kernel: a bzImage, or an ELF file (PVH where it can)")
	f.StringVar(&fl.initrd, "initrd", "", "initial RAM disk")
	f.StringVar(&fl.append_, "append", "", "added to the kernel's command line")
	f.IntVar(&fl.cpus, "cpus", 1, "vCPUs that run here")
	f.StringVar(&fl.memory, "memory", "512M", "the guest's memory here, such as 512M or 2G")
	f.StringArrayVar(&fl.lenders, "lender", nil, "borrow: ADDR,cpus=N[,memory=SIZE][,distance=D]; may be repeated")
	f.StringVar(&fl.cpu, "cpu", "common", "the guest's CPU features: what all hosts have (common), or all of this one (host)")
	f.StringVar(&fl.boot, "boot", "auto", "way into the kernel: auto, linux64 or pvh")
	f.BoolVar(&fl.noReboot, "no-reboot", false, "end when the guest resets, instead of booting it again")
	f.BoolVar(&fl.json, "json", false, "print the closing report as JSON, on standard error")
	f.StringVar(&fl.mark, "mark", "", "report when this text appears on the console")
	f.DurationVar(&fl.hold, "hold", 0, "minimum time a page stays where it was fetched (0: as transfers turn out)")
	fl.watch.add(f, "run")
	f.StringVar(&fl.trace, "trace", "", "write what happens between the hosts to this file, for ui.perfetto.dev")
	g.shadowFlag(f)
	return cmd
}

// config checks what was typed.
func (fl *runFlags) config(g *global) (cfg vmm.RunConfig, err error) {
	cfg = vmm.RunConfig{Kernel: fl.kernel, Initrd: fl.initrd, Append: fl.append_, CPUs: fl.cpus, Mark: fl.mark, Hold: fl.hold, Trace: fl.trace, Log: g.log}
	if fl.kernel == "" {
		return cfg, errors.New("--kernel is missing: name a kernel to boot")
	}
	if fl.cpus < 1 || fl.cpus > vmm.MaxCPUs {
		return cfg, fmt.Errorf("--cpus %d: a guest has 1 to %d", fl.cpus, vmm.MaxCPUs)
	}
	if cfg.Memory, err = vmm.ParseSize(fl.memory); err != nil {
		return cfg, fmt.Errorf("--memory: %w", err)
	}
	if cfg.Memory == 0 {
		return cfg, fmt.Errorf("--memory %s: a guest needs some", fl.memory)
	}
	switch fl.cpu {
	case "common":
	case "host":
		cfg.HostCPU = true
	default:
		return cfg, fmt.Errorf("--cpu %q: use common or host", fl.cpu)
	}
	modes := map[string]boot.Mode{"auto": boot.Auto, "linux64": boot.Linux64, "pvh": boot.PVH}
	mode, ok := modes[fl.boot]
	if !ok {
		return cfg, fmt.Errorf("--boot %q: use auto, linux64 or pvh", fl.boot)
	}
	cfg.Mode = mode
	for _, s := range fl.lenders {
		spec, err := vmm.ParseLender(s)
		if err != nil {
			return cfg, fmt.Errorf("--lender: %w", err)
		}
		cfg.Lenders = append(cfg.Lenders, spec)
	}
	_, err = cfg.Layout()
	return cfg, err
}

func (fl *runFlags) run(cmd *cobra.Command, g *global) error {
	cfg, err := fl.config(g)
	if err != nil {
		return usageError{err}
	}
	if cfg.Host, err = g.host(); err != nil {
		return err
	}
	defer cfg.Host.Close()
	cfg.Console = os.Stdout
	cfg.Input, cfg.Messages = os.Stdin, os.Stderr
	cfg.Guest = vmm.NewGuest(cfg.Host)
	stop, err := fl.watch.serve(g, cfg.Guest)
	if err != nil {
		return err
	}
	defer stop()
	for {
		res, err := vmm.Run(cmd.Context(), cfg)
		if err != nil {
			return err
		}
		if err := fl.report(res); err != nil {
			return err
		}
		switch res.Outcome {
		case vmm.Panicked:
			return statusError{exitPanic, "the guest's kernel panicked"}
		case vmm.WasReset:
			if !fl.noReboot {
				g.log.Info().Msg("the guest resets")
				continue
			}
			return statusError{exitReset, "the guest asked for a reset"}
		}
		return nil
	}
}

// report prints what each node did.
func (fl *runFlags) report(res *vmm.Result) error {
	if !fl.json {
		return res.WriteTable(os.Stderr)
	}
	enc := json.NewEncoder(os.Stderr)
	if err := enc.Encode(res); err != nil {
		return fmt.Errorf("print the report: %w", err)
	}
	return nil
}
