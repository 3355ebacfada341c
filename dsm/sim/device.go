package sim

import "coalesce/dsm"

// device pins pages, copies, and lets them go, one at a time.
type device struct {
	n     *node
	dice  dice
	t     *thread
	pin   *pinned         // that it has, or waits for
	ready <-chan struct{} // nil: it does not wait
}

// pinned is a page that a device has pinned.
type pinned struct {
	node  *node
	page  uint32
	write bool
	dsm.Pinned
}

const longestCopy = 100_000 // ns

func (n *node) addDevice(d dice) {
	dev := &device{n: n, dice: d}
	dev.t = n.spawn("device", dev.run)
	dev.t.wakeIn(1)
	n.devices = append(n.devices, dev)
}

func (d *device) run(t *thread) {
	n, w := d.n, d.n.w
	for {
		t.sleep(n.cost(d.dice.spread(5_000, 2_000_000)))
		if w.stopping() {
			return
		}
		from := [][]uint32{w.places.set, w.places.hot, w.places.tables}[d.dice.IntN(3)]
		p := &pinned{node: n, page: from[d.dice.IntN(len(from))], write: d.dice.chance(0.5)}
		if !d.get(t, p) {
			return // the session is over
		}
		w.trace(n, "has page %#x, write %v", p.page, p.write)
		w.truth.pin(p)
		t.sleep(n.cost(d.dice.spread(500, longestCopy)))
		if p.write {
			a := access{page: p.page, write: true, does: scribbles}
			if w.places.counts[p.page] && d.dice.chance(0.5) {
				a.does, a.word = adds, d.dice.IntN(counters)
			}
			a.perform(n, d.dice, p.page)
		}
		w.trace(n, "lets page %#x go", p.page)
		w.truth.unpin(p)
		d.pin = nil
		n.callFlushed(p.Release)
	}
}

// get pins a page, as Engine.Pin does.
func (d *device) get(t *thread, p *pinned) bool {
	n, begun := d.n, d.n.w.now
	n.w.trace(n, "pins page %#x, write %v", p.page, p.write)
	var err error
	var ready <-chan struct{}
	n.owing++
	n.call(func() { p.Pinned, ready, err = n.driver.Pin(n.kernel.GPA(p.page), dsm.PageSize, p.write) })
	d.pin, d.ready = p, ready
	t.sleep(n.cost(costFlush))
	n.call(n.driver.Flush)
	n.owing--
	n.settle()
	if err != nil {
		d.pin = nil
		return false
	}
	for d.look(); d.ready != nil; {
		t.park()
	}
	n.w.result.waited(n.w.now - begun)
	return d.pin != nil
}

// look sees whether the pin that is waited for is in force, or never will be.
func (d *device) look() {
	if d.ready == nil {
		return
	}
	select {
	case <-d.ready:
	default:
		if d.n.driver.Engine.Err() == nil {
			return
		}
		d.pin = nil
	}
	d.ready = nil
	d.t.wakeIn(1)
}
