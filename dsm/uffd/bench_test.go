package uffd_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"coalesce/dsm/uffd"
	"coalesce/dsm/uffd/uffdtest"
)

// Costs per page of the steps between states:
//
//	go test -run '^$' -bench . ./dsm/uffd/
//
// "busy" has another thread running in the process on another CPU, as a vCPU
// would be, which then takes part in every TLB shootdown.

const benchPages = 2048

// benchRanges runs op on all pages of a fresh registered memory, n at a time, as
// often as it takes; prepare puts all pages in the state that op starts from.
func benchRanges(b *testing.B, prepare func(*uffd.Memory, *uffd.Uffd) error, op func(*uffd.Memory, *uffd.Uffd, uint32, int) error) {
	for _, busy := range []bool{false, true} {
		for _, n := range []int{1, 64, 512} {
			name := fmt.Sprintf("alone/%d", n)
			if busy {
				name = fmt.Sprintf("busy/%d", n)
			}
			b.Run(name, func(b *testing.B) {
				m, u := newRegistered(b, benchPages)
				check(b, m.PopulateAlias(0, benchPages))
				if busy {
					defer burn()()
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				pages := 0
				for b.Loop() {
					b.StopTimer()
					check(b, prepare(m, u))
					b.StartTimer()
					for p := 0; p < benchPages; p += n {
						check(b, op(m, u, uint32(p), n))
					}
					pages += benchPages
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(pages), "ns/page")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// burn keeps a CPU busy in this process until the function it returns is called.
func burn() (stop func()) {
	var quit atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for !quit.Load() {
		}
	}()
	return func() { quit.Store(true); <-done }
}

func zapAll(_ *uffd.Memory, u *uffd.Uffd) error { return u.Zap(0, benchPages) }

func mapAll(m *uffd.Memory, u *uffd.Uffd) error {
	if err := m.PopulateAlias(0, benchPages); err != nil {
		return err
	}
	if err := u.Zap(0, benchPages); err != nil {
		return err
	}
	_, err := u.Continue(0, benchPages, false)
	return err
}

func BenchmarkContinue(b *testing.B) {
	benchRanges(b, zapAll, func(_ *uffd.Memory, u *uffd.Uffd, p uint32, n int) error {
		_, err := u.Continue(p, n, false)
		return err
	})
}

func BenchmarkContinueWP(b *testing.B) {
	benchRanges(b, zapAll, func(_ *uffd.Memory, u *uffd.Uffd, p uint32, n int) error {
		_, err := u.Continue(p, n, true)
		return err
	})
}

func BenchmarkWriteProtect(b *testing.B) {
	benchRanges(b, mapAll, func(_ *uffd.Memory, u *uffd.Uffd, p uint32, n int) error { return u.WriteProtect(p, n) })
}

func BenchmarkUnprotect(b *testing.B) {
	benchRanges(b, func(m *uffd.Memory, u *uffd.Uffd) error {
		if err := mapAll(m, u); err != nil {
			return err
		}
		return u.WriteProtect(0, benchPages)
	}, func(_ *uffd.Memory, u *uffd.Uffd, p uint32, n int) error { return u.Unprotect(p, n) })
}

func BenchmarkZap(b *testing.B) {
	benchRanges(b, mapAll, func(_ *uffd.Memory, u *uffd.Uffd, p uint32, n int) error { return u.Zap(p, n) })
}

func BenchmarkPunchAlias(b *testing.B) {
	benchRanges(b, mapAll, func(m *uffd.Memory, _ *uffd.Uffd, p uint32, n int) error { return m.PunchAlias(p, n) })
}

// BenchmarkFault is a whole local minor fault: a thread touches a page that the
// memfd holds, and a locked reader maps it.
func BenchmarkFault(b *testing.B) {
	for _, spins := range []int{0, 1 << 30} {
		name := "sleeping reader"
		if spins > 0 {
			name = "spinning reader"
		}
		b.Run(name, func(b *testing.B) {
			needUffd(b)
			m := newMemory(b, benchPages, uffd.MemoryOptions{})
			u, err := uffd.Open(m, uffd.Options{SpinReads: spins})
			check(b, err)
			check(b, u.Register(0, benchPages))
			check(b, m.PopulateAlias(0, benchPages))
			done := make(chan struct{})
			go func() {
				defer close(done)
				runtime.LockOSThread()
				var f [4]uffd.Fault
				for {
					n, err := u.Read(f[:])
					if err != nil {
						return
					}
					for _, f := range f[:n] {
						if _, err := u.Continue(f.Page, 1, false); err != nil {
							b.Error(err)
						}
					}
				}
			}()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			best := time.Hour
			for i := 0; b.Loop(); i++ {
				if i%benchPages == 0 {
					b.StopTimer()
					check(b, zapAll(m, u))
					b.StartTimer()
				}
				start := time.Now()
				check(b, uffdtest.Touch(m.HVA(uint32(i%benchPages)), true))
				best = min(best, time.Since(start))
			}
			b.ReportMetric(float64(best.Nanoseconds()), "best-ns")
			check(b, u.Close())
			<-done
		})
	}
}
