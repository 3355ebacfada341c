// Package check holds the coherence check, a C program that runs inside the guest, and builds it.
//
// The program's sources are in src; src/check.h says what it is and why it is C. It prints a row for people for each
// of its tests and, with --json, an object a line, which [ParseResult] reads.
package check

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed src/*.c src/*.h
var sources embed.FS

// compiler and its flags: static, so that it runs in an initramfs without libraries; neither build id nor symbols, so
// that the same sources make the same bytes.
const compiler = "gcc"

var flags = []string{"-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-no-pie", "-pthread", "-s", "-Wl,--build-id=none"}

// Sources returns the program's source files.
func Sources() fs.FS {
	src, err := fs.Sub(sources, "src")
	if err != nil {
		panic(err) // only for a malformed name
	}
	return src
}

// Toolchain describes what [Build] builds with: the compiler's version and the flags. With [Sources] it determines
// the program built.
func Toolchain(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, compiler, "--version").Output()
	if err != nil {
		return "", noCompiler(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first + " " + strings.Join(flags, " "), nil
}

// Build compiles the program to the file path.
func Build(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("building the coherence check: %w", err)
	}
	return compile(ctx, append([]string{"-o", path}, flags...)...)
}

// compile runs the compiler with args on all the sources.
func compile(ctx context.Context, args ...string) error {
	dir, err := os.MkdirTemp("", "coalesce-check-")
	if err != nil {
		return fmt.Errorf("building the coherence check: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(dir, Sources()); err != nil {
		return fmt.Errorf("building the coherence check: unpacking its sources: %w", err)
	}
	files, err := fs.Glob(Sources(), "*.c")
	if err != nil {
		return fmt.Errorf("building the coherence check: %w", err)
	}
	cmd := exec.CommandContext(ctx, compiler, append(args, files...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
		return noCompiler(err)
	}
	return fmt.Errorf("building the coherence check: %w\n%s", err, bytes.TrimSpace(out))
}

func noCompiler(err error) error {
	return fmt.Errorf("building the coherence check needs %s and the static C library (Debian: gcc libc6-dev): %w", compiler, err)
}

// The values of [Result.Verdict].
const (
	OK      = "ok"
	Failed  = "fail"
	Skipped = "skip" // needs more CPUs than there are
	Hung    = "hang" // the program ended there
)

// Result is what one test found.
type Result struct {
	Test    string  `json:"test"`
	Verdict string  `json:"result"`
	Seconds float64 `json:"seconds"`
	Rounds  uint64  `json:"rounds"`
	Detail  string  `json:"detail"`
	Error   string  `json:"error"` // why it failed, "" otherwise
	// Metrics are the numbers of this kind of test; their names say the unit.
	Metrics map[string]float64 `json:"-"`
}

// ParseResult reads a line of the program's output; ok is false for one that is no test's JSON object.
func ParseResult(line string) (r Result, ok bool) {
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, `{"test":`) || json.Unmarshal([]byte(line), &r) != nil {
		return Result{}, false
	}
	var all map[string]any
	if json.Unmarshal([]byte(line), &all) != nil {
		return Result{}, false
	}
	for _, own := range []string{"test", "result", "seconds", "rounds", "detail", "error"} {
		delete(all, own)
	}
	r.Metrics = make(map[string]float64)
	for name, value := range all {
		if v, isNumber := value.(float64); isNumber {
			r.Metrics[name] = v
		}
	}
	return r, true
}
