package main

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"coalesce/scripts/testbedctl/agent"
	"coalesce/scripts/testbedctl/wire"
)

// initrd is an initial ramdisk in the making. It lives in memory only, so that nothing is left behind.
type initrd struct {
	file *os.File // memfd
	out  cpio.RecordWriter
	dirs map[string]bool // written so far
	libs map[string]bool // shared libraries written so far
}

// newInitrd returns an empty one; close it with file.Close.
func newInitrd() (*initrd, error) {
	f, err := memoryFile("initrd", nil)
	if err != nil {
		return nil, err
	}
	return &initrd{file: f, out: cpio.Newc.Writer(f), dirs: map[string]bool{".": true}, libs: map[string]bool{}}, nil
}

// name turns a path in the emulated host into a record's name.
func name(dst string) string { return strings.TrimPrefix(path.Clean("/"+dst), "/") }

// parents adds the folders above a record.
func (i *initrd) parents(name string) error {
	dir := path.Dir(name)
	if i.dirs[dir] {
		return nil
	}
	return i.dir(dir, 0o755)
}

func (i *initrd) dir(name string, perm uint64) error {
	if name == "" || name == "." || i.dirs[name] {
		return nil
	}
	if err := i.parents(name); err != nil {
		return err
	}
	i.dirs[name] = true
	return i.out.WriteRecord(cpio.Directory(name, perm))
}

// bytes adds a file with that content.
func (i *initrd) bytes(dst string, content []byte, perm uint64) error {
	if err := i.parents(name(dst)); err != nil {
		return err
	}
	return i.out.WriteRecord(cpio.StaticFile(name(dst), string(content), perm))
}

// symlink adds a link.
func (i *initrd) symlink(dst, target string) error {
	if err := i.parents(name(dst)); err != nil {
		return err
	}
	return i.out.WriteRecord(cpio.Symlink(name(dst), target))
}

// copyFile adds a file of this machine; a link is followed.
func (i *initrd) copyFile(src, dst string) error {
	info, err := os.Stat(src)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a plain file", src)
	}
	content, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	return i.bytes(dst, content, uint64(info.Mode().Perm()))
}

// copyTree adds a folder of this machine with all in it; links in it stay links, other special files are left out.
func (i *initrd) copyTree(src, dst string) error {
	root, err := filepath.EvalSymlinks(src)
	if err != nil {
		return err
	}
	if info, err := os.Stat(root); err != nil {
		return err
	} else if !info.IsDir() {
		return fmt.Errorf("%s is not a folder", src)
	}
	return filepath.WalkDir(root, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		to := path.Join(dst, filepath.ToSlash(rel))
		switch entry.Type() {
		case fs.ModeDir:
			return i.dir(name(to), 0o755)
		case fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return i.symlink(to, target)
		case 0:
			return i.copyFile(p, to)
		}
		return nil
	})
}

// libraryPath is where Debian's dynamic linker looks.
var libraryPath = []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib", "/lib64"}

// copyProgram adds a program and the shared libraries it needs, each where the dynamic linker will look for it.
func (i *initrd) copyProgram(src, dst string) error {
	if err := i.copyFile(src, dst); err != nil {
		return err
	}
	return i.copyLibraries(src)
}

func (i *initrd) copyLibraries(src string) error {
	f, err := elf.Open(src)
	var notELF *elf.FormatError
	if errors.As(err, &notELF) {
		return nil // a script
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if section := f.Section(".interp"); section != nil {
		b, err := section.Data()
		if err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		if loader := string(bytes.TrimRight(b, "\x00")); !i.libs[loader] {
			i.libs[loader] = true
			if err := i.copyFile(loader, loader); err != nil {
				return err
			}
		}
	}
	needed, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", src, err)
	}
	for _, lib := range needed {
		if i.libs[lib] {
			continue
		}
		i.libs[lib] = true
		found, err := findLibrary(lib)
		if err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		if err := i.copyProgram(found, found); err != nil {
			return err
		}
	}
	return nil
}

func findLibrary(lib string) (string, error) {
	for _, dir := range libraryPath {
		if p := path.Join(dir, lib); isFile(p) {
			return p, nil
		}
	}
	return "", fmt.Errorf("its library %s is not installed", lib)
}

