package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
)

// line is one kind of page movement: how to bring the pages into the state
// before it, and what then moves them, in the product and in the floor.
type line struct {
	name        string
	write       bool
	p50, p99    float64 // at most, times the floor
	hop         hop
	product     func(r *rig, pages []uint32) error
	floor       func(ctx context.Context, r *rig, pages []uint32) error
	floorPhrase string
}

// lines are the movements that are timed.
var lines = []line{
	{
		name: "read, clean at its home", hop: hopCopy, p50: 1.25, p99: 1.5,
		// The third node writes and the home reads: it has a copy to give away.
		product: func(r *rig, pages []uint32) error {
			if err := r.third.touch(pages, true); err != nil {
				return err
			}
			return r.home.touch(pages, false)
		},
		floor:       func(_ context.Context, r *rig, _ []uint32) error { return r.floor.zapAll() },
		floorPhrase: "ask, 4 KiB back",
	},
	{
		name: "read, dirty at its home", hop: hopProtect, p50: 1.25, p99: 1.5,
		product:     func(r *rig, pages []uint32) error { return r.home.touch(pages, true) },
		floor:       func(_ context.Context, r *rig, _ []uint32) error { return r.mapFloor(r.home) },
		floorPhrase: "ask, write-protect, 4 KiB back",
	},
	{
		name: "read, dirty at a third node", hop: hopRelay, p50: 1.25,
		product:     func(r *rig, pages []uint32) error { return r.third.touch(pages, true) },
		floor:       func(_ context.Context, r *rig, _ []uint32) error { return r.mapFloor(r.third) },
		floorPhrase: "ask, pass on, write-protect, 4 KiB back",
	},
	{
		name: "write to a copy, another at its home", write: true, hop: hopZap, p50: 1.25,
		product: func(r *rig, pages []uint32) error {
			if err := r.home.touch(pages, true); err != nil {
				return err
			}
			_, err := r.guest.access(context.Background(), productGPA, pages, false)
			return err
		},
		floor: func(ctx context.Context, r *rig, pages []uint32) error {
			if err := r.mapFloor(r.home); err != nil {
				return err
			}
			r.client.hop.Store(uint32(hopCopy))
			_, err := r.guest.access(ctx, floorGPA, pages, false)
			return err
		},
		floorPhrase: "ask, unmap, 16 bytes back",
	},
}

// mapFloor has the floor's pages mapped at a far node and not here.
func (r *rig) mapFloor(at *farProcess) error {
	if _, err := at.tell(order{Do: "floor-map"}); err != nil {
		return err
	}
	return r.floor.zapAll()
}

// round measures a line once: the floor and the product one after the other, in
// an order that chance decides, over the same pages in the same order.
func (r *rig) round(ctx context.Context, l *line) (floor, product batch, err error) {
	pages := make([]uint32, benchPages)
	// A new order each time: what follows what is not to be learnt.
	for i, p := range rand.Perm(benchPages) {
		pages[i] = uint32(p)
	}
	measure := func(b *batch, gpa uint64, prepare func() error) error {
		if err := prepare(); err != nil {
			return fmt.Errorf("%s: prepare: %w", l.name, err)
		}
		before, err := r.usage()
		if err != nil {
			return err
		}
		if b.ns, err = r.guest.access(ctx, gpa, pages, l.write); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		after, err := r.usage()
		b.cpu = float64(after-before) / float64(len(pages))
		return err
	}
	doFloor := func() error {
		return measure(&floor, floorGPA, func() error {
			if err := l.floor(ctx, r, pages); err != nil {
				return err
			}
			r.client.hop.Store(uint32(l.hop))
			return nil
		})
	}
	doProduct := func() error {
		return measure(&product, productGPA, func() error { return l.product(r, pages) })
	}
	both := []func() error{doFloor, doProduct}
	if rand.IntN(2) == 0 {
		both[0], both[1] = both[1], both[0]
	}
	for _, do := range both {
		if err := do(); err != nil {
			return floor, product, err
		}
	}
	return floor, product, nil
}

// groupPages is how many pages a kernel's page tables bounce in.
const groupPages = 12

// bounce is the traffic of a group of pages, each of which both nodes write to in
// turn, per move of the group.
type bounce struct{ roundTrips, bytes float64 }

// bounceGroup has the vCPU and a thread at the home write 8 bytes of each page of
// a group in turns.
func (r *rig) bounceGroup(ctx context.Context, turns int) (bounce, error) {
	pages := make([]uint32, groupPages)
	for i := range pages {
		pages[i] = uint32(17 + 29*i) // not neighbours
	}
	turn := func() error {
		if _, err := r.guest.access(ctx, productGPA, pages, true); err != nil {
			return err
		}
		return r.home.touch(pages, true)
	}
	for range turns { // learning
		if err := turn(); err != nil {
			return bounce{}, err
		}
	}
	frames, bytes := r.traffic()
	for range turns {
		if err := turn(); err != nil {
			return bounce{}, err
		}
	}
	framesAfter, bytesAfter := r.traffic()
	moves := float64(2 * turns)
	return bounce{float64(framesAfter-frames) / 2 / moves, float64(bytesAfter-bytes) / moves}, nil
}
