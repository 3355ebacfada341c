package main

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// module is a line of the list: a file in the list's folder and its parameters.
type module struct{ file, params string }

// loadModules loads the kernel modules that dir/list names, one a line with its parameters behind it, in that order.
// A missing list is an empty one. A module that is there already or whose device is not there is no error; one that
// does not fit the kernel is, since the initramfs was then built for another kernel.
func loadModules(dir string) error {
	if err := unix.Access(dir+"/list", unix.F_OK); err == unix.ENOENT {
		return nil
	}
	list, err := readFile(dir + "/list")
	if err != nil {
		return err
	}
	modules, err := parseModules(string(list))
	if err != nil {
		return failed(dir+"/list", err)
	}
	for _, m := range modules {
		err := loadModule(dir+"/"+m.file, m.params)
		switch err {
		case nil, unix.EEXIST:
		case unix.ENODEV:
			say("module " + m.file + ": no such device, goes on without it")
		case unix.ENOEXEC:
			return failed("loading module "+m.file, errors.New("it was not built for this kernel"))
		default:
			return failed("loading module "+m.file, err)
		}
	}
	return nil
}

// parseModules reads the list; empty lines and those that start with # do not count.
func parseModules(list string) ([]module, error) {
	var modules []module
	for line := range strings.Lines(list) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		file, params, _ := strings.Cut(line, " ")
		if strings.Contains(file, "/") {
			return nil, errors.New("not a file name: " + file)
		}
		modules = append(modules, module{file, strings.TrimSpace(params)})
	}
	return modules, nil
}

func loadModule(path, params string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FinitModule(fd, params, 0)
}
