// Coalesce runs one Linux guest on several hosts at once: the client owns it,
// lenders nearby lend it vCPUs and memory.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"coalesce/vmm"
	"coalesce/vmm/doctor"
)

// Exit statuses; see "coalesce run --help" for those of a guest.
const (
	exitFailure = 1
	exitUsage   = 2
	exitPanic   = 3 // the guest's kernel panicked
	exitReset   = 4 // the guest asked for a reset, with --no-reboot
)

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// statusError ends the program with a status of its own.
type statusError struct {
	status int
	text   string
}

func (e statusError) Error() string { return e.text }

func main() { os.Exit(run()) }

func run() int {
	// Go ends a program whose standard output's reader is gone. The guest goes on,
	// and the terminal is put back, if that is only an error of a write.
	signal.Ignore(unix.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	context.AfterFunc(ctx, stop) // a second one ends the program at once
	root := newRoot()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var status statusError
	var usage usageError
	switch {
	case errors.As(err, &status):
		if status.text != "" {
			fmt.Fprintln(os.Stderr, "coalesce:", status.text)
		}
		return status.status
	case errors.As(err, &usage):
		fmt.Fprintf(os.Stderr, "coalesce: %v\n", oneLine(err))
		return exitUsage
	default:
		fmt.Fprintf(os.Stderr, "coalesce: %v\n", oneLine(err))
		return exitFailure
	}
}

// oneLine joins the lines of errors that were collected on the way out, where
// several may have met the same one.
func oneLine(err error) string {
	return strings.Join(slices.Compact(strings.Split(err.Error(), "\n")), "; ")
}

// global holds the flags of every command.
type global struct {
	logLevel    string
	device      string
	allowShadow bool
	log         zerolog.Logger
}

// host opens this host with what the flags say of it.
func (g *global) host() (*vmm.Host, error) {
	h, err := vmm.OpenHost(g.device, build())
	if err != nil {
		return nil, err
	}
	h.AllowShadowPaging = g.allowShadow
	return h, nil
}

// shadowFlag adds the flag that lets the tests' bare guests span hosts with
// shadow paging. It is hidden: Linux goes wrong there.
func (g *global) shadowFlag(f *pflag.FlagSet) {
	const name = "allow-shadow-paging"
	f.BoolVar(&g.allowShadow, name, false, "for guests that never change their page tables: let them span hosts with shadow paging")
	hide(f, name)
}

// hide leaves a flag that is for tests out of the help.
func hide(f *pflag.FlagSet, name string) {
	if err := f.MarkHidden(name); err != nil {
		panic(err) // it has just been added
	}
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:   "coalesce",
		Short: "Run one Linux guest on several hosts at once",
		Long: `Coalesce runs one unmodified Linux guest on several hosts at once. The client
owns the guest (coalesce run); lenders nearby lend it vCPUs and memory
(coalesce lend).`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       build(),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q (see 'coalesce --help')", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return usageError{errors.New("say what to do: run, lend, status, top or doctor")}
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			level, err := zerolog.ParseLevel(g.logLevel)
			if err != nil {
				return usageError{fmt.Errorf("--log-level %q: use debug, info, warn or error", g.logLevel)}
			}
			out := zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly, NoColor: !isTerminal(os.Stderr)}
			g.log = zerolog.New(out).Level(level).With().Timestamp().Logger()
			return nil
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())}
	})
	root.PersistentFlags().StringVar(&g.logLevel, "log-level", "info", "what to log: debug, info, warn or error")
	root.PersistentFlags().StringVar(&g.device, "kvm", "/dev/kvm", "the KVM device")
	diagnose := doctor.Command(&g.device)
	diagnose.Args = noArgs
	root.AddCommand(newRun(g), newLend(g), newStatus(), newTop(), newBench(g), diagnose)
	return root
}

// noArgs rejects arguments as a usage error.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q (see '%s --help')", args[0], cmd.CommandPath())}
	}
	return nil
}

// build names this program's build, which both sides of a handshake tell.
func build() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value[:min(12, len(s.Value))]
		}
	}
	return info.Main.Version
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
