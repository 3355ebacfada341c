package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"time"

	"coalesce/dsm"
)

const (
	// scanPages is how many pages a scan reads: 16 MiB.
	scanPages = maxAccesses
	// maxPages bounds the memory that a far node can be told to have.
	maxPages = scanPages
	// scanRate is the link's, in bytes per second: 1 Gbit/s.
	scanRate = 1_000_000_000 / 8
	// scatteredPages is how many pages are read in no order.
	scatteredPages = 1024
)

// scanRig is a vCPU here and its pages at another node, behind a shaped link.
type scanRig struct {
	*side
	guest *guest
	home  *farProcess
	raw   *os.File // a connection over the same link, without anything
}

func newScanRig(ctx context.Context, device string, farArgs []string) (r *scanRig, err error) {
	r = &scanRig{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
			r = nil
		}
	}()
	l, err := newShapedLink(scanRate)
	if err != nil {
		return r, err
	}
	defer l.close()
	near, far, err := l.wire()
	if err != nil {
		return r, err
	}
	defer far.Close()
	var rawFar *os.File
	if r.raw, rawFar, err = l.wire(); err != nil {
		near.Close()
		return r, err
	}
	defer rawFar.Close()
	ro := role{Self: homeNode, Nodes: 2, Home: homeNode, Pages: scanPages, CPU: runtime.NumCPU() - 1, Bulk: true}
	if r.home, err = startFar(ctx, farArgs, ro, []*os.File{far, rawFar}); err != nil {
		near.Close()
		return r, err
	}
	if err := pin(0); err != nil {
		near.Close()
		return r, err
	}
	if r.side, err = newSide(nearNode, homeNode, scanPages, 0, []*os.File{nil, near}); err != nil {
		return r, err
	}
	r.guest, err = newGuest(device, r.side)
	return r, err
}

func (r *scanRig) close() error {
	var errs []error
	if r.guest != nil {
		errs = append(errs, r.guest.close())
	}
	if r.side != nil {
		errs = append(errs, r.engine.Close())
	}
	if r.raw != nil {
		errs = append(errs, r.raw.Close())
	}
	if r.home != nil {
		errs = append(errs, r.home.stop())
	}
	return errors.Join(errs...)
}

// bulk has the far node send n bytes over the raw connection and returns how long
// that took to the last one.
func (r *scanRig) bulk(n int) (time.Duration, error) {
	fd := int(r.raw.Fd())
	var q [8]byte
	binary.LittleEndian.PutUint64(q[:], uint64(n))
	buf := make([]byte, 64<<10)
	begin := time.Now()
	if err := writeFull(fd, q[:]); err != nil {
		return 0, fmt.Errorf("ask for %d bytes: %w", n, err)
	}
	for n > 0 {
		b := buf[:min(n, len(buf))]
		if err := readFull(fd, b); err != nil {
			return 0, fmt.Errorf("wait for %d bytes: %w", n, err)
		}
		n -= len(b)
	}
	return time.Since(begin), nil
}

// serveBulk answers bulk's questions on a thread of its own.
func (s *side) serveBulk(wire *os.File) error {
	fd, err := rawSocket(wire)
	if err != nil {
		return err
	}
	go func() {
		defer runtime.KeepAlive(wire)
		dsm.LockServiceThread("bulk")
		var q [8]byte
		buf := make([]byte, 64<<10)
		for {
			if err := readFull(fd, q[:]); err != nil {
				if err != io.EOF {
					s.failed <- fmt.Errorf("read a question: %w", err)
				}
				return
			}
			for n := binary.LittleEndian.Uint64(q[:]); n > 0; {
				b := buf[:min(n, uint64(len(buf)))]
				if err := writeFull(fd, b); err != nil {
					s.failed <- fmt.Errorf("send %d bytes: %w", n, err)
					return
				}
				n -= uint64(len(b))
			}
		}
	}()
	return nil
}

// scanned is one pass over pages.
type scanned struct {
	took       time.Duration
	ns         []float64 // of each access
	prefetched uint64
}

// read has the home write all memory, so that no page of it is here, and the vCPU
// then read pages, in their order.
func (r *scanRig) read(ctx context.Context, pages []uint32, prefetch bool) (s scanned, err error) {
	if _, err := r.home.tell(order{Do: "fill", Pages: sequence()}); err != nil {
		return s, err
	}
	r.engine.Prefetch(prefetch)
	before := r.engine.Stats()
	begin := time.Now()
	if s.ns, err = r.guest.access(ctx, productGPA, pages, false); err != nil {
		return s, err
	}
	s.took = time.Since(begin)
	after := r.engine.Stats()
	// All that was asked for comes before the next pass.
	for r.engine.Ahead() > 0 {
		if err := r.engine.Err(); err != nil {
			return s, err
		}
		time.Sleep(time.Millisecond)
	}
	s.prefetched = after.Prefetched - before.Prefetched
	if bytes := after.BytesIn - before.BytesIn; bytes < uint64(len(pages))*dsm.PageSize {
		return s, fmt.Errorf("%d pages came in %d bytes: not all of them whole", len(pages), bytes)
	}
	return s, nil
}

// sequence is all pages in their order.
func sequence() []uint32 {
	pages := make([]uint32, scanPages)
	for i := range pages {
		pages[i] = uint32(i)
	}
	return pages
}

