package uffd_test

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	needUffd(t)
	s, err := uffd.Probe()
	check(t, err)
	t.Logf("features %#x, device %v", s.Features, s.Device)
	if s.Features&uffd.FeatureMinorShmem == 0 {
		t.Error("no MINOR_SHMEM, and no error")
	}
}

func TestFeatureError(t *testing.T) {
	var err error = &uffd.FeatureError{Feature: "UFFDIO_POISON", Kernel: "6.6"}
	if !errors.Is(err, uffd.ErrNotSupported) {
		t.Error("a FeatureError is not ErrNotSupported")
	}
	if errors.Is(err, os.ErrPermission) {
		t.Error("a FeatureError is ErrPermission")
	}
	if got, want := err.Error(), "userfaultfd: this kernel lacks UFFDIO_POISON, first in Linux 6.6"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFaultNamesThreadAndAccess(t *testing.T) {
	m, u := newRegistered(t, 4)
	for _, write := range []bool{false, true} {
		for p := uint32(0); p < 2; p++ { // a hole, then a page of the memfd
			page := p
			if write {
				page += 2
			}
			if p == 1 {
				m.Alias(page, 1)[0] = 1
			}
			tid := make(chan int, 1)
			done := make(chan error, 1)
			go func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				tid <- unix.Gettid()
				done <- uffdtest.Touch(m.HVA(page), write)
			}()
			f := nextFault(t, u)
			want := uffd.Fault{Page: page, Write: write, Minor: p == 1, TID: uint32(<-tid)}
			if f != want {
				t.Errorf("fault %+v, want %+v", f, want)
			}
			install(t, m, u, page, false)
			check(t, <-done)
		}
	}
}

func TestReadSeveral(t *testing.T) {
	const threads = 20
	m, u := newRegistered(t, threads)
	check(t, m.PopulateAlias(0, threads))
	var wg sync.WaitGroup
	for p := range uint32(threads) {
		wg.Go(func() {
			if err := uffdtest.Touch(m.HVA(p), true); err != nil {
				t.Error(err)
			}
		})
	}
	seen := make(map[uint32]bool)
	var buf [threads]uffd.Fault
	for len(seen) < threads {
		n, err := u.Read(buf[:])
		check(t, err)
		if n < 1 || n > 16 {
			t.Fatalf("read returned %d", n)
		}
		for _, f := range buf[:n] {
			if seen[f.Page] {
				t.Errorf("page %d reported twice", f.Page)
			}
			seen[f.Page] = true
		}
	}
	noFault(t, u)
	if n, err := u.Continue(0, threads, false); n != threads || err != nil {
		t.Errorf("continue: %d, %v", n, err)
	}
	wg.Wait()
}

func TestOutcomes(t *testing.T) {
	m, u := newRegistered(t, 4)
	check(t, u.Unregister(3, 1))
	check(t, m.PopulateAlias(0, 4))
	cont := func(page uint32, n int) error { _, err := u.Continue(page, n, false); return err }
	poison := func(page uint32, n int) error { _, err := u.Poison(page, n); return err }
	for _, tc := range []struct {
		name string
		got  error
		want error
	}{
		{"continue, unregistered", cont(3, 1), uffd.ErrUnregistered},
		{"write-protect, unregistered", u.WriteProtect(3, 1), uffd.ErrUnregistered},
		{"continue, past the end", cont(3, 2), uffd.ErrRange},
		{"continue, page out of range", cont(1<<32-1, 1), uffd.ErrRange},
		{"continue, none", cont(0, 0), uffd.ErrRange},
		{"continue, negative", cont(0, -1), uffd.ErrRange},
		{"zap", u.Zap(4, 1), uffd.ErrRange},
		{"write-protect", u.WriteProtect(0, 5), uffd.ErrRange},
		{"unprotect", u.Unprotect(5, 1), uffd.ErrRange},
		{"wake", u.Wake(5, 1), uffd.ErrRange},
		{"register", u.Register(5, 1), uffd.ErrRange},
		{"unregister", u.Unregister(5, 1), uffd.ErrRange},
		{"poison, out of range", poison(5, 1), uffd.ErrRange},
		{"continue, good", cont(0, 2), nil},
		{"continue, again", cont(0, 2), uffd.ErrPresent},
		{"wake, nobody waits", u.Wake(0, 2), nil},
		{"unprotect, not protected", u.Unprotect(0, 2), nil},
		{"zap, good", u.Zap(0, 4), nil},
		{"zap, again", u.Zap(0, 4), nil},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, tc.got, tc.want)
		}
	}
}

func TestPoison(t *testing.T) {
	m, u := newRegistered(t, 1)
	done := touch(m, 0, false)
	nextFault(t, u)
	if _, err := u.Poison(0, 1); errors.Is(err, uffd.ErrNotSupported) {
		install(t, m, u, 0, false)
		<-done
		t.Skip(err)
	} else {
		check(t, err)
	}
	if err := <-done; !errors.Is(err, unix.EHWPOISON) && !errors.Is(err, unix.EFAULT) {
		t.Errorf("touching a poisoned page: %v", err)
	}
	install(t, m, u, 0, false) // the page is found again
	check(t, uffdtest.Touch(m.HVA(0), true))

	if _, err := u.Poison(0, 1); err != uffd.ErrPresent {
		t.Errorf("poisoning a mapped page: %v", err)
	}
	check(t, u.Zap(0, 1))
	_, err := u.Poison(0, 1)
	check(t, err)
	check(t, u.Zap(0, 1))
	done = touch(m, 0, false)
	if f := nextFault(t, u); !f.Minor {
		t.Errorf("fault %+v after zapping poison", f)
	}
	install(t, m, u, 0, false)
	check(t, <-done)
}

