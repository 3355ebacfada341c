package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"coalesce/vmm"
)

// memoryTarget bounds how much slower than a plain guest a guest of one host is.
const memoryTarget = 1.02

// readBits are the bits of an address in what is read: 256 MiB.
const readBits = 28

// Of the lines that a guest says at a time: how many there are, and the share of
// the fastest ones that count. The others are those in which the host had
// something else to do.
const (
	memoryLines = 120
	memoryShare = .1
)

// memoryLine is a line of the table of Memory: ns for a read.
type memoryLine struct {
	Name           string
	Floor, Product float64 // medians of the rounds
	Ratio          Ratio
	HugeMiB        uint64 // of what is read, in 2 MiB pages
}

// MemoryTable is what Memory prints.
type MemoryTable struct {
	ReadMiB int // how much memory the reads are spread over
	Lines   []memoryLine
}

// Memory measures what a guest pays for being able to span hosts while it does
// not: reads at random addresses, beside a plain KVM guest. It pins this process,
// which is good for nothing else after.
func Memory(ctx context.Context, o Options, host *vmm.Host) (err error) {
	if o.readBits == 0 {
		o.readBits = readBits
	}
	r, err := newReader(o.readBits)
	if err != nil {
		return err
	}
	if err := pin(runtime.NumCPU() - 1); err != nil {
		return err
	}
	plain, err := newPlainGuest(o.Device, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, plain.close()) }()
	product, err := startProduct(ctx, host, r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, product.close()) }()
	t := MemoryTable{ReadMiB: r.size >> 20}
	line, err := compareMemory(ctx, &o, host, "one host", plain, product)
	if err != nil {
		return err
	}
	t.Lines = append(t.Lines, line)
	if o.JSON {
		e := json.NewEncoder(o.Out)
		e.SetIndent("", "  ")
		return e.Encode(&t)
	}
	return t.text(o.Out)
}

// compareMemory has both guests read in turns.
func compareMemory(ctx context.Context, o *Options, host *vmm.Host, name string, plain *plainGuest, product *productGuest) (memoryLine, error) {
	l := memoryLine{Name: name}
	huge, err := awaitHuge(ctx, uint64(product.size))
	if err != nil {
		return l, err
	}
	l.HugeMiB = huge >> 20
	var floors, products, ratios []float64
	for round := range o.Rounds + 1 {
		o.Progress(round, o.Rounds, name)
		a, err := measureReads(host, func() ([]string, error) { return plain.lines(ctx, memoryLines) })
		if err != nil {
			return l, err
		}
		b, err := measureReads(host, func() ([]string, error) { return product.lines(ctx, memoryLines) })
		if err != nil {
			return l, err
		}
		if round > 0 {
			floors, products, ratios = append(floors, a), append(products, b), append(ratios, b/a)
		}
	}
	l.Floor, l.Product, l.Ratio = quantile(floors, .5), quantile(products, .5), ratioOf(ratios, memoryTarget)
	return l, nil
}

// measureReads returns the time of a read in ns. The first two lines may be about
// a time in which the guest did not run.
func measureReads(host *vmm.Host, lines func() ([]string, error)) (float64, error) {
	all, err := lines()
	if err != nil {
		return 0, err
	}
	var ns []float64
	for _, l := range all[2:] {
		n, err := strconv.ParseUint(strings.TrimSpace(l), 16, 64)
		if err != nil {
			return 0, fmt.Errorf("the guest said %q: %w", l, err)
		}
		ns = append(ns, float64(n)*1e6/float64(host.TSCKHz)/readerReads)
	}
	return quantile(ns, memoryShare), nil
}

func (t *MemoryTable) text(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "reads at random in %d MiB\tplain KVM guest ns\tns\tratio\tin 2 MiB pages\n", t.ReadMiB)
	for _, l := range t.Lines {
		fmt.Fprintf(tw, "%s\t%.1f\t%.1f\t%v\t%d MiB\n", l.Name, l.Floor, l.Product, l.Ratio, l.HugeMiB)
	}
	return tw.Flush()
}