// scattered is some pages in no order.
func scattered() []uint32 {
	var pages []uint32
	for _, p := range rand.Perm(scanPages)[:scatteredPages] {
		pages = append(pages, uint32(p))
	}
	return pages
}

// Streams that are not followed: three pages, and then others.
const (
	brokenRun   = 3
	brokenEvery = 16 // pages, so that what is asked for behind three is not read
)

func broken() []uint32 {
	var pages []uint32
	for _, run := range rand.Perm(scanPages / brokenEvery) {
		for i := range brokenRun {
			pages = append(pages, uint32(run*brokenEvery+i))
		}
	}
	return pages
}

// amid is a scan of the lower half of memory with single pages of the upper half
// in between, which are every singleEvery-th.
func amid() []uint32 {
	var pages []uint32
	singles := rand.Perm(scanPages / 2)
	for i := range uint32(scanPages / 2) {
		pages = append(pages, i)
		if i%(singleEvery-1) == singleEvery-2 {
			pages = append(pages, scanPages/2+uint32(singles[i]))
		}
	}
	return pages
}

const singleEvery = 16

// scanResult gathers rounds; rates are in MB/s, times in ns per page.
type scanResult struct {
	raw, rates, offs                []float64
	scatteredOn, scatteredOff       []float64
	brokenOn, brokenOff             []float64
	ratios, scatteredRatio, brokens []float64
	offRatios                       []float64
	brokenPages, vain               float64
	strayPages, stray               float64
	singles, singlesOff             []float64 // ns each
}

// measureScan times scans of pages that another node has written, beside raw TCP
// over the same link.
func measureScan(ctx context.Context, o *Options, t *table) (err error) {
	r, err := newScanRig(ctx, o.Device, o.FarArgs)
	if errors.Is(err, errNoShaping) {
		t.Left = append(t.Left, fmt.Sprintf("sequential read over a shaped link: not measured: %v", err))
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	var s scanResult
	for round := range o.Rounds + 1 {
		o.Progress(round, o.Rounds, "scans over a link of 1 Gbit/s")
		if err := r.scanRound(ctx, &s, round > 0); err != nil {
			return err
		}
	}
	t.scan(&s)
	return nil
}

// usual is the mean without the slowest hundredth: what waited for a processor.
func usual(ns []float64) float64 {
	most, sum, n := quantile(ns, .99), 0., 0.
	for _, v := range ns {
		if v <= most {
			sum += v
			n++
		}
	}
	return sum / n
}

// scanRound makes every pass once, in pairs whose order chance decides.
func (r *scanRig) scanRound(ctx context.Context, s *scanResult, counts bool) error {
	var raw, rate, off, apart, apartOff, vain, vainOff float64
	var wasted, stray, unused uint64
	inOrder, noOrder, runs := sequence(), scattered(), broken()
	const size = scanPages * dsm.PageSize
	mixed := amid()
	single := func(prefetch bool, into *[]float64) func() error {
		return func() error {
			got, err := r.read(ctx, mixed, prefetch)
			if err != nil || !counts {
				return err
			}
			for i := singleEvery - 1; i < len(mixed); i += singleEvery {
				*into = append(*into, got.ns[i])
			}
			return nil
		}
	}
	// Of a scan the time of all is taken; of what is none, and short, what is usual.
	pass := func(pages []uint32, prefetch bool, perPage *float64, prefetched *uint64) func() error {
		return func() error {
			got, err := r.read(ctx, pages, prefetch)
			if err != nil {
				return err
			}
			*perPage = float64(got.took) / float64(len(pages))
			if prefetched != nil {
				*perPage, *prefetched = usual(got.ns), got.prefetched
			}
			return nil
		}
	}
	pairs := [][2]func() error{
		{pass(inOrder, true, &rate, nil), func() error {
			// A connection that was idle begins slowly; that is not to count.
			if _, err := r.bulk(size / 4); err != nil {
				return err
			}
			took, err := r.bulk(size)
			raw = float64(took) / scanPages
			return err
		}},
		// Right after a scan it trusts its streams.
		{pass(runs, true, &vain, &wasted), pass(runs, false, &vainOff, &unused)},
		{pass(noOrder, true, &apart, &stray), pass(noOrder, false, &apartOff, &unused)},
		{single(true, &s.singles), single(false, &s.singlesOff)},
		{pass(inOrder, false, &off, nil), func() error { return nil }},
	}
	for _, p := range pairs {
		first := rand.IntN(2)
		for i := range p {
			if err := p[(first+i)%2](); err != nil {
				return err
			}
		}
	}
	if !counts {
		return nil
	}
	rateOf := func(nsPerPage float64) float64 { return dsm.PageSize * 1e3 / nsPerPage }
	s.raw, s.rates, s.offs = append(s.raw, rateOf(raw)), append(s.rates, rateOf(rate)), append(s.offs, rateOf(off))
	s.ratios, s.offRatios = append(s.ratios, raw/rate), append(s.offRatios, raw/off)
	s.scatteredOn, s.scatteredOff = append(s.scatteredOn, apart), append(s.scatteredOff, apartOff)
	s.scatteredRatio = append(s.scatteredRatio, apart/apartOff)
	s.brokenOn, s.brokenOff = append(s.brokenOn, vain), append(s.brokenOff, vainOff)
	s.brokens = append(s.brokens, vain/vainOff)
	s.vain += float64(wasted)
	s.brokenPages += float64(len(runs))
	s.stray += float64(stray)
	s.strayPages += float64(len(noOrder))
	return nil
}
