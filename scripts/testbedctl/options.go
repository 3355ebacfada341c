package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// copied is a file or folder of this machine and its place in the emulated host, or the other way round.
type copied struct{ from, to string }

// options is what the command line asks for.
type options struct {
	verb  string // run, test or shell
	flags *flag.FlagSet
	help  bool

	machine string // key of kinds
	cpus    int
	memory  int // MiB
	thread  string
	cpu     string
	append  string
	params  []string // FILE NAME=VALUE, as wire.Plan has them
	timeout time.Duration
	files   []copied
	trees   []copied
	progs   []copied
	outs    []copied
	needs   []string // absolute paths of this machine
	env     []string
	dir     string
	tty     bool
	console bool
	quiet   bool
	logs    string

	args []string // run: the command; test: packages
	rest []string // test: flags for the test binary
}

// newOptions returns the options of a verb with their defaults.
func newOptions(verb string) *options {
	o := &options{verb: verb, flags: flag.NewFlagSet(verb, flag.ContinueOnError)}
	f := o.flags
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.StringVar(&o.machine, "machine", "amd", "`KIND` of emulated host: amd, or intel, which is slow")
	f.IntVar(&o.cpus, "cpus", 0, "`N` CPUs of the emulated host (default 2; intel: 1)")
	f.Func("memory", "its memory, `SIZE` in MiB or with M or G (default 3000M; intel: 1024M)", o.setMemory)
	f.StringVar(&o.thread, "thread", "single", "`HOW` to emulate amd's CPUs: single thread, or multi, which is faster and less sound")
	f.StringVar(&o.cpu, "cpu", "", "its CPU `MODEL`, as the emulator names it (default EPYC,+svm,+npt; intel: corei7_haswell_4770)")
	f.StringVar(&o.append, "append", "", "`WORDS` added to its kernel's command line")
	f.Func("param", "`MODULE:NAME=VALUE`: a module's parameter, such as kvm_amd:npt=0 (repeatable)", o.addParam)
	f.Func("timeout", "`SECONDS` until it is ended with status 124 (default 600; intel: 1800)", o.setTimeout)
	f.Func("file", "`SRC:DST`: put the file SRC of this machine in at DST (repeatable)", addPair(&o.files))
	f.Func("tree", "`DIR:DST`: put the folder DIR with all in it in at DST (repeatable)", addPair(&o.trees))
	f.Func("program", "`PATH[:DST]`: put in a program of this machine with the shared libraries it needs (repeatable)", o.addProgram)
	f.Func("need", "`PATH`: put in a file, folder or program of this machine at the same place (repeatable)", o.addNeed)
	f.Func("out", "`SRC:DIR`: afterwards, copy the file or the contents of the folder SRC to DIR of this machine (repeatable)", addPair(&o.outs))
	f.Func("env", "`NAME=VALUE` for the command's environment (repeatable)", o.addEnv)
	f.StringVar(&o.dir, "dir", "", "the command's working `DIR` (default /)")
	f.BoolVar(&o.tty, "tty", false, "give the command a terminal, connected to this one")
	f.BoolVar(&o.console, "console", false, "show the emulated host's console on standard error too")
	f.BoolVar(&o.quiet, "quiet", false, "say nothing unless something fails")
	f.StringVar(&o.logs, "logs", "build/testbed", "`DIR` for the logs of a failed run")
	f.BoolVar(&o.help, "help", false, "show this help")
	f.BoolVar(&o.help, "h", false, "show this help")
	return o
}

// printFlags lists the flags with two dashes, as the rest of the project writes them.
func (o *options) printFlags(w io.Writer) {
	o.flags.VisitAll(func(f *flag.Flag) {
		if f.Name == "h" {
			return
		}
		value, text := flag.UnquoteUsage(f)
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "0" {
			text += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(w, "  %-28s %s\n", strings.TrimSpace("--"+f.Name+" "+value), text)
	})
}

// parse reads the arguments after the verb.
func (o *options) parse(args []string) error {
	if err := o.flags.Parse(args); err != nil {
		return usageErrorf("%v", err)
	}
	if o.help {
		return nil
	}
	o.args = o.flags.Args()
	host, ok := kinds[o.machine]
	if !ok {
		return usageErrorf("--machine %s: give amd or intel", o.machine)
	}
	setDefault(&o.cpus, host.cpus)
	setDefault(&o.memory, host.memory)
	setDefault(&o.cpu, host.cpu)
	setDefault(&o.timeout, host.timeout)
	switch {
	case o.cpus < 1 || o.cpus > 64:
		return usageErrorf("--cpus %d: give 1 to 64", o.cpus)
	case o.thread != "single" && o.thread != "multi":
		return usageErrorf("--thread %s: give single or multi", o.thread)
	case o.verb == "shell" && len(o.args) > 0:
		return usageErrorf("shell takes no command: use run")
	case o.verb == "run" && len(o.args) == 0:
		return usageErrorf("no command given")
	}
	switch o.verb {
	case "shell":
		o.tty, o.args = true, []string{"/bin/bash", "-l"}
	case "test":
		for i, a := range o.args {
			if a == "--" {
				o.args, o.rest = o.args[:i], o.args[i+1:]
				break
			}
		}
		if len(o.args) == 0 || strings.HasPrefix(o.args[0], "-") {
			return usageErrorf("no package given")
		}
	}
	return nil
}

// setDefault sets what the command line left at its zero value.
func setDefault[T comparable](value *T, preset T) {
	var zero T
	if *value == zero {
		*value = preset
	}
}

func (o *options) setMemory(s string) error {
	number, factor := s, 1
	switch {
	case strings.HasSuffix(s, "G"):
		number, factor = strings.TrimSuffix(s, "G"), 1024
	case strings.HasSuffix(s, "M"):
		number = strings.TrimSuffix(s, "M")
	}
	n, err := strconv.Atoi(number)
	if err != nil || n*factor < 256 || n > 1<<20 {
		return errors.New("give a size from 256M up")
	}
	o.memory = n * factor
	return nil
}

func (o *options) setTimeout(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return errors.New("give seconds")
	}
	o.timeout = time.Duration(n) * time.Second
	return nil
}

func (o *options) addParam(s string) error {
	module, value, ok := strings.Cut(s, ":")
	if !ok || module == "" || !strings.Contains(value, "=") {
		return errors.New("give MODULE:NAME=VALUE")
	}
	o.params = append(o.params, moduleFile(module)+" "+value)
	return nil
}

// addPair returns a flag's function that reads FROM:TO.
func addPair(list *[]copied) func(string) error {
	return func(s string) error {
		from, to, ok := strings.Cut(s, ":")
		if !ok || from == "" || to == "" {
			return errors.New("give FROM:TO")
		}
		*list = append(*list, copied{from, to})
		return nil
	}
}

func (o *options) addProgram(s string) error {
	from, to, ok := strings.Cut(s, ":")
	if !ok {
		to = path.Clean(from)
	}
	if !path.IsAbs(from) || !path.IsAbs(to) {
		return errors.New("give PATH or PATH:DST, both absolute")
	}
	o.progs = append(o.progs, copied{from, to})
	return nil
}

func (o *options) addNeed(s string) error {
	p, err := filepath.Abs(s)
	if err != nil {
		return err
	}
	o.needs = append(o.needs, p)
	return nil
}

func (o *options) addEnv(s string) error {
	if name, _, ok := strings.Cut(s, "="); !ok || name == "" {
		return errors.New("give NAME=VALUE")
	}
	o.env = append(o.env, s)
	return nil
}
