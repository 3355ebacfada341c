package sim

import "coalesce/dsm"

// device pins pages, copies, and lets them go, one at a time.
type device struct {
	n     *node
	dice  dice
	pin   *pinned
	ready <-chan struct{} // nil: the pin is in force
	begun int64           // when it was asked for
	over  bool            // the session ended
}

// pinned is a page that a device has pinned.
type pinned struct {
	node  *node
	page  uint32
	write bool
	dsm.Pinned
}

func (n *node) addDevice(d dice) {
	dev := &device{n: n, dice: d}
	n.devices = append(n.devices, dev)
	dev.idle()
}

// idle waits for the device's next work.
func (d *device) idle() {
	d.n.w.after(d.n.cost(d.dice.spread(5_000, 2_000_000)), d.work)
}

func (d *device) work() {
	n := d.n
	if n.w.stopping() || n.dead || d.over {
		return
	}
	from := [][]uint32{n.w.places.set, n.w.places.hot, n.w.places.tables}[d.dice.IntN(3)]
	p := &pinned{node: n, page: from[d.dice.IntN(len(from))], write: d.dice.chance(0.5)}
	n.w.actor = "device"
	n.w.trace(n, "pins page %#x, write %v", p.page, p.write)
	pin, ready, err := n.driver.Pin(n.kernel.GPA(p.page), dsm.PageSize, p.write)
	if err != nil {
		d.over = true
		n.settle()
		return
	}
	p.Pinned = pin
	d.pin, d.ready, d.begun = p, ready, n.w.now
	if ready == nil {
		d.copy()
	}
	n.flushing++
	n.settle()
	n.w.after(n.cost(costFlush), func() {
		if !n.dead {
			n.driver.Flush()
			n.flushing--
			n.settle()
		}
	})
}

// look sees whether the pin that is waited for is in force, or never will be.
func (d *device) look() {
	if d.ready == nil {
		return
	}
	select {
	case <-d.ready:
		d.ready = nil
		d.copy()
	default:
		if d.n.driver.Engine.Err() != nil {
			d.ready, d.pin, d.over = nil, nil, true
		}
	}
}

const longestCopy = 100_000 // ns

// copy holds the pin for as long as a copy takes.
func (d *device) copy() {
	n, p := d.n, d.pin
	n.w.result.waited(n.w.now - d.begun)
	n.w.trace(n, "device has page %#x, write %v", p.page, p.write)
	n.w.truth.pin(p)
	n.w.after(n.cost(d.dice.spread(500, longestCopy)), func() {
		if n.dead {
			return
		}
		n.w.actor = "device"
		if p.write {
			a := access{page: p.page, write: true, does: scribbles}
			if n.w.places.counts[p.page] && d.dice.chance(0.5) {
				a.does, a.word = adds, d.dice.IntN(counters)
			}
			a.perform(n, d.dice, p.page)
		}
		n.w.trace(n, "device lets page %#x go", p.page)
		n.w.truth.unpin(p)
		p.Release()
		d.pin = nil
		n.settle()
		d.idle()
	})
}
