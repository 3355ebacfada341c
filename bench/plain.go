package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// plainGuest runs a reader as the simplest program would: KVM, one vCPU, private
// memory that the kernel backs with 2 MiB pages, and nothing else.
type plainGuest struct {
	sys     *kvm.System
	vm      *kvm.VM
	mem     []byte
	mapping []byte

	said chan string // a line each; the vCPU waits for who takes it
	quit chan struct{}
	over sync.WaitGroup
	err  error // why the vCPU ended; read once said is closed
}

func newPlainGuest(device string, r *reader) (g *plainGuest, err error) {
	g = &plainGuest{said: make(chan string), quit: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
			g = nil
		}
	}()
	if g.sys, err = kvm.Open(device); err != nil {
		return g, err
	}
	if g.vm, err = g.sys.CreateVM(); err != nil {
		return g, err
	}
	var addr uintptr
	if g.mem, addr, g.mapping, err = hugeMemory(r.ram()); err != nil {
		return g, err
	}
	copy(g.mem[readerBase:], r.image)
	if err := g.vm.SetUserMemoryRegion(0, 0, uint64(r.ram()), addr, 0); err != nil {
		return g, err
	}
	started := make(chan error)
	g.over.Go(func() { g.run(r, started) })
	return g, <-started
}

// run is the vCPU's thread.
func (g *plainGuest) run(r *reader, started chan<- error) {
	runtime.LockOSThread()
	defer close(g.said)
	v, err := g.setUp(r)
	started <- err
	if err != nil {
		return
	}
	defer v.Close()
	var line []byte
	for {
		if _, err := v.Enter(); err != nil {
			g.err = err
			return
		}
		io, err := v.IO()
		if v.ExitReason() != kvm.KVM_EXIT_IO || err != nil || io.Port != readerPort || !io.Out {
			g.err = fmt.Errorf("the plain guest has failed: exit %v", v.ExitReason())
			return
		}
		if line = append(line, io.Data...); len(line) < readerLine {
			continue
		}
		select {
		case g.said <- string(line):
			line = line[:0]
		case <-g.quit:
			return
		}
	}
}

// setUp makes the vCPU that the calling thread will run.
func (g *plainGuest) setUp(r *reader) (v *kvm.VCPU, err error) {
	if v, err = g.vm.CreateVCPU(0); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, v.Close())
		}
	}()
	// The Go runtime's signals wait until the guest has something to say.
	if err := v.SetSignalMask(^uint64(0)); err != nil {
		return v, err
	}
	set, err := vcpu.HostCPUID(g.sys)
	if err != nil {
		return v, err
	}
	if err := v.SetCPUID2(set.ForVCPU(vcpu.Topology{CoresPerPackage: 1})); err != nil {
		return v, err
	}
	entry, err := r.machine.Entry(micro.Options{RIP: r.ring3, Ring: 3})
	if err != nil {
		return v, err
	}
	regs, sregs := microvm.Registers(entry)
	if err := v.SetSregs(sregs); err != nil {
		return v, err
	}
	return v, v.SetRegs(regs)
}

// lines returns what the guest says next, and has it wait for the next call.
func (g *plainGuest) lines(ctx context.Context, n int) ([]string, error) {
	var all []string
	for len(all) < n {
		select {
		case l, ok := <-g.said:
			if !ok {
				return nil, g.err
			}
			all = append(all, l)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return all, nil
}

// close ends the guest: where it waits to say something, as it does soon.
func (g *plainGuest) close() error {
	close(g.quit)
	g.over.Wait()
	var errs []error
	if g.vm != nil {
		errs = append(errs, g.vm.Close())
	}
	if g.sys != nil {
		errs = append(errs, g.sys.Close())
	}
	if g.mapping != nil {
		errs = append(errs, unix.Munmap(g.mapping))
	}
	return errors.Join(errs...)
}