func TestInterruptAndClose(t *testing.T) {
	_, u := newRegistered(t, 1)
	const readers = 3
	errs := make(chan error, readers)
	for range readers {
		go func() {
			var f [4]uffd.Fault
			_, err := u.Read(f[:])
			errs <- err
		}()
	}
	check(t, u.Interrupt()) // exactly one of them
	wantErr(t, <-errs, uffd.ErrInterrupted)
	check(t, u.Close())
	for range readers - 1 {
		wantErr(t, <-errs, uffd.ErrClosed)
	}
	var f [1]uffd.Fault
	_, err := u.Read(f[:])
	wantErr(t, err, uffd.ErrClosed)
	_, err = u.Continue(0, 1, false)
	wantErr(t, err, uffd.ErrClosed)
	wantErr(t, u.Zap(0, 1), uffd.ErrClosed)
	wantErr(t, u.Interrupt(), uffd.ErrClosed)
	check(t, u.Close())
}

func TestCloseFreesWaiters(t *testing.T) {
	m, u := newRegistered(t, 1)
	m.Alias(0, 1)[0] = 9
	done := touch(m, 0, true)
	nextFault(t, u)
	check(t, u.Close())
	check(t, <-done)
	if v, err := uffdtest.Load(m.HVA(0)); v != 9 || err != nil {
		t.Errorf("page holds %d, %v", v, err)
	}
}

func TestTwoUffdsShareMemory(t *testing.T) {
	needUffd(t)
	m := newMemory(t, 4, uffd.MemoryOptions{})
	a, b := open(t, m), open(t, m)
	check(t, a.Register(0, 2))
	check(t, b.Register(2, 2))
	if err := b.Register(0, 1); !errors.Is(err, unix.EBUSY) {
		t.Errorf("registering another's page: %v", err)
	}
	done := touch(m, 2, true)
	if f := nextFault(t, b); f.Page != 2 {
		t.Errorf("fault %+v", f)
	}
	install(t, m, b, 2, false)
	check(t, <-done)
	noFault(t, a)
}

func TestUnregisterLetsGo(t *testing.T) {
	m, u := newRegistered(t, 2)
	install(t, m, u, 0, true)
	m.Alias(1, 1)[0] = 3
	done := []<-chan error{touch(m, 0, true), touch(m, 1, false)}
	nextFault(t, u)
	nextFault(t, u)
	check(t, u.Unregister(0, 2))
	for _, d := range done {
		check(t, <-d)
	}
	wantPTE(t, m, 0, pte{mapped: true})
}

func TestNoAllocations(t *testing.T) {
	m, u := newRegistered(t, 64)
	// A thread that faults whenever it is told to.
	page, done := make(chan uint32), make(chan error)
	go func() {
		for p := range page {
			done <- uffdtest.Touch(m.HVA(p), true)
		}
	}()
	defer close(page)
	var buf [4]uffd.Fault
	for name, f := range map[string]func() error{
		"fault, read, continue, zap": func() error {
			page <- 1
			n, err := u.Read(buf[:])
			if err != nil {
				return err
			}
			for _, f := range buf[:n] {
				if _, err := u.Continue(f.Page, 1, false); err != nil {
					return err
				}
			}
			return errors.Join(<-done, u.Zap(1, 1))
		},
		"interrupt": func() error {
			if err := u.Interrupt(); err != nil {
				return err
			}
			if _, err := u.Read(buf[:]); err != uffd.ErrInterrupted {
				return err
			}
			return nil
		},
		"outcomes": func() error {
			if _, err := u.Continue(2, 1, true); err != nil {
				return err
			}
			if _, err := u.Continue(2, 1, true); err != uffd.ErrPresent {
				return err
			}
			if _, err := u.Continue(1, 2, true); err != uffd.ErrPartial {
				return err
			}
			if err := u.WriteProtect(1, 2); err != nil {
				return err
			}
			if err := u.Unprotect(1, 2); err != nil {
				return err
			}
			if err := u.Wake(1, 2); err != nil {
				return err
			}
			return u.Zap(1, 2)
		},
		"alias": func() error {
			m.Alias(1, 1)[0]++
			if p, ok := m.Index(5 * uffd.PageSize); !ok || m.GPA(p) != 5*uffd.PageSize {
				return errors.New("index")
			}
			return nil
		},
		"punch, populate": func() error {
			if err := m.PunchAlias(8, 4); err != nil {
				return err
			}
			return m.PopulateAlias(8, 4)
		},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, m.PopulateAlias(0, 64))
			var err error
			if a := testing.AllocsPerRun(200, func() {
				if e := f(); e != nil {
					err = e
				}
			}); a != 0 {
				t.Errorf("%v allocations", a)
			}
			check(t, err)
		})
	}
}

func TestUffdLeavesNothing(t *testing.T) {
	needUffd(t)
	if _, err := uffd.Probe(); err != nil {
		t.Fatal(err)
	}
	files := openFiles(t)
	for range 10 {
		m, err := uffd.NewMemory("uffd-leak", []uffd.Window{{0, 1 << 20}}, uffd.MemoryOptions{})
		check(t, err)
		u, err := uffd.Open(m, uffd.Options{SpinReads: 3})
		check(t, err)
		check(t, u.Register(0, 256))
		check(t, u.Close())
		check(t, m.Close())
	}
	if n := openFiles(t); n != files {
		t.Errorf("%d files open, %d before", n, files)
	}
	if n := mappings(t, "uffd-leak") + mappings(t, "coalesce-probe"); n != 0 {
		t.Errorf("%d mappings left", n)
	}
}
