package main

import (
	"errors"

	"golang.org/x/sys/unix"
)

// failed is an error that says what was being done.
func failed(doing string, err error) error { return errors.New(doing + ": " + err.Error()) }

// readFile returns the contents of a file whose size need not be known beforehand, as with those of procfs.
func readFile(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("opening "+path, err)
	}
	defer unix.Close(fd)
	data := make([]byte, 0, 4096)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := unix.Read(fd, data[len(data):cap(data)])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, failed("reading "+path, err)
		case n == 0:
			return data, nil
		default:
			data = data[:len(data)+n]
		}
	}
}

// writeFile writes text to a file that exists, as those of sysfs.
func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("opening "+path, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return failed("writing "+path, err)
	}
	return nil
}
