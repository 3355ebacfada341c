// Package initramfs builds the guest's first root file system: an uncompressed cpio archive that the kernel unpacks
// into memory when it boots.
//
// There are two kinds. The full one has u-root's shell and small commands in one binary. The tiny one has only our init
// and the coherence check: the archive is copied into the guest's memory and unpacked by the guest's kernel, which takes
// seconds in an emulated machine, and for that reason neither is compressed.
//
//	/init               the first process (guest/init)
//	/bin/check          the coherence check (guest/check)
//	/bin/bb, /bin/sh …  u-root's commands; not in the tiny kind
//	/lib/modules/list   the kernel modules that init loads, in that order, and
//	/lib/modules/*.ko   the modules
//	/dev/console, /dev/null
//
// The same sources and tools make the same bytes, and nothing is built when they have not changed.
package initramfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"
)

// Options says what goes into the archive.
type Options struct {
	// Tiny leaves the shell and the commands out.
	Tiny bool
	// ModuleDir is a folder with kernel modules, decompressed, as scripts/kernel makes it. Empty: no modules.
	ModuleDir string
	// Modules are the names of those to load, without ".ko"; what they depend on comes along. Nil with a ModuleDir:
	// [DefaultModules].
	Modules []string
}

// DefaultModules are what a guest's devices need and Debian's kernel does not have built in.
var DefaultModules = []string{"virtio_mmio", "pvpanic-mmio"}

// Archive describes an archive that [Build] made or found up to date.
type Archive struct {
	Path  string
	Size  int64 // bytes
	Built bool  // false: it was up to date
}

// Build makes the archive at path, unless one from the same inputs is there. It must be called from inside this
// module's source tree, with the Go and C toolchains at hand; the network is not needed once the modules of go.mod are
// downloaded. Concurrent calls are safe: each makes a file of its own and renames it.
func Build(ctx context.Context, path string, opts Options) (Archive, error) {
	tools, err := findTools(ctx)
	if err != nil {
		return Archive{}, err
	}
	modules, err := resolveModules(opts)
	if err != nil {
		return Archive{}, err
	}
	inputs, err := digestInputs(ctx, tools, opts, modules)
	if err != nil {
		return Archive{}, err
	}
	if size, ok := upToDate(path, inputs); ok {
		return Archive{Path: path, Size: size}, nil
	}
	records, err := contents(ctx, tools, opts, modules)
	if err != nil {
		return Archive{}, err
	}
	size, err := write(path, records)
	if err != nil {
		return Archive{}, err
	}
	if err := stamp(path, inputs); err != nil {
		return Archive{}, err
	}
	return Archive{Path: path, Size: size, Built: true}, nil
}

// write writes the records to path as a whole or not at all and returns the file's size.
func write(path string, records []cpio.Record) (size int64, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the initramfs %s: %w", path, err)
		}
	}()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return 0, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name()) // fails once it is renamed
	defer f.Close()
	w := cpio.Newc.Writer(f)
	if err := cpio.WriteRecords(w, records); err != nil {
		return 0, err
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return 0, err
	}
	if size, err = f.Seek(0, io.SeekCurrent); err != nil {
		return 0, err
	}
	if err := f.Chmod(0o644); err != nil {
		return 0, err
	}
	if err := f.Close(); err != nil {
		return 0, err
	}
	return size, os.Rename(f.Name(), path)
}
