package initramfs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/u-root/gobusybox/src/pkg/bb"
	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/uio/ulog"
)

// userland are the commands of u-root that the full kind has. Those that need more modules than this project has
// anyway (dd, ping, insmod) are left out, as is what init or the check does (lscpu: `check topology`).
var userland = []string{
	"cat", "chmod", "cp", "date", "df", "dmesg", "du", "echo", "false", "find", "free", shell, "grep", "head", "hexdump",
	"hostname", "id", "ip", "kill", "ln", "ls", "lsmod", "mkdir", "mknod", "mount", "mv", "printenv", "ps", "pwd", "rm",
	"seq", "shutdown", "sleep", "sort", "stty", "sync", "tail", "tee", "time", "touch", "tr", "true", "umount", "uname",
	"uptime", "wc",
}

const (
	shell          = "gosh"
	userlandModule = "github.com/u-root/u-root/cmds/core/"
	// userlandTags builds the shell without its line editor, which would bring thirty modules with it.
	userlandTags = "goshsmall"
)

// alias is a file of the userland's main package that makes sh another name of the shell. A symbolic link would not do:
// the program follows links only where it is called by its path, and a shell calls its commands by their names.
const alias = `package main

import "bb.u-root.com/bb/pkg/bbmain"

func init() {
	bbmain.Register("sh", bbmain.Noop, func() { _ = bbmain.Run("` + shell + `") })
}
`

// linkFlags leave out what is of no use in the guest or would differ from build to build.
const linkFlags = "-s -w -buildid="

// tools is the Go toolchain and the source tree it runs in.
type tools struct {
	goroot  string
	version string // of Go
	root    string // of this module's sources
}

// findTools asks the go command.
func findTools(ctx context.Context) (tools, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOROOT", "GOVERSION", "GOMOD").Output()
	if err != nil {
		return tools{}, fmt.Errorf("building the initramfs needs the go command: %w", err)
	}
	var env struct{ GOROOT, GOVERSION, GOMOD string }
	if err := json.Unmarshal(out, &env); err != nil {
		return tools{}, fmt.Errorf("building the initramfs: reading go env: %w", err)
	}
	root := filepath.Dir(env.GOMOD)
	if _, err := os.Stat(filepath.Join(root, initDir)); err != nil {
		return tools{}, fmt.Errorf("building the initramfs: run it inside the project's source tree: %w", err)
	}
	return tools{goroot: env.GOROOT, version: env.GOVERSION, root: root}, nil
}

const initDir = "guest/init"

func (t tools) buildInit(ctx context.Context, path string) error {
	return t.goBuild(ctx, t.root, path, "./"+initDir, nil)
}

// buildUserland generates the source of one program out of the commands and builds that.
func (t tools) buildUserland(ctx context.Context, path string) error {
	gopath, err := os.MkdirTemp("", "coalesce-userland-")
	if err != nil {
		return fmt.Errorf("building the userland: %w", err)
	}
	defer os.RemoveAll(gopath)
	env := golang.Default(golang.DisableCGO(), golang.WithGOROOT(t.goroot), golang.WithGOOS("linux"),
		golang.WithGOARCH("amd64"), golang.WithBuildTag(userlandTags), golang.WithWorkingDir(t.root))
	commands := make([]string, len(userland))
	for i, c := range userland {
		commands[i] = userlandModule + c
	}
	err = bb.BuildBusybox(ulog.Null, &bb.Opts{
		Env:          env,
		GenSrcDir:    gopath,
		CommandPaths: commands,
		BinaryPath:   path,
		// Its own way of compiling builds all packages anew, the standard library too.
		GenerateOnly: true,
	})
	if err != nil {
		return fmt.Errorf("building the userland: %w", err)
	}
	dir := filepath.Join(gopath, "src/bb.u-root.com/bb")
	if err := os.WriteFile(filepath.Join(dir, "alias.go"), []byte(alias), 0o644); err != nil {
		return fmt.Errorf("building the userland: %w", err)
	}
	return t.goBuild(ctx, dir, path, ".", []string{"GO111MODULE=off", "GOPATH=" + gopath})
}

// goBuild builds a package for the guest.
func (t tools) goBuild(ctx context.Context, dir, path, pkg string, env []string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-tags", userlandTags,
		"-ldflags", linkFlags, "-o", path, pkg)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOFLAGS="), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w\n%s", pkg, err, bytes.TrimSpace(out))
	}
	return nil
}
