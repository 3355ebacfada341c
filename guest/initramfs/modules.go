package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// module is a kernel module: a file and where it lies.
type module struct{ file, path string }

// errNoModule is the error for a module that the folder does not have.
var errNoModule = errors.New("no such kernel module")

// resolveModules returns the modules to load, each behind those it depends on.
func resolveModules(opts Options) ([]module, error) {
	if opts.ModuleDir == "" {
		if len(opts.Modules) > 0 {
			return nil, errors.New("kernel modules are named, but no folder to take them from")
		}
		return nil, nil
	}
	names := opts.Modules
	if names == nil {
		names = DefaultModules
	}
	entries, err := os.ReadDir(opts.ModuleDir)
	if err != nil {
		return nil, fmt.Errorf("looking for kernel modules (scripts/kernel fetches them): %w", err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		if name, isModule := strings.CutSuffix(e.Name(), ".ko"); isModule {
			files[canonical(name)] = e.Name()
		}
	}
	var order []module
	seen := make(map[string]bool) // also breaks a circle, which a kernel would not have
	var add func(name string) error
	add = func(name string) error {
		key := canonical(name)
		if seen[key] {
			return nil
		}
		seen[key] = true
		file, ok := files[key]
		if !ok {
			return fmt.Errorf("%w: %s is not in %s", errNoModule, name, opts.ModuleDir)
		}
		m := module{file, filepath.Join(opts.ModuleDir, file)}
		needs, err := dependencies(m.path)
		if err != nil {
			return err
		}
		for _, n := range needs {
			if err := add(n); err != nil {
				return fmt.Errorf("module %s: %w", name, err)
			}
		}
		order = append(order, m)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// canonical is a module's name as the kernel has it: a file's name may have '-' for '_'.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// dependencies returns the names in the field "depends" of a module's section .modinfo, which holds KEY=VALUE strings
// that end in a zero byte.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading kernel module %s (a compressed one?): %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("reading kernel module %s: it has no .modinfo", path)
	}
	info, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("reading kernel module %s: %w", path, err)
	}
	for field := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			return strings.Split(list, ","), nil
		}
	}
	return nil, nil
}
