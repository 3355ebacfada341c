package vmm

import (
	"context"
)

// RunningGuest is a guest in the hands of those who change it while it runs.
// Its methods may be called from any goroutine until Run returns.
type RunningGuest struct{ c *client }

// Pause stops the client's vCPUs at an instruction boundary, and Resume lets
// them go on. A lender's run on meanwhile.
func (g *RunningGuest) Pause(ctx context.Context) error { return g.c.node.vm.Pause(ctx) }

// Resume ends Pause.
func (g *RunningGuest) Resume(ctx context.Context) error { return g.c.node.vm.Resume(ctx) }
