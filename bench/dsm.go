package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Options are what a run can be told.
type Options struct {
	Device string // of KVM
	// Rounds is how often each line is measured, floor and product.
	Rounds int
	JSON   bool
	Out    io.Writer // the table
	// Progress is told what is about to be measured; round 0 is for warming up.
	Progress func(round, rounds int, what string)
	// FarArgs make this program call Far, with its role behind them.
	FarArgs []string

	readBits uint8 // of Memory, for tests; 0: the constant
}

// DSM measures the memory protocol and prints a table. It pins this process,
// which is good for nothing else after.
func DSM(ctx context.Context, o Options) error {
	t := table{Lines: make([]result, len(lines))}
	// The crowd first: it must not inherit the pinning.
	if err := measureCrowd(ctx, &o, &t); err != nil {
		return fmt.Errorf("nodes that count in one page: %w", err)
	}
	if err := measureLines(ctx, &o, &t); err != nil {
		return err
	}
	if err := measureScan(ctx, &o, &t); err != nil {
		return fmt.Errorf("scans: %w", err)
	}
	if o.JSON {
		return t.json(o.Out)
	}
	return t.text(o.Out)
}

// measureLines times movements of pages and counts a group's frames.
func measureLines(ctx context.Context, o *Options, t *table) (err error) {
	r, err := newRig(ctx, o.Device, o.FarArgs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	for round := range o.Rounds + 1 {
		for i := range lines {
			o.Progress(round, o.Rounds, lines[i].name)
			floor, product, err := r.round(ctx, &lines[i])
			if err != nil {
				return err
			}
			if round > 0 { // everything was touched for the first time in round 0
				t.Lines[i].add(floor, product)
			}
		}
	}
	for i := range lines {
		t.Lines[i].judge(&lines[i])
	}
	b, err := r.bounceGroup(ctx, 40)
	if err != nil {
		return fmt.Errorf("group of pages: %w", err)
	}
	t.bounce(b)
	return nil
}
