package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"coalesce/dsm"
)

// farProcess is a far node as the bench sees it.
type farProcess struct {
	name    string
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

// tell has the far node do something and returns its answer.
func (p *farProcess) tell(o order) (answer, error) {
	var a answer
	if err := p.orders.Encode(o); err != nil {
		return a, fmt.Errorf("tell the %s node to %s: %w", p.name, o.Do, err)
	}
	if err := p.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("the %s node, told to %s, has ended: %w", p.name, o.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("the %s node, told to %s: %s", p.name, o.Do, a.Error)
	}
	return a, nil
}

// rig is everything that is measured.
type rig struct {
	*side
	guest       *guest
	client      *floorClient
	home, third *farProcess

	wires []*os.File // the near ends of the floor's
}

// farGrace is how long a far process may take to end once its orders do.
const farGrace = 5 * time.Second

// newRig starts the far processes, this program with farArgs and the node's
// number, and makes this process the near node.
func newRig(ctx context.Context, device string, farArgs []string) (r *rig, err error) {
	r = &rig{client: &floorClient{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
			r = nil
		}
	}()
	// ends[0] are the product's wires, ends[1] the floor's; [a][b] is a's end of
	// the wire to b.
	var ends [2][nodes][nodes]*os.File
	defer func() {
		for _, kind := range ends {
			for _, f := range append(kind[homeNode][:], kind[thirdNode][:]...) {
				if f != nil {
					f.Close() // the far processes have them now
				}
			}
		}
	}()
	for k := range ends {
		for a := range nodes {
			for b := a + 1; b < nodes; b++ {
				if ends[k][a][b], ends[k][b][a], err = wire(); err != nil {
					return r, err
				}
			}
		}
	}
	r.wires = []*os.File{ends[1][nearNode][homeNode], ends[1][nearNode][thirdNode]}
	for node, p := range map[int]**farProcess{homeNode: &r.home, thirdNode: &r.third} {
		var files []*os.File
		for _, kind := range ends {
			for n, f := range kind[node] {
				if n != node {
					files = append(files, f)
				}
			}
		}
		if *p, err = startFar(ctx, node, farArgs, files); err != nil {
			return r, err
		}
	}
	if err := pin(0); err != nil {
		return r, err
	}
	product := map[dsm.NodeID]*os.File{homeNode: ends[0][nearNode][homeNode], thirdNode: ends[0][nearNode][thirdNode]}
	if r.side, err = newSide(nearNode, product); err != nil {
		return r, err
	}
	r.client.mem = r.floor
	if r.client.home, err = rawSocket(r.wires[0]); err != nil {
		return r, err
	}
	if r.client.third, err = rawSocket(r.wires[1]); err != nil {
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

func startFar(ctx context.Context, node int, args []string, files []*os.File) (*farProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to run it as another node: %w", err)
	}
	p := &farProcess{name: map[int]string{homeNode: "home", thirdNode: "third"}[node]}
	p.cmd = exec.CommandContext(ctx, self, append(args, strconv.Itoa(node))...)
	p.cmd.ExtraFiles = files
	p.cmd.Stderr = os.Stderr
	p.cmd.WaitDelay = farGrace
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.orders, p.answers = json.NewEncoder(p.in), json.NewDecoder(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the %s node: %w", p.name, err)
	}
	return p, nil
}

// close ends the guest, the memories and the far processes.
func (r *rig) close() error {
	var errs []error
	if r.guest != nil && r.guest.vm != nil {
		errs = append(errs, r.guest.close())
	}
	if r.side != nil {
		errs = append(errs, r.engine.Close(), r.floor.faults.Interrupt())
	}
	for _, p := range []*farProcess{r.home, r.third} {
		if p == nil {
			continue
		}
		p.in.Close()
		stop := time.AfterFunc(farGrace, func() { p.cmd.Process.Kill() })
		if err := p.cmd.Wait(); err != nil {
			errs = append(errs, fmt.Errorf("the %s node: %w", p.name, err))
		}
		stop.Stop()
	}
	for _, f := range r.wires {
		f.Close()
	}
	return errors.Join(errs...)
}
