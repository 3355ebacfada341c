package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseConfig(t *testing.T) {
	const kernels = "BOOT_IMAGE=/vmlinuz console=ttyS0 tsc=reliable "
	tests := []struct {
		name, cmdline string
		argv          []string
		terminal      bool
		hostname      string
	}{
		{"nothing of ours", kernels, []string{"/bin/sh"}, true, "coalesce"},
		{"empty", "", []string{"/bin/sh"}, true, "coalesce"},
		{"shell", kernels + "coalesce.run=shell\n", []string{"/bin/sh"}, true, "coalesce"},
		{"poweroff", "coalesce.run=poweroff quiet", nil, false, "coalesce"},
		{"check", "coalesce.run=check", []string{"/bin/check"}, false, "coalesce"},
		{"check with arguments", `coalesce.run=check coalesce.check="--json,--cpus=0\,1,--expect-distance=10 20;20 10" quiet`,
			[]string{"/bin/check", "--json", "--cpus=0,1", "--expect-distance=10 20;20 10"}, false, "coalesce"},
		{"whole parameter quoted", `"coalesce.check=a b" coalesce.run=check`, []string{"/bin/check", "a b"}, false, "coalesce"},
		{"arguments of a check not run", "coalesce.check=--json", []string{"/bin/sh"}, true, "coalesce"},
		{"exec", "coalesce.run=exec:/bin/check", []string{"/bin/check"}, false, "coalesce"},
		{"exec with arguments", "coalesce.run=exec:/bin/ls,-l,,/dev", []string{"/bin/ls", "-l", "", "/dev"}, false, "coalesce"},
		{"last one counts", "coalesce.run=check coalesce.run=poweroff", nil, false, "coalesce"},
		{"hostname", "coalesce.run=poweroff coalesce.hostname=far", nil, false, "far"},
		{"quote left open", `coalesce.run=check coalesce.check="a b`, []string{"/bin/check", "a b"}, false, "coalesce"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseConfig(tt.cmdline)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.argv, tt.argv) || got.terminal != tt.terminal || got.hostname != tt.hostname {
				t.Errorf("got %q terminal %v hostname %q, want %q terminal %v hostname %q",
					got.argv, got.terminal, got.hostname, tt.argv, tt.terminal, tt.hostname)
			}
		})
	}
}

func TestParseConfigErrors(t *testing.T) {
	tests := []struct{ cmdline, want string }{
		{"coalesce.run=dance", "coalesce.run=dance"},
		{"coalesce.run", "known are"},
		{"coalesce.run=exec:", "absolute path"},
		{"coalesce.run=exec:ls", "absolute path"},
		{"coalesce.runs=check", "unknown parameter coalesce.runs"},
		{"coalesce.hostname=", "1 to 64"},
		{"coalesce.hostname=" + strings.Repeat("n", 65), "1 to 64"},
	}
	for _, tt := range tests {
		if _, err := parseConfig(tt.cmdline); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want one with %q", tt.cmdline, err, tt.want)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	tests := []struct {
		list string
		want []string
	}{
		{"", nil},
		{"a", []string{"a"}},
		{"a,b", []string{"a", "b"}},
		{"a,", []string{"a", ""}},
		{`a\,b`, []string{"a,b"}},
		{`a\\,b`, []string{`a\`, "b"}},
		{`a\b`, []string{`a\b`}},
		{`a\`, []string{`a\`}},
	}
	for _, tt := range tests {
		if got := splitArgs(tt.list); !slices.Equal(got, tt.want) {
			t.Errorf("splitArgs(%q) = %q, want %q", tt.list, got, tt.want)
		}
	}
}

func TestParseModules(t *testing.T) {
	got, err := parseModules("# in load order\nvirtio_mmio.ko\n\nkvm.ko eptad=0 nested=1\r\n")
	want := []module{{"virtio_mmio.ko", ""}, {"kvm.ko", "eptad=0 nested=1"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if _, err := parseModules("../x.ko"); err == nil {
		t.Error("a path was taken as a file name")
	}
}

func TestSeconds(t *testing.T) {
	for ns, want := range map[int64]string{0: "0.000000", 1_234_567_890: "1.234567", 61_000_001_000: "61.000001"} {
		if got := seconds(time.Duration(ns)); got != want {
			t.Errorf("%d ns: %s, want %s", ns, got, want)
		}
	}
}

// FuzzParseConfig checks that no command line, whatever is in it, does more than fail, and that a configuration that
// is accepted can be run.
func FuzzParseConfig(f *testing.F) {
	f.Add(`console=ttyS0 coalesce.run=check coalesce.check="--expect-nodes=0:0;1:1"`)
	f.Add(`coalesce.run=exec:/bin/ls,\,,\\ "`)
	f.Fuzz(func(t *testing.T, cmdline string) {
		cfg, err := parseConfig(cmdline)
		if err != nil {
			return
		}
		if len(cfg.argv) > 0 && !strings.HasPrefix(cfg.argv[0], "/") {
			t.Errorf("%q: would run %q", cmdline, cfg.argv)
		}
	})
}
