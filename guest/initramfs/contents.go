package initramfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"coalesce/guest/check"

	"github.com/u-root/u-root/pkg/cpio"
)

// directories of the archive; init mounts on some of them.
var directories = []string{"bin", "dev", "etc", "lib", "lib/modules", "proc", "root", "run", "sys", "tmp"}

// contents builds the programs and returns all records in the archive's order.
func contents(ctx context.Context, t tools, opts Options, modules []module) ([]cpio.Record, error) {
	dir, err := os.MkdirTemp("", "coalesce-initramfs-")
	if err != nil {
		return nil, fmt.Errorf("building the initramfs: %w", err)
	}
	defer os.RemoveAll(dir)

	var records []cpio.Record
	for _, name := range directories {
		records = append(records, cpio.Directory(name, 0o755))
	}
	// The kernel opens the console for the first process before anything is mounted.
	records = append(records, cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3))

	program := func(name string, build func(path string) error) error {
		path := filepath.Join(dir, filepath.Base(name))
		if err := build(path); err != nil {
			return err
		}
		return addFile(&records, name, path, 0o755)
	}
	if err := program("init", func(path string) error { return t.buildInit(ctx, path) }); err != nil {
		return nil, err
	}
	if err := program("bin/check", func(path string) error { return check.Build(ctx, path) }); err != nil {
		return nil, err
	}
	if !opts.Tiny {
		if err := program("bin/bb", func(path string) error { return t.buildUserland(ctx, path) }); err != nil {
			return nil, err
		}
		for _, command := range append([]string{"sh"}, userland...) {
			records = append(records, cpio.Symlink("bin/"+command, "bb"))
		}
	}
	if len(modules) > 0 {
		var list strings.Builder
		for _, m := range modules {
			fmt.Fprintln(&list, m.file)
			if err := addFile(&records, "lib/modules/"+m.file, m.path, 0o644); err != nil {
				return nil, err
			}
		}
		records = append(records, cpio.StaticFile("lib/modules/list", list.String(), 0o644))
	}

	// Sorted, a folder comes before what is in it, as the kernel needs it.
	slices.SortFunc(records, func(a, b cpio.Record) int { return strings.Compare(a.Name, b.Name) })
	for i := range records {
		records[i].Ino, records[i].NLink = uint64(i+1), 1
	}
	return records, nil
}

// addFile adds the file at path, whole, under a name.
func addFile(records *[]cpio.Record, name, path string, perm uint64) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("building the initramfs: %w", err)
	}
	*records = append(*records, cpio.StaticFile(name, string(data), perm))
	return nil
}
