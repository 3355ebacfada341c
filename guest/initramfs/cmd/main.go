// Cmd builds the guest's initramfs. Run it inside the source tree:
//
//	go run ./guest/initramfs/cmd -o build/guest.cpio [--tiny] [--kernel-modules DIR [--modules NAME,...]]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"coalesce/guest/initramfs"
)

func main() {
	out := flag.String("o", "build/guest.cpio", "the archive to make, in `FILE`")
	tiny := flag.Bool("tiny", false, "only init and the coherence check: no shell, no commands")
	moduleDir := flag.String("kernel-modules", "", "take kernel modules from `DIR`, where scripts/kernel puts them")
	modules := flag.String("modules", strings.Join(initramfs.DefaultModules, ","),
		"`NAMES` of the modules to load, in this order; what they depend on comes along")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "initramfs: unknown argument %q\n", flag.Arg(0))
		flag.Usage()
		os.Exit(2)
	}
	opts := initramfs.Options{Tiny: *tiny, ModuleDir: *moduleDir}
	if *moduleDir != "" {
		opts.Modules = strings.FieldsFunc(*modules, func(r rune) bool { return r == ',' || r == ' ' })
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	start := time.Now()
	archive, err := initramfs.Build(ctx, *out, opts)
	if err != nil {
		fmt.Fprintf(os.Stderr, "initramfs: %v\n", err)
		os.Exit(1)
	}
	state := "up to date"
	if archive.Built {
		state = fmt.Sprintf("built in %.1f s", time.Since(start).Seconds())
	}
	fmt.Printf("%s: %.1f MB, %s\n", archive.Path, float64(archive.Size)/1e6, state)
}
