package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"coalesce/vmm"
	"coalesce/vmm/control"
	"coalesce/vmm/metrics"
)

// watchFlags are those of how an instance can be looked at.
type watchFlags struct {
	role    string // "run" or "lend"
	name    string
	metrics string
}

func (fl *watchFlags) add(f *pflag.FlagSet, role string) {
	fl.role = role
	f.StringVar(&fl.name, "name", "", fmt.Sprintf("name for 'coalesce status' and 'top' (%s-PID)", role))
	f.StringVar(&fl.metrics, "metrics", "", "offer metrics to Prometheus at http://ADDR:PORT/metrics, to all who can reach it")
}

// serve lets others look at the instance until stop is called.
func (fl *watchFlags) serve(g *global, w vmm.Watched) (stop func(), err error) {
	var offer *metrics.Server
	if fl.metrics != "" {
		if offer, err = metrics.Serve(fl.metrics, w); err != nil {
			return nil, fmt.Errorf("--metrics: %w", err)
		}
		g.log.Info().Str("url", "http://"+offer.Addr()+"/metrics").Msg("metrics")
	}
	stopControl, err := g.serveControl(fl.name, fl.role, w)
	if err != nil {
		if offer != nil {
			err = errors.Join(err, offer.Close())
		}
		return nil, err
	}
	return func() {
		stopControl()
		if offer == nil {
			return
		}
		if err := offer.Close(); err != nil {
			g.log.Warn().Err(err).Msg("metrics")
		}
	}, nil
}

// serveControl makes the instance's control socket. Without one, which is logged,
// the program goes on unless its user chose the name.
func (g *global) serveControl(name, role string, w vmm.Watched) (stop func(), err error) {
	chosen := name != ""
	if !chosen {
		name = fmt.Sprintf("%s-%d", role, os.Getpid())
	} else if err := control.CheckName(name); err != nil {
		return nil, usageError{fmt.Errorf("--name: %w", err)}
	}
	s, err := control.Listen(control.Dir(), name)
	switch {
	case err != nil && chosen:
		return nil, err
	case err != nil:
		g.log.Warn().Err(err).Msg("no control socket: status and top will not find this")
		return func() {}, nil
	}
	vmm.ServeControl(s, w)
	s.Serve()
	g.log.Debug().Str("socket", s.Path()).Msg("control socket")
	return func() {
		if err := s.Close(); err != nil {
			g.log.Warn().Err(err).Msg("control socket")
		}
	}, nil
}

// instances returns the names to ask: the one that is named, or all that run here.
func instances(args []string) ([]string, error) {
	if len(args) > 0 {
		return args, nil
	}
	names, err := control.List(control.Dir())
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no coalesce of this user runs here (there is no socket in %s)", control.Dir())
	}
	return names, nil
}

// instance returns a client of the one that is named, or of the only one.
func instance(args []string) (*control.Client, error) {
	names, err := instances(args)
	if err != nil {
		return nil, err
	}
	if len(names) > 1 {
		return nil, usageError{fmt.Errorf("several run here: say which of %s", strings.Join(names, ", "))}
	}
	return newClient(names[0])
}

func newClient(name string) (*control.Client, error) {
	c, err := control.NewClient(control.Dir(), name)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// answerTimeout bounds the wait for an instance, which may be stopped.
const answerTimeout = 10 * time.Second

// get is Client.Get with a limit.
func get(ctx context.Context, c *control.Client, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.Get(ctx, path, v)
}

// atMostOne rejects more than one argument as a usage error.
func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return usageError{fmt.Errorf("unexpected argument %q (see '%s --help')", args[1], cmd.CommandPath())}
	}
	return nil
}

// completeInstance offers the names of what runs here.
func completeInstance(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := control.List(control.Dir())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// notThere tells that an instance does not run, or not any more.
func notThere(err error) bool { return errors.Is(err, control.ErrGone) }
