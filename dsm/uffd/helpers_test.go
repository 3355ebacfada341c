package uffd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
)

// needUffd skips a test for exactly one reason: this machine cannot do it.
func needUffd(t testing.TB) {
	t.Helper()
	if _, err := uffd.Probe(); errors.Is(err, uffd.ErrNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
}

func newMemory(t testing.TB, pages int, opts uffd.MemoryOptions) *uffd.Memory {
	t.Helper()
	m, err := uffd.NewMemory("uffd-test", []uffd.Window{{Size: uint64(pages) * uffd.PageSize}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// newRegistered returns memory of so many pages, all registered.
func newRegistered(t testing.TB, pages int) (*uffd.Memory, *uffd.Uffd) {
	t.Helper()
	needUffd(t)
	m := newMemory(t, pages, uffd.MemoryOptions{})
	u := open(t, m)
	check(t, u.Register(0, pages))
	return m, u
}

func open(t testing.TB, m *uffd.Memory) *uffd.Uffd {
	t.Helper()
	u, err := uffd.Open(m, uffd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, got, want error) {
	t.Helper()
	if got != want {
		t.Fatalf("got error %v, want %v", got, want)
	}
}

// install fills page through the alias and maps it.
func install(t testing.TB, m *uffd.Memory, u *uffd.Uffd, page uint32, wp bool) {
	t.Helper()
	check(t, m.PopulateAlias(page, 1))
	if n, err := u.Continue(page, 1, wp); n != 1 || err != nil {
		t.Fatalf("continue page %d: %d, %v", page, n, err)
	}
}

// touch starts an access of page by another thread.
func touch(m *uffd.Memory, page uint32, write bool) <-chan error {
	done := make(chan error, 1)
	addr := m.HVA(page)
	go func() { done <- uffdtest.Touch(addr, write) }()
	return done
}

// nextFault reads one message.
func nextFault(t testing.TB, u *uffd.Uffd) uffd.Fault {
	t.Helper()
	var f [1]uffd.Fault
	n, err := u.Read(f[:])
	if n != 1 || err != nil {
		t.Fatalf("read: %d, %v", n, err)
	}
	return f[0]
}

// noFault fails the test if a message is there.
func noFault(t testing.TB, u *uffd.Uffd) {
	t.Helper()
	check(t, u.Interrupt())
	var f [1]uffd.Fault
	n, err := u.Read(f[:])
	if n != 0 || err != uffd.ErrInterrupted {
		t.Fatalf("read: %d %+v, %v; want none", n, f, err)
	}
}

// stillWaits fails the test if the thread of fault f was woken: a wake-up makes a
// thread runnable before the call that woke it returns.
func stillWaits(t testing.TB, f uffd.Fault) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/stat", f.TID))
	check(t, err)
	_, rest, _ := strings.Cut(string(b), ") ")
	if state := rest[0]; state != 'D' && state != 'S' {
		t.Fatalf("thread %d is in state %c, not waiting", f.TID, state)
	}
}

// pte is what the guest view's page table says of a page.
type pte struct {
	mapped bool
	wp     bool // userfaultfd write protection, also as a marker where nothing is mapped
}

func pteOf(t testing.TB, m *uffd.Memory, page uint32) pte {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	check(t, err)
	defer f.Close()
	var b [8]byte
	_, err = f.ReadAt(b[:], int64(m.HVA(page)/uffd.PageSize*8))
	check(t, err)
	e := binary.LittleEndian.Uint64(b[:])
	return pte{mapped: e>>63 != 0, wp: e>>57&1 != 0}
}

func wantPTE(t testing.TB, m *uffd.Memory, page uint32, want pte) {
	t.Helper()
	if got := pteOf(t, m, page); got != want {
		t.Fatalf("page %d: got %+v, want %+v", page, got, want)
	}
}

// openFiles returns how many descriptors this process has.
func openFiles(t testing.TB) int {
	t.Helper()
	// The runtime's poller keeps two descriptors from its first use on.
	r, w, err := os.Pipe()
	check(t, err)
	r.Close()
	w.Close()
	d, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(d)
}

// mappings returns how many lines of /proc/self/maps name a memfd.
func mappings(t testing.TB, name string) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/maps")
	check(t, err)
	return bytes.Count(b, []byte("memfd:"+name))
}

// waitAsleepIn returns once thread tid sleeps in system call nr.
func waitAsleepIn(t testing.TB, tid, nr int) {
	t.Helper()
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/syscall", tid))
		check(t, err)
		if strings.HasPrefix(string(b), fmt.Sprintf("%d ", nr)) {
			return
		}
		runtime.Gosched()
	}
}
