package main

import (
	"errors"
	"strings"
)

// config is what the kernel command line asks of init.
//
//	coalesce.run=shell               a shell on the console (the default)
//	coalesce.run=check               the coherence check
//	coalesce.run=exec:/path,arg,...  that program with those arguments
//	coalesce.run=poweroff            nothing: power off at once
//	coalesce.check=arg,...           arguments for the coherence check
//	coalesce.hostname=NAME           the guest's name ("coalesce")
//
// As with every parameter of the kernel, double quotes keep spaces together: coalesce.check="--expect-distance=10 20;20 10".
// In a list of arguments a comma separates and `\,` is a comma.
type config struct {
	hostname string
	argv     []string // the program to run and its arguments; empty: power off at once
	terminal bool     // it is interactive: give it a session with the console as its terminal
}

// Programs of the initramfs that init knows by name.
const (
	shellPath = "/bin/sh"
	checkPath = "/bin/check"
)

// parseConfig reads the parameters of ours from a kernel command line; the others are the kernel's. A parameter given
// twice has its last value.
func parseConfig(cmdline string) (config, error) {
	run, checkArgs := "shell", ""
	cfg := config{hostname: "coalesce"}
	for _, p := range splitCmdline(cmdline) {
		key, value, _ := strings.Cut(p, "=")
		switch key {
		case "coalesce.run":
			run = value
		case "coalesce.check":
			checkArgs = value
		case "coalesce.hostname":
			cfg.hostname = value
		default:
			if strings.HasPrefix(key, "coalesce.") {
				return config{}, errors.New("unknown parameter " + key +
					" on the kernel command line: known are coalesce.run, coalesce.check and coalesce.hostname")
			}
		}
	}
	if cfg.hostname == "" || len(cfg.hostname) > maxHostname {
		return config{}, errors.New("coalesce.hostname: a name has 1 to 64 characters")
	}
	switch {
	case run == "poweroff":
	case run == "shell":
		cfg.argv, cfg.terminal = []string{shellPath}, true
	case run == "check":
		cfg.argv = append([]string{checkPath}, splitArgs(checkArgs)...)
	case strings.HasPrefix(run, "exec:"):
		cfg.argv = splitArgs(strings.TrimPrefix(run, "exec:"))
		if len(cfg.argv) == 0 || !strings.HasPrefix(cfg.argv[0], "/") {
			return config{}, errors.New("coalesce.run=" + run + ": exec: takes the absolute path of a program")
		}
	default:
		return config{}, errors.New("coalesce.run=" + run + ": known are shell, check, exec:/path,arg,... and poweroff")
	}
	return cfg, nil
}

// maxHostname is the longest host name Linux takes (__NEW_UTS_LEN, linux/utsname.h).
const maxHostname = 64

// splitCmdline splits a kernel command line into its parameters as the kernel does (next_arg, lib/cmdline.c): at white
// space outside double quotes; quotes around a whole parameter or around a value are taken away, others stay.
func splitCmdline(cmdline string) []string {
	var params []string
	for i := 0; i < len(cmdline); {
		if isSpace(cmdline[i]) {
			i++
			continue
		}
		start, quoted := i, false
		for ; i < len(cmdline) && (quoted || !isSpace(cmdline[i])); i++ {
			if cmdline[i] == '"' {
				quoted = !quoted
			}
		}
		params = append(params, unquote(cmdline[start:i]))
	}
	return params
}

// unquote takes the double quotes away that stand around p or around the value in p.
func unquote(p string) string {
	if strings.HasPrefix(p, `"`) {
		return strings.TrimSuffix(p[1:], `"`)
	}
	key, value, found := strings.Cut(p, "=")
	if found && strings.HasPrefix(value, `"`) {
		return key + "=" + strings.TrimSuffix(value[1:], `"`)
	}
	return p
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// splitArgs splits a list at its commas; `\,` stands for a comma and `\\` for a backslash. An empty list has no
// arguments.
func splitArgs(list string) []string {
	if list == "" {
		return nil
	}
	var args []string
	var arg []byte
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && i+1 < len(list) && (list[i+1] == ',' || list[i+1] == '\\'):
			i++
			arg = append(arg, list[i])
		case c == ',':
			args = append(args, string(arg))
			arg = nil
		default:
			arg = append(arg, c)
		}
	}
	return append(args, string(arg))
}
