package initramfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"coalesce/guest/check"
)

// layout changes with this package's own code where that changes what comes out of the same inputs.
const layout = "1"

// digestInputs digests all that determines the archive's bytes.
func digestInputs(ctx context.Context, t tools, opts Options, modules []module) (string, error) {
	cc, err := check.Toolchain(ctx)
	if err != nil {
		return "", err
	}
	d := digest{sha256.New()}
	d.text("layout", layout)
	d.text("go", t.version)
	d.text("link flags", linkFlags)
	d.text("cc", cc)
	if err := d.tree("check", check.Sources(), func(string) bool { return true }); err != nil {
		return "", err
	}
	isProgram := func(name string) bool { return strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") }
	if err := d.tree("init", os.DirFS(filepath.Join(t.root, initDir)), isProgram); err != nil {
		return "", err
	}
	// These determine every package that is not ours.
	for _, name := range []string{"go.mod", "go.sum"} {
		data, err := os.ReadFile(filepath.Join(t.root, name))
		if err != nil {
			return "", fmt.Errorf("building the initramfs: %w", err)
		}
		d.text(name, string(data))
	}
	if !opts.Tiny {
		d.text("userland", alias+userlandTags+" "+strings.Join(userland, " "))
	}
	for _, m := range modules {
		data, err := os.ReadFile(m.path)
		if err != nil {
			return "", fmt.Errorf("reading kernel module %s: %w", m.file, err)
		}
		d.text("kernel module "+m.file, string(data))
	}
	return hex.EncodeToString(d.w.Sum(nil)), nil
}

// digest takes named texts, each with its length, so that no two lists of them are the same bytes.
type digest struct {
	w interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (d digest) text(name, text string) { fmt.Fprintf(d.w, "%s %d\n%s\n", name, len(text), text) }

// tree takes the files that want accepts, in the order of their names.
func (d digest) tree(name string, tree fs.FS, want func(path string) bool) error {
	var paths []string
	err := fs.WalkDir(tree, ".", func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && want(path) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("reading the sources of %s: %w", name, err)
	}
	slices.Sort(paths)
	for _, path := range paths {
		data, err := fs.ReadFile(tree, path)
		if err != nil {
			return fmt.Errorf("reading the sources of %s: %w", name, err)
		}
		d.text(name+" "+path, string(data))
	}
	return nil
}

// stampPath is where the digests of an archive's inputs and bytes are kept.
func stampPath(path string) string { return path + ".inputs" }

// upToDate tells whether the archive at path is whole and was made from these inputs, and its size.
func upToDate(path, inputs string) (size int64, ok bool) {
	kept, err := os.ReadFile(stampPath(path))
	if err != nil {
		return 0, false
	}
	output, size, err := digestFile(path)
	return size, err == nil && string(kept) == stampText(inputs, output)
}

// stamp keeps from which inputs the archive at path was made.
func stamp(path, inputs string) error {
	output, _, err := digestFile(path)
	if err == nil {
		err = os.WriteFile(stampPath(path), []byte(stampText(inputs, output)), 0o644)
	}
	if err != nil {
		return fmt.Errorf("keeping what the initramfs was made from: %w", err)
	}
	return nil
}

func stampText(inputs, output string) string {
	return "inputs " + inputs + "\narchive " + output + "\n"
}

func digestFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}
