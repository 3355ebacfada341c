package sim

import (
	"encoding/binary"

	"coalesce/dsm"
)

// access is what an instruction does to one page.
type access struct {
	page  uint32
	word  int
	write bool
	does  effect
}

// effect is what an instruction writes.
type effect uint8

const (
	reads     effect = iota
	adds             // 1 to a counter
	scribbles        // on a few words
	fills            // all words, but for counters
	copies           // those of the instruction's first page
	rewrites         // what is there
)

// Words of a page: the first of a hot one are counters.
const (
	counters  = 64
	pageWords = dsm.PageSize / 8
)

// instruction needs all its pages at once.
type instruction struct {
	accesses []access
}

func (in *instruction) reset() { in.accesses = in.accesses[:0] }

func (in *instruction) add(page uint32, does effect, word int) {
	in.accesses = append(in.accesses, access{page: page, word: word, write: does != reads, does: does})
}

// perform does what the instruction does, on the node and in truth. Its pages are there.
func (in *instruction) perform(n *node, d dice) {
	for i := range in.accesses {
		a := &in.accesses[i]
		n.w.truth.holds(n, a.page, "is used")
		a.perform(n, d, in.accesses[0].page)
	}
}

// perform changes a page that may be written on the node, and what it must hold.
func (a *access) perform(n *node, d dice, first uint32) {
	t := &n.w.truth
	if !a.write {
		return
	}
	copyOf, truth := n.kernel.bytes(a.page), t.write(a.page)
	set := func(word int, v uint64) {
		binary.LittleEndian.PutUint64(copyOf[8*word:], v)
		binary.LittleEndian.PutUint64(truth[8*word:], v)
	}
	switch a.does {
	case adds:
		set(a.word, binary.LittleEndian.Uint64(copyOf[8*a.word:])+1)
		t.counted[counter{a.page, a.word}]++
	case scribbles:
		for range d.upTo(4) {
			set(counters+d.IntN(pageWords-counters), d.Uint64N(1<<(8*uint(d.upTo(7)))))
		}
	case fills:
		for word := n.w.places.free(a.page); word < pageWords; word++ {
			set(word, d.Uint64())
		}
	case copies:
		at := 8 * n.w.places.free(a.page)
		copy(copyOf[at:], t.page(first)[at:])
		copy(truth[at:], t.page(first)[at:])
	}
}

// places are the pages of a scenario's programs.
type places struct {
	hot, tables, set []uint32
	counts           map[uint32]bool // has counters
}

// free returns the first word of a page that is not a counter.
func (p *places) free(page uint32) int {
	if p.counts[page] {
		return counters
	}
	return 0
}

func newPlaces(s *Scenario, d dice) places {
	// Runs of neighbours, as memory is used.
	some := func(n, run int) (pages []uint32) {
		for len(pages) < n {
			first := d.IntN(s.Pages())
			for p := first; p < min(first+d.upTo(run), s.Pages()) && len(pages) < n; p++ {
				pages = append(pages, uint32(p))
			}
		}
		return pages
	}
	p := places{hot: some(s.Hot, 3), tables: some(s.Tables, 4), set: some(s.Set, 40), counts: map[uint32]bool{}}
	for _, page := range p.hot {
		p.counts[page] = true
	}
	return p
}

const (
	kindRoamer = 0
	numKinds   = 7
)

// program is what a vCPU executes: instructions drawn from a mix of its own.
type program struct {
	w    *World
	dice dice
	mine []uint32 // pages that few others use
	mix  [numKinds]int
	sum  int
	// Chances that it computes, exits or halts instead of executing one.
	computes, exits, halts float64

	scan    uint32 // where it scans
	stride  uint32 // and how far it goes each time
	migrant uint32 // the page it has just read
	moving  bool
	single  bool // one page at a time: a stranger has nothing but luck
}

// kinds are the kinds of instructions.
var kinds = [numKinds]func(*program, *instruction){
	kindRoamer: (*program).roamer,
	1:          (*program).adder, (*program).wide, (*program).scanner, (*program).migrates, (*program).copier, (*program).local,
}