func isFile(p string) bool {
	info, err := os.Stat(p)
	return err == nil && info.Mode().IsRegular()
}

// moduleFile turns a module's name into its file's: kvm_amd and kvm-amd are both kvm-amd.ko, sch_netem is sch_netem.ko.
// Names have '_' where files may have either.
func moduleFile(module string) string {
	module = strings.TrimSuffix(module, ".ko")
	if strings.HasPrefix(module, "kvm_") {
		module = "kvm-" + strings.TrimPrefix(module, "kvm_")
	}
	return module + ".ko"
}

// loadOrder returns the modules' files with all they need, in an order in which they can be loaded, as kernelDir's
// modules.order and modules.dep have it.
func loadOrder(kernelDir string, modules []string) ([]string, error) {
	dep, err := os.ReadFile(filepath.Join(kernelDir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(dep)) {
		file, rest, _ := strings.Cut(line, ":")
		needs[file] = strings.Fields(rest)
	}
	var order []string
	seen := map[string]bool{}
	for _, m := range modules {
		deps, ok := needs[moduleFile(m)]
		if !ok {
			return nil, fmt.Errorf("%s has no module %s", kernelDir, m)
		}
		for _, file := range append(deps, moduleFile(m)) {
			if !seen[file] {
				seen[file] = true
				order = append(order, file)
			}
		}
	}
	return order, nil
}

// ownPrograms are this machine's own, from packages that every Debian has, and iproute2. Debian's busybox prefers its
// applets to what is on PATH, and its ip knows no namespaces: so its shell, and its applets that run other programs, are
// not used.
var ownPrograms = []string{
	"ip", "tc",
	"bash", "dash",
	"chroot", "env", "nice", "nohup", "stdbuf", "timeout",
	"chrt", "flock", "ionice", "nsenter", "prlimit", "setsid", "taskset", "unshare",
	"find", "xargs",
	"start-stop-daemon",
}

// base adds what every run has: the agent, the modules, shells and tools.
func (i *initrd) base(build string, plan wire.Plan) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, d := range []string{"root", "etc", "var/tmp", "dev", "proc", "sys", "tmp", "run", "usr/bin", "usr/sbin"} {
		if err := i.dir(d, 0o755); err != nil {
			return err
		}
	}
	if err := i.copyFile(self, "/init"); err != nil {
		return err
	}
	for _, m := range plan.Modules {
		if err := i.copyFile(filepath.Join(build, "kernel/modules", m), "/modules/"+m); err != nil {
			return err
		}
	}
	if err := i.copyFile(filepath.Join(build, "busybox"), "/bin/busybox"); err != nil {
		return err
	}
	full := map[string]bool{"busybox": true, "init": true}
	for _, p := range ownPrograms {
		found, err := exec.LookPath(p)
		if err != nil {
			return fmt.Errorf("%w: run scripts/setup", err)
		}
		full[p] = true
		if err := i.copyProgram(found, "/bin/"+p); err != nil {
			return err
		}
	}
	full["sh"] = true
	if err := i.symlink("/bin/sh", "dash"); err != nil {
		return err
	}
	applets, err := exec.Command(filepath.Join(build, "busybox"), "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		if full[applet] {
			continue
		}
		if err := i.symlink("/bin/"+applet, "busybox"); err != nil {
			return err
		}
	}
	for file, content := range map[string]string{
		"/etc/passwd":   "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
		"/etc/group":    "root:x:0:\nnogroup:x:65534:\n",
		"/etc/hosts":    "127.0.0.1 localhost testbed\n::1 localhost\n",
		"/etc/hostname": "testbed\n",
		"/etc/profile":  "PS1='testbed:\\w# '\n",
	} {
		if err := i.bytes(file, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// finish adds the plan and ends the archive.
func (i *initrd) finish(plan wire.Plan) error {
	b, err := json.Marshal(plan)
	if err != nil {
		return err
	}
	if err := i.bytes(agent.PlanFile, b, 0o600); err != nil {
		return err
	}
	return cpio.WriteTrailer(i.out)
}