// productGuest runs a reader as coalesce does.
type productGuest struct {
	guest  *vmm.RunningGuest
	size   int // of what it reads
	said   chan string
	cancel context.CancelCauseFunc
	dir    string
	over   chan struct{}
	err    error // of Run; read after over
}

// errEnough ends the guest.
var errEnough = errors.New("measured")

func startProduct(ctx context.Context, host *vmm.Host, r *reader) (*productGuest, error) {
	kernel, err := r.kernel()
	if err != nil {
		return nil, err
	}
	p := &productGuest{size: r.size, said: make(chan string, 1<<12), over: make(chan struct{})}
	if p.dir, err = os.MkdirTemp("", "coalesce-bench-"); err != nil {
		return nil, err
	}
	file := filepath.Join(p.dir, "reader")
	if err := os.WriteFile(file, kernel, 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(p.dir))
	}
	out, in := io.Pipe()
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case p.said <- s.Text():
			default: // nobody listens
			}
		}
	}()
	running := make(chan *vmm.RunningGuest, 1)
	ctx, p.cancel = context.WithCancelCause(ctx)
	go func() {
		defer close(p.over)
		_, p.err = vmm.Run(ctx, vmm.RunConfig{Kernel: file, CPUs: 1, Memory: uint64(r.ram()), Console: in, Host: host,
			Running: func(g *vmm.RunningGuest) { running <- g }})
		in.Close()
	}()
	select {
	case p.guest = <-running:
	case <-p.over:
		return nil, errors.Join(p.err, os.RemoveAll(p.dir))
	}
	// Its first line says that all memory is in use.
	if _, err := p.await(ctx, 1); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, p.guest.Pause(ctx)
}

// lines returns what the guest says next, once it was let go on; it is paused
// before and after.
func (p *productGuest) lines(ctx context.Context, n int) ([]string, error) {
	for len(p.said) > 0 {
		<-p.said
	}
	if err := p.guest.Resume(ctx); err != nil {
		return nil, err
	}
	all, err := p.await(ctx, n)
	return all, errors.Join(err, p.guest.Pause(ctx))
}

func (p *productGuest) await(ctx context.Context, n int) ([]string, error) {
	var all []string
	for len(all) < n {
		select {
		case l := <-p.said:
			all = append(all, l)
		case <-p.over:
			return nil, fmt.Errorf("the guest has ended: %w", p.err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}

func (p *productGuest) close() error {
	p.cancel(errEnough)
	<-p.over
	err := os.RemoveAll(p.dir)
	if !errors.Is(p.err, errEnough) {
		err = errors.Join(err, p.err)
	}
	return err
}

// hugePatience bounds the wait for huge pages.
const hugePatience = 60 * time.Second

// awaitHuge waits until all that the product's guest reads is mapped with huge
// pages, and returns how many bytes of its memory are.
func awaitHuge(ctx context.Context, want uint64) (uint64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, hugePatience, errors.New("the kernel makes no huge pages"))
	defer cancel()
	for {
		huge, err := mappedHuge()
		if err != nil || huge >= want {
			return huge, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return huge, fmt.Errorf("%d of %d MiB are in huge pages: %w", huge>>20, want>>20, context.Cause(ctx))
		}
	}
}

// mappedHuge returns how many bytes of the product's memory are mapped with huge
// pages, from /proc/self/smaps.
func mappedHuge() (bytes uint64, err error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	guest := false
	for s := bufio.NewScanner(f); s.Scan(); err = s.Err() {
		fields := strings.Fields(s.Text())
		switch {
		case len(fields) > 0 && !strings.HasSuffix(fields[0], ":"):
			guest = strings.Contains(s.Text(), "memfd:coalesce-guest")
		case guest && len(fields) > 1 && fields[0] == "ShmemPmdMapped:":
			kib, err := strconv.ParseUint(fields[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/self/smaps: %q: %w", s.Text(), err)
			}
			bytes += kib << 10
		}
	}
	return bytes, err
}
