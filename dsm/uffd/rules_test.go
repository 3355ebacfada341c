package uffd_test

import (
	"encoding/binary"
	"runtime"
	"testing"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"

	"golang.org/x/sys/unix"
)

// Each test shows the rule of the same number in the package's comment.

func TestRule1LeaveModified(t *testing.T) {
	for _, tc := range []struct {
		to    string
		leave func(*uffd.Uffd) error
		back  func(*testing.T, *uffd.Uffd)
	}{
		{"invalid",
			func(u *uffd.Uffd) error { return u.Zap(0, 1) },
			func(t *testing.T, u *uffd.Uffd) {
				_, err := u.Continue(0, 1, false)
				check(t, err)
			}},
		{"shared",
			func(u *uffd.Uffd) error { return u.WriteProtect(0, 1) },
			func(t *testing.T, u *uffd.Uffd) { check(t, u.Unprotect(0, 1)) }},
	} {
		t.Run(tc.to, func(t *testing.T) {
			m, u := newRegistered(t, 1)
			install(t, m, u, 0, false)
			const increments = 2000
			done := make(chan error, 1)
			addr := m.HVA(0)
			go func() {
				for range increments {
					if err := uffdtest.Increment(addr); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			value := func() uint32 { return binary.LittleEndian.Uint32(m.Alias(0, 1)) }
			for finished := false; !finished; {
				check(t, tc.leave(u))
				// The writer runs into the page: what the alias holds is final.
				before := value()
				if before < increments {
					if f := nextFault(t, u); !f.Write {
						t.Fatalf("fault %+v is not a write", f)
					}
				}
				if after := value(); after != before {
					t.Fatalf("written after leaving modified: %d, then %d", before, after)
				}
				tc.back(t, u)
				select {
				case err := <-done:
					check(t, err)
					finished = true
				default:
				}
			}
			if v := value(); v != increments {
				t.Fatalf("got %d increments, want %d", v, increments)
			}
		})
	}
}

func TestRule2ContinueOnPresentPage(t *testing.T) {
	m, u := newRegistered(t, 4)
	done := touch(m, 0, false)
	f := nextFault(t, u)
	check(t, m.PopulateAlias(0, 1))
	_, err := u.ContinueNoWake(0, 1, true)
	check(t, err)

	n, err := u.Continue(0, 1, true)
	if n != 0 || err != uffd.ErrPresent {
		t.Fatalf("continue on a present page: %d, %v", n, err)
	}
	stillWaits(t, f)
	check(t, u.Wake(0, 1))
	check(t, <-done)

	// A range stops at the page that is present, with the count before it.
	check(t, m.PopulateAlias(0, 4))
	install(t, m, u, 3, false)
	n, err = u.Continue(1, 3, false)
	if n != 2 || err != uffd.ErrPartial {
		t.Fatalf("continue on two absent pages and a present one: %d, %v", n, err)
	}
	n, err = u.Continue(3, 1, false)
	if n != 0 || err != uffd.ErrPresent {
		t.Fatalf("going on: %d, %v", n, err)
	}
}

func TestRule3FinePageStillNeedsWake(t *testing.T) {
	m, u := newRegistered(t, 1)
	install(t, m, u, 0, true)
	done := touch(m, 0, true)
	f := nextFault(t, u)
	if !f.WP || !f.Write {
		t.Fatalf("fault %+v, want a write on write protection", f)
	}
	// Meanwhile the page became what the writer needs, on another path.
	check(t, u.Zap(0, 1))
	_, err := u.ContinueNoWake(0, 1, false)
	check(t, err)
	stillWaits(t, f)
	noFault(t, u)
	check(t, u.Wake(0, 1))
	check(t, <-done)
}

func TestRule4WriteProtectFaultOnInvalidPage(t *testing.T) {
	m, u := newRegistered(t, 1)
	install(t, m, u, 0, true)
	done := touch(m, 0, true)
	f := nextFault(t, u)
	check(t, u.Zap(0, 1)) // an invalidation overtakes the fault
	if !f.WP || !f.Write || f.Minor {
		t.Fatalf("fault %+v, want a write on write protection", f)
	}
	// Believing the WP bit does not make the page writable: the access faults anew.
	check(t, u.Unprotect(0, 1))
	f = nextFault(t, u)
	if f.WP || !f.Minor || !f.Write {
		t.Fatalf("fault %+v, want a minor one", f)
	}
	_, err := u.Continue(0, 1, false)
	check(t, err)
	check(t, <-done)
}

func TestRule5MarkerOfZappedPage(t *testing.T) {
	m, u := newRegistered(t, 1)
	install(t, m, u, 0, true)
	wantPTE(t, m, 0, pte{mapped: true, wp: true})
	check(t, u.Zap(0, 1))
	wantPTE(t, m, 0, pte{mapped: false, wp: true})

	done := touch(m, 0, true)
	f := nextFault(t, u)
	if !f.Minor || !f.Write {
		t.Fatalf("fault %+v on a marker, want a minor one", f)
	}
	_, err := u.Continue(0, 1, false)
	check(t, err)
	check(t, <-done)
	wantPTE(t, m, 0, pte{mapped: true})
	noFault(t, u)
}

func TestRule6ReadingHoleAllocates(t *testing.T) {
	m, u := newRegistered(t, 1)
	if r := m.Resident(); r != 0 {
		t.Fatalf("%d bytes resident at first", r)
	}
	n, err := u.Continue(0, 1, true)
	if n != 0 || err != uffd.ErrHole {
		t.Fatalf("continue on a hole: %d, %v", n, err)
	}
	if b := m.Alias(0, 1)[0]; b != 0 {
		t.Fatalf("hole holds %d", b)
	}
	if r := m.Resident(); r != uffd.PageSize {
		t.Fatalf("%d bytes resident after a read", r)
	}
	_, err = u.Continue(0, 1, true)
	check(t, err)
}

func TestRule7ReclaimUnmapsValidPage(t *testing.T) {
	for _, wp := range []bool{false, true} {
		m, u := newRegistered(t, 1)
		m.Alias(0, 1)[0] = 42
		_, err := u.Continue(0, 1, wp)
		check(t, err)
		// MADV_PAGEOUT leaves pages alone that are mapped twice.
		check(t, unix.Madvise(m.Alias(0, 1), unix.MADV_DONTNEED))
		if _, _, e := unix.Syscall(unix.SYS_MADVISE, m.HVA(0), uffd.PageSize, unix.MADV_PAGEOUT); e != 0 {
			t.Fatal(e)
		}
		wantPTE(t, m, 0, pte{mapped: false, wp: wp})

		done := touch(m, 0, false)
		if f := nextFault(t, u); !f.Minor || f.Write {
			t.Fatalf("fault %+v after reclaim, want a minor read", f)
		}
		_, err = u.Continue(0, 1, wp)
		check(t, err)
		check(t, <-done)
		wantPTE(t, m, 0, pte{mapped: true, wp: wp})
		if v, err := uffdtest.Load(m.HVA(0)); v != 42 || err != nil {
			t.Fatalf("page holds %d, %v", v, err)
		}
	}
}

func TestRule8EventRemoveWouldBlock(t *testing.T) {
	m, u := newRegistered(t, 1)
	install(t, m, u, 0, false)
	check(t, u.Zap(0, 1)) // as opened here: nobody reads, nobody waits
	noFault(t, u)
	check(t, u.Unregister(0, 1))

	r := openWithEventRemove(t, m)
	zapped := make(chan error, 1)
	hva := m.HVA(0)
	tid := make(chan int, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		tid <- unix.Gettid()
		_, _, e := unix.Syscall(unix.SYS_MADVISE, hva, uffd.PageSize, unix.MADV_DONTNEED)
		if e != 0 {
			zapped <- e
			return
		}
		zapped <- nil
	}()
	waitAsleepIn(t, <-tid, unix.SYS_MADVISE)
	select {
	case err := <-zapped:
		t.Fatalf("madvise returned %v before its event was read", err)
	default:
	}
	const eventRemove = 0x15
	if event := r.nextEvent(t); event != eventRemove {
		t.Fatalf("event %#x, want UFFD_EVENT_REMOVE", event)
	}
	check(t, <-zapped)
}

func TestRule9PinnedPagePassesByWithoutFault(t *testing.T) {
	m, u := newRegistered(t, 1)
	m.Alias(0, 1)[0] = 1
	_, err := u.Continue(0, 1, true)
	check(t, err)
	var pipe [2]int
	check(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	check(t, vmsplice(pipe[1], m.HVA(0), 1))

	check(t, u.Zap(0, 1)) // to invalid: nobody here may read it
	m.Alias(0, 1)[0] = 2  // the engine prepares the next install
	var b [1]byte
	_, err = unix.Read(pipe[0], b[:])
	check(t, err)
	if b[0] != 2 {
		t.Fatalf("pinned page reads %d", b[0])
	}
	noFault(t, u) // it was read in state invalid, and nobody was asked
}

func TestRule10HugeMapping(t *testing.T) {
	const pages = 512
	huge := func(t *testing.T) (*uffd.Memory, *uffd.Uffd) {
		needUffd(t)
		m := newMemory(t, pages, uffd.MemoryOptions{Huge: true})
		check(t, m.PopulateAlias(0, pages))
		check(t, m.Collapse(0, pages))
		u := open(t, m)
		check(t, u.Register(0, pages))
		wantPTE(t, m, 1, pte{mapped: true})
		return m, u
	}
	mapped := func(m *uffd.Memory) (n int) {
		for p := range uint32(pages) {
			if pteOf(t, m, p).mapped {
				n++
			}
		}
		return n
	}
	t.Run("zap unmaps all", func(t *testing.T) {
		m, u := huge(t)
		check(t, u.Zap(7, 1))
		if n := mapped(m); n != 0 {
			t.Fatalf("%d pages mapped after one Zap", n)
		}
	})
	t.Run("write protection unmaps all", func(t *testing.T) {
		m, u := huge(t)
		check(t, u.WriteProtect(7, 1))
		if n := mapped(m); n != 0 {
			t.Fatalf("%d pages mapped after one WriteProtect", n)
		}
	})
	t.Run("continue is ErrPresent", func(t *testing.T) {
		_, u := huge(t)
		n, err := u.Continue(7, 1, true)
		if n != 0 || err != uffd.ErrPresent {
			t.Fatalf("continue in a huge mapping: %d, %v", n, err)
		}
	})
	t.Run("range continue lifts markers", func(t *testing.T) {
		m, u := newRegistered(t, 3)
		check(t, m.PopulateAlias(0, 3))
		install(t, m, u, 1, true)
		check(t, u.Zap(1, 1)) // reclaim does this to a shared page, too
		wantPTE(t, m, 1, pte{wp: true})
		n, err := u.Continue(0, 3, false)
		if n != 3 || err != nil {
			t.Fatalf("continue: %d, %v", n, err)
		}
		wantPTE(t, m, 1, pte{mapped: true})
	})
}
