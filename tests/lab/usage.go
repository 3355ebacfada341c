package lab

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Usage is what a process holds at one moment.
type Usage struct {
	Threads int
	// Files are what its descriptors stand for, sorted, without what tells one of a kind from another:
	// "anon_inode:kvm-vcpu", "/memfd:coalesce-guest", "socket".
	Files []string
	// Mappings are all that /proc/PID/smaps lists.
	Mappings []Mapping
}

// Mapping is a range of a process's memory.
type Mapping struct {
	Name      string // "/memfd:coalesce-guest (deleted)"; "" for anonymous memory
	Size      uint64 // bytes, like all below
	Rss       uint64
	Inode     uint64 // of the file; 0 for anonymous memory
	Userfault bool   // registered with userfaultfd, in any mode
}

// memfdPrefix starts the name of a mapping of memory that belongs to a memfd.
const memfdPrefix = "/memfd:"

// Resident is all memory in mappings for which keep holds, in bytes.
func (u *Usage) Resident(keep func(m *Mapping) bool) (sum uint64) {
	for i := range u.Mappings {
		if keep(&u.Mappings[i]) {
			sum += u.Mappings[i].Rss
		}
	}
	return sum
}

// Memfd tells whether the mapping is of a memfd: a guest's memory.
func (m *Mapping) Memfd() bool { return strings.HasPrefix(m.Name, memfdPrefix) }

// Count returns how many descriptors stand for what.
func (u *Usage) Count(what string) (n int) {
	for _, f := range u.Files {
		if f == what {
			n++
		}
	}
	return n
}

// Usage looks at what the process holds now. It fails if the process has ended.
func (p *Process) Usage() (u Usage, err error) {
	dir := fmt.Sprintf("/proc/%d", p.Pid)
	if u.Threads, err = threads(dir); err == nil {
		u.Files, err = files(dir)
	}
	if err == nil {
		u.Mappings, err = mappings(dir)
	}
	if err != nil {
		return u, fmt.Errorf("look at %s (process %d): %w", p.Command.Name, p.Pid, err)
	}
	return u, nil
}

func threads(dir string) (int, error) {
	entries, err := os.ReadDir(dir + "/task")
	return len(entries), err
}

// instance is what tells descriptors of one kind apart.
var instance = regexp.MustCompile(`:\[\d+\]$| \(deleted\)$`)

func files(dir string) ([]string, error) {
	links, err := filepath.Glob(dir + "/fd/*")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		found = append(found, instance.ReplaceAllString(to, ""))
	}
	slices.Sort(found)
	return found, nil
}

// mappings reads smaps: a line "ADDRESS-ADDRESS PERM OFFSET DEV INODE NAME" for each mapping, then lines "KEY: VALUE".
func mappings(dir string) ([]Mapping, error) {
	f, err := os.Open(dir + "/smaps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 {
			continue
		}
		key, isKey := strings.CutSuffix(fields[0], ":")
		if !isKey {
			inode, name, err := fileOf(lines.Text())
			if err != nil {
				return nil, err
			}
			all = append(all, Mapping{Name: name, Inode: inode})
			continue
		}
		if len(all) == 0 {
			continue
		}
		m := &all[len(all)-1]
		switch key {
		case "Size", "Rss":
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return nil, fmt.Errorf("smaps: %q: %w", lines.Text(), err)
			}
			if key == "Size" {
				m.Size = kib << 10
			} else {
				m.Rss = kib << 10
			}
		case "VmFlags":
			// proc(5): um, uw and ui stand for userfaultfd's missing, write-protect and minor modes.
			m.Userfault = slices.ContainsFunc(fields[1:], func(f string) bool { return f == "um" || f == "uw" || f == "ui" })
		}
	}
	return all, lines.Err()
}

// fileOf reads the inode, the fifth field of a mapping's line, and the name, which is all after it.
func fileOf(line string) (inode uint64, name string, err error) {
	rest, field := line, ""
	for range 5 {
		field, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
	}
	if inode, err = strconv.ParseUint(field, 10, 64); err != nil {
		return 0, "", fmt.Errorf("smaps: %q: %w", line, err)
	}
	return inode, strings.TrimSpace(rest), nil
}

// Memfds returns the inodes of the memfds in the process's memory.
func (u *Usage) Memfds() (inodes []uint64) {
	for _, m := range u.Mappings {
		if m.Memfd() && !slices.Contains(inodes, m.Inode) {
			inodes = append(inodes, m.Inode)
		}
	}
	return inodes
}

// Namespace is the process's network namespace, as /proc names it: "net:[4026532000]".
func (p *Process) Namespace() (string, error) {
	return os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
}
