package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// farProcess is a far node as the bench sees it.
type farProcess struct {
	node    int
	cmd     *exec.Cmd
	in      io.WriteCloser
	orders  *json.Encoder
	answers *json.Decoder
}

// farGrace is how long a far process may take to end once its orders do.
const farGrace = 5 * time.Second

// startFar starts this program as a far node: with args and its role behind them.
// Its files are inherited.
func startFar(ctx context.Context, args []string, ro role, files []*os.File) (*farProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program to run it as another node: %w", err)
	}
	text, err := json.Marshal(ro)
	if err != nil {
		return nil, err
	}
	p := &farProcess{node: ro.Self}
	p.cmd = exec.CommandContext(ctx, self, append(append([]string(nil), args...), string(text))...)
	p.cmd.ExtraFiles = files
	// It starts where this process is pinned, and would take that for all there is.
	p.cmd.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", runtime.GOMAXPROCS(0)))
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
		return nil, fmt.Errorf("start node %d: %w", p.node, err)
	}
	return p, nil
}

// tell has the far node do something and returns its answer.
func (p *farProcess) tell(o order) (answer, error) {
	var a answer
	if err := p.orders.Encode(o); err != nil {
		return a, fmt.Errorf("tell node %d to %s: %w", p.node, o.Do, err)
	}
	if err := p.answers.Decode(&a); err != nil {
		return a, fmt.Errorf("node %d, told to %s, has ended: %w", p.node, o.Do, err)
	}
	if a.Error != "" {
		return a, fmt.Errorf("node %d, told to %s: %s", p.node, o.Do, a.Error)
	}
	return a, nil
}

// touch has the far node's thread access pages of the product.
func (p *farProcess) touch(pages []uint32, write bool) error {
	_, err := p.tell(order{Do: "touch", Write: write, Pages: pages})
	return err
}

// stop ends the far node.
func (p *farProcess) stop() error {
	p.in.Close()
	late := time.AfterFunc(farGrace, func() { p.cmd.Process.Kill() })
	defer late.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("node %d: %w", p.node, err)
	}
	return nil
}

// mesh is a wire between every two of some nodes: at [a][b] a's end of that to b.
type mesh [][]*os.File

func newMesh(nodes int) (mesh, error) {
	m := make(mesh, nodes)
	for a := range m {
		m[a] = make([]*os.File, nodes)
	}
	for a := range m {
		for b := a + 1; b < nodes; b++ {
			var err error
			if m[a][b], m[b][a], err = wire(); err != nil {
				return nil, errors.Join(err, m.close())
			}
		}
	}
	return m, nil
}

// of returns a node's ends to the others, in the order of their ids.
func (m mesh) of(node int) (files []*os.File) {
	for n, f := range m[node] {
		if n != node {
			files = append(files, f)
		}
	}
	return files
}

// close closes the ends of some nodes, of all if none is named.
func (m mesh) close(of ...int) error {
	if len(of) == 0 {
		for n := range m {
			of = append(of, n)
		}
	}
	var errs []error
	for _, n := range of {
		for _, f := range m[n] {
			if f != nil {
				errs = append(errs, f.Close())
			}
		}
	}
	return errors.Join(errs...)
}