func newProgram(w *World, n *node, d dice) program {
	p := program{w: w, dice: d, scan: uint32(d.IntN(w.sc.Pages()))}
	p.stride = scanStrides(uint32(w.sc.Pages()))[p.scan%8]
	for p.sum == 0 {
		for i := range p.mix {
			p.mix[i] = 0
			if d.chance(0.4) {
				p.mix[i] = d.upTo(10)
			}
			p.sum += p.mix[i]
		}
	}
	p.computes, p.exits, p.halts = d.Float64()*0.5, d.Float64()*0.1, d.Float64()*0.05
	if d.chance(0.3) {
		p.exits = 0 // only its CPU time proves its progress
	}
	first := uint32(0)
	for r, home := range w.sc.Homes {
		if home == n.id {
			first = uint32(r) * dsm.RegionPages
		}
	}
	for range 30 {
		p.mine = append(p.mine, first+uint32(d.IntN(dsm.RegionPages)))
	}
	return p
}

func (p *program) draw(in *instruction) {
	in.reset()
	pick := p.dice.IntN(p.sum)
	for i, weight := range p.mix {
		if pick -= weight; pick < 0 {
			kinds[i](p, in)
			return
		}
	}
}

func (p *program) one(of []uint32) uint32 { return of[p.dice.IntN(len(of))] }

// written draws an effect that is not a counter's.
func (p *program) written() effect {
	switch i := p.dice.IntN(20); {
	case i < 3:
		return rewrites
	case i < 5:
		return fills
	}
	return scribbles
}

func (p *program) maybeWritten(chance float64) effect {
	if p.dice.chance(chance) {
		return p.written()
	}
	return reads
}

// adder counts in a word of a hot page.
func (p *program) adder(in *instruction) {
	in.add(p.one(p.w.places.hot), adds, p.dice.IntN(counters))
}

// roamer uses one to three pages of the set.
func (p *program) roamer(in *instruction) {
	pages := p.dice.upTo(3)
	if p.single {
		pages = 1
	}
	for range pages {
		in.add(p.one(p.w.places.set), p.maybeWritten(0.3), 0)
	}
}

// wide needs many pages at once, as an instruction does whose operands cross
// pages, with the page tables that lead to them, which the processor writes.
func (p *program) wide(in *instruction) {
	tables := p.w.places.tables
	first := p.dice.IntN(len(tables))
	for i := range 1 + p.dice.upTo(p.w.sc.Wide-1) {
		does := p.maybeWritten(0.3)
		if does == reads && p.dice.chance(0.5) {
			does = rewrites // the accessed bit is set already
		}
		in.add(tables[(first+i)%len(tables)], does, 0)
	}
}

// scanStrides are how far apart the pages of scans are, in a memory of so many.
func scanStrides(pages uint32) [8]uint32 {
	return [8]uint32{1, 1, 1, 1, pages - 1, 3, pages - 2, 70}
}

// scanner reads or fills pages one after the other, a stride apart, all round the
// memory.
func (p *program) scanner(in *instruction) {
	in.add(p.scan, p.maybeWritten(0.1), 0)
	p.scan = (p.scan + p.stride) % uint32(p.w.sc.Pages())
	if p.dice.chance(0.02) {
		p.scan = uint32(p.dice.IntN(p.w.sc.Pages()))
	}
}

// migrates reads a page and writes it next.
func (p *program) migrates(in *instruction) {
	if p.moving {
		in.add(p.migrant, scribbles, 0)
	} else {
		p.migrant = p.one(p.w.places.set[:min(16, len(p.w.places.set))])
		in.add(p.migrant, reads, 0)
	}
	p.moving = !p.moving
}

// copier copies a page to another.
func (p *program) copier(in *instruction) {
	in.add(p.one(p.w.places.set), reads, 0)
	in.add(p.one(p.w.places.set), copies, 0)
}

// local uses its own pages.
func (p *program) local(in *instruction) { in.add(p.one(p.mine), p.maybeWritten(0.5), 0) }

// handlerPages is how many pages an instruction of a handler needs at most.
const handlerPages = 4

// drawKernel draws an instruction of an interrupt's handler: kernels have pages
// that all their CPUs write.
func (p *program) drawKernel(in *instruction) {
	in.reset()
	for range p.dice.upTo(handlerPages) {
		in.add(p.one(p.w.places.tables[:min(6, len(p.w.places.tables))]), p.maybeWritten(0.6), 0)
	}
}
