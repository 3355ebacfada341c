package vmm

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// dumpOnSignal writes what the node is doing to standard error at each SIGUSR1
// until stop is called: for somebody who looks at a guest that does not move.
func (n *node) dumpOnSignal() (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-asked:
				n.dump(os.Stderr)
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(asked)
		cancel()
		<-done
	}
}

// dump describes the vCPUs, the counters and the pages that are on the way.
func (n *node) dump(w io.Writer) {
	fmt.Fprintf(w, "node %d\n", n.id)
	for _, v := range n.vcpus {
		fmt.Fprintf(w, "  %v %v, thread time %v, interrupted %d times\n", v, v.Phase(), v.CPUTime(), v.Counters().Interrupted.Load())
	}
	n.sampleRIPs(w)
	r := n.makeReport("")
	for _, c := range r.CPUs {
		fmt.Fprintf(w, "  vcpu %d: entries %d interrupts %d kicks %d exits %v\n", c.ID, c.Entries, c.Interrupts, c.Kicks, c.Exits)
	}
	fmt.Fprintf(w, "  IPIs out %d in %d, forwarded I/O %d, stamp waits %d\n  memory %+v\n", r.IPIsOut, r.IPIsIn, r.Forward, r.Waits, r.Memory)
	if n.engine != nil {
		n.engine.Dump(w)
	}
}

// sampleRIPs prints where each vCPU stands, a few times over.
func (n *node) sampleRIPs(w io.Writer) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, v := range n.vcpus {
		fmt.Fprintf(w, "  %v rip", v)
		for range ripSamples {
			r, err := v.Registers(ctx)
			if err != nil {
				fmt.Fprintf(w, " (%v)", err)
				break
			}
			fmt.Fprintf(w, " %#x", r.RIP)
		}
		fmt.Fprintln(w)
	}
}

const ripSamples = 8
