package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// receiver unpacks a tar stream that comes from the emulated host into a folder, and nowhere else.
type receiver struct {
	dir  string
	pipe *io.PipeWriter
	done chan error // the unpacker's result, once
}

// newReceiver makes the folder if it is missing.
func newReceiver(dir string) (*receiver, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, usageErrorf("cannot copy to %s: %v", dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, usageErrorf("cannot copy to %s: %v", dir, err)
	}
	pr, pw := io.Pipe()
	r := &receiver{dir: dir, pipe: pw, done: make(chan error, 1)}
	go func() {
		defer root.Close()
		err := unpack(root, pr)
		if err == nil {
			_, err = io.Copy(io.Discard, pr) // the archive's padding
		}
		pr.CloseWithError(err)
		r.done <- err
	}()
	return r, nil
}

// take takes the next bytes of the stream; none: its end.
func (r *receiver) take(b []byte) error {
	if len(b) == 0 {
		return r.pipe.Close()
	}
	if _, err := r.pipe.Write(b); err != nil {
		return fmt.Errorf("copy to %s: %w", r.dir, err)
	}
	return nil
}

// close waits until everything was written. If the stream did not end, that is an error.
func (r *receiver) close() error {
	_ = r.pipe.CloseWithError(io.ErrUnexpectedEOF) // no-op after the stream's end
	if err := <-r.done; err != nil {
		return fmt.Errorf("copy to %s: %w", r.dir, err)
	}
	return nil
}

// unpack writes the archive's files and folders below root; os.Root keeps names from leading out of it.
func unpack(root *os.Root, r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		switch header.Typeflag {
		case tar.TypeDir:
			if err := root.MkdirAll(name, 0o755); err != nil {
				return err
			}
		case tar.TypeReg:
			if err := unpackFile(root, name, header.FileInfo().Mode().Perm(), archive); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
	}
}

func unpackFile(root *os.Root, name string, perm fs.FileMode, content io.Reader) (err error) {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = io.Copy(f, content)
	return err
}
