package link_test

import (
	"context"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"coalesce/link"
	"coalesce/link/linktest"

	"golang.org/x/sys/unix"
)

// BenchmarkPingPong measures a page request, 64 bytes out and 4 KiB back, over
// loopback, and beside it the floor: the same bytes over plain blocking sockets.
// Both take turns, so that both meet the same moods of the machine. The ends'
// threads are pinned, to one CPU and to two, since where the scheduler happens to
// put them changes the result by more than all else. As in a node, GOMAXPROCS
// leaves room for every thread that blocks: a thread back from read(2) that finds
// no free P sleeps again.
func BenchmarkPingPong(b *testing.B) {
	b.Run("same-cpu", func(b *testing.B) { pingPong(b, 0, 0) })
	if runtime.NumCPU() > 1 {
		b.Run("two-cpus", func(b *testing.B) { pingPong(b, 0, 1) })
	}
}

// pinThread locks the goroutine to a thread and that to a CPU; undo ends both.
func pinThread(b *testing.B, cpu int) (undo func()) {
	runtime.LockOSThread()
	var before, set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		b.Error(err)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		b.Error(err)
	}
	return func() {
		unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}
}

func pingPong(b *testing.B, nearCPU, farCPU int) {
	request, page := make([]byte, 64), make([]byte, 4096)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8))
	defer pinThread(b, nearCPU)()

	near, far := linktest.PipeTCP(b, link.Page, link.Options{}, link.Options{})
	var echoes sync.WaitGroup
	echoes.Go(func() {
		defer pinThread(b, farCPU)()
		page, buf := make([]byte, 4096), make([]byte, link.Page.MaxPayload())
		var h link.Header
		for {
			if _, err := far.Recv(&h, buf); err != nil {
				return
			}
			if far.Send(link.Header{Kind: 2}, page) != nil {
				return
			}
		}
	})
	rawNear, rawFar := rawTCP(b)
	echoes.Go(func() {
		defer pinThread(b, farCPU)()
		in, out := make([]byte, link.HeaderSize+64), make([]byte, link.HeaderSize+4096)
		for readAll(rawFar, in) == nil && writeAll(rawFar, out) == nil {
		}
	})
	defer echoes.Wait()
	defer far.Close()
	defer unix.Shutdown(rawFar, unix.SHUT_RDWR)

	buf := make([]byte, link.Page.MaxPayload())
	rawOut, rawIn := make([]byte, link.HeaderSize+len(request)), make([]byte, link.HeaderSize+len(page))
	linkTimes, rawTimes := make([]time.Duration, 0, b.N), make([]time.Duration, 0, b.N)
	var h link.Header
	linkTrip := func() {
		begin := time.Now()
		if err := near.Send(link.Header{Kind: 1}, request); err != nil {
			b.Fatal(err)
		}
		if p, err := near.Recv(&h, buf); err != nil || len(p) != len(page) {
			b.Fatal(len(p), err)
		}
		linkTimes = append(linkTimes, time.Since(begin))
	}
	rawTrip := func() {
		begin := time.Now()
		if err := writeAll(rawNear, rawOut); err != nil {
			b.Fatal(err)
		}
		if err := readAll(rawNear, rawIn); err != nil {
			b.Fatal(err)
		}
		rawTimes = append(rawTimes, time.Since(begin))
	}
	for i := 0; b.Loop(); i++ {
		if i%2 == 0 {
			linkTrip()
			rawTrip()
		} else {
			rawTrip()
			linkTrip()
		}
	}
	b.ReportMetric(0, "ns/op") // of both together: misleading
	slices.Sort(linkTimes)
	slices.Sort(rawTimes)
	for _, p := range []struct {
		name string
		at   int
	}{{"p50", len(linkTimes) / 2}, {"p99", len(linkTimes) * 99 / 100}} {
		l, r := linkTimes[p.at], rawTimes[p.at]
		b.ReportMetric(float64(l)/1e3, "link-"+p.name+"-us")
		b.ReportMetric(float64(r)/1e3, "raw-"+p.name+"-us")
		b.ReportMetric(float64(l)/float64(r), p.name+"-ratio")
	}
}

// rawTCP returns two blocking sockets joined over loopback, set as a Conn's are.
func rawTCP(b *testing.B) (near, far int) {
	b.Helper()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	ln, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(ln)
	must(unix.Bind(ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(ln, 1))
	addr, err := unix.Getsockname(ln)
	must(err)
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Connect(near, addr))
	far, _, err = unix.Accept4(ln, unix.SOCK_CLOEXEC)
	must(err)
	for _, fd := range []int{near, far} {
		must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
		b.Cleanup(func() { unix.Close(fd) })
	}
	return near, far
}

func readAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(fd, p)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.EOF
		}
		p = p[n:]
	}
	return nil
}

func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// BenchmarkStream measures the bandwidth of a bulk connection over loopback.
func BenchmarkStream(b *testing.B) {
	near, far := linktest.PipeTCP(b, link.Bulk, link.Options{}, link.Options{})
	payload := make([]byte, 256<<10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, link.Bulk.MaxPayload())
		var h link.Header
		for {
			if _, err := far.Recv(&h, buf); err != nil {
				return
			}
		}
	}()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if err := near.Send(link.Header{Kind: 1}, payload); err != nil {
			b.Fatal(err)
		}
		if err := near.Flush(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	near.CloseWrite()
	<-done
}

// BenchmarkSendRecv measures this package's own share: a page frame through a
// socket pair on one thread, no wake-up.
func BenchmarkSendRecv(b *testing.B) {
	near, far := linktest.Pipe(b, link.Page, link.Options{}, link.Options{})
	page, buf := make([]byte, 4096), make([]byte, link.Page.MaxPayload())
	b.ReportAllocs()
	var h link.Header
	for b.Loop() {
		if err := near.Send(link.Header{Kind: 1}, page); err != nil {
			b.Fatal(err)
		}
		if _, err := far.Recv(&h, buf); err != nil {
			b.Fatal(err)
		}
	}
}
