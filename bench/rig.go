package bench

import (
	"context"
	"errors"
	"runtime"
)

// Nodes of the rig.
const (
	nearNode = iota
	homeNode
	thirdNode
	rigNodes
)

// rig times movements of pages: this process is the near node.
type rig struct {
	*side
	guest       *guest
	client      *floorClient
	home, third *farProcess

	wires mesh // the floor's; the near node's ends are open
}

// newRig starts the far processes, this program with farArgs and the node's
// role, and makes this process the near node.
func newRig(ctx context.Context, device string, farArgs []string) (r *rig, err error) {
	r = &rig{client: &floorClient{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
			r = nil
		}
	}()
	product, err := newMesh(rigNodes)
	if err != nil {
		return r, err
	}
	// The near ends are the engine's soon, and pageLink closes them.
	defer func() { err = errors.Join(err, product.close(homeNode, thirdNode)) }()
	if r.wires, err = newMesh(rigNodes); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, r.wires.close(homeNode, thirdNode)) }()
	for node, p := range map[int]**farProcess{homeNode: &r.home, thirdNode: &r.third} {
		ro := role{Self: node, Nodes: rigNodes, Home: homeNode, Pages: benchPages, CPU: runtime.NumCPU() - 1, Floor: true}
		if *p, err = startFar(ctx, farArgs, ro, append(product.of(node), r.wires.of(node)...)); err != nil {
			return r, err
		}
	}
	if err := pin(0); err != nil {
		return r, err
	}
	if r.side, err = newSide(nearNode, homeNode, benchPages, 0, product[nearNode]); err != nil {
		return r, err
	}
	r.client.mem = r.floor
	if r.client.home, err = rawSocket(r.wires[nearNode][homeNode]); err != nil {
		return r, err
	}
	if r.client.third, err = rawSocket(r.wires[nearNode][thirdNode]); err != nil {
		return r, err
	}
	go func() {
		if err := r.client.serve(); err != nil {
			r.failed <- err
		}
	}()
	r.guest, err = newGuest(device, r.side)
	return r, err
}

// close ends the guest, the memories and the far processes.
func (r *rig) close() error {
	var errs []error
	if r.guest != nil {
		errs = append(errs, r.guest.close())
	}
	if r.side != nil {
		errs = append(errs, r.engine.Close(), r.floor.faults.Interrupt())
	}
	for _, p := range []*farProcess{r.home, r.third} {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	if r.wires != nil {
		errs = append(errs, r.wires.close(nearNode))
	}
	return errors.Join(errs...)
}

// usage is the CPU time of all processes, in ns.
func (r *rig) usage() (int64, error) {
	total, err := cpuTime()
	for _, p := range []*farProcess{r.home, r.third} {
		a, tellErr := p.tell(order{Do: "usage"})
		if tellErr != nil {
			return 0, tellErr
		}
		total += a.CPU
	}
	return total, err
}
