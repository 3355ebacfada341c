package explore

import (
	"slices"

	"coalesce/dsm"
)

// symmetry renames nodes, pages and threads so that the profile stays the same.
type symmetry struct {
	nodes   [dsm.MaxNodes]dsm.NodeID
	pages   [maxPages]uint8
	threads [maxThreads]uint8
	instrs  [maxThreads][16]uint8 // of a thread: its instructions' numbers in its image
}

// symmetries returns all of a profile's, the identity first.
func (p *Profile) symmetries() (all []symmetry) {
	for nodes := range permutations(p.Nodes) {
		for pages := range permutations(len(p.Homes)) {
			for threads := range permutations(len(p.Threads)) {
				if m, ok := p.symmetry(nodes, pages, threads); ok {
					all = append(all, m)
				}
				if p.Starvation {
					return all // the identity
				}
			}
		}
	}
	return all
}

// permutations yields every permutation of 0..n-1, the identity first.
func permutations(n int) func(yield func([]uint8) bool) {
	return func(yield func([]uint8) bool) {
		p := make([]uint8, n)
		for i := range p {
			p[i] = uint8(i)
		}
		for {
			if !yield(p) {
				return
			}
			i := n - 2
			for ; i >= 0 && p[i] > p[i+1]; i-- {
			}
			if i < 0 {
				return
			}
			j := n - 1
			for p[j] < p[i] {
				j--
			}
			p[i], p[j] = p[j], p[i]
			slices.Reverse(p[i+1:])
		}
	}
}

// symmetry returns the renaming, unless the profile tells the names apart.
func (p *Profile) symmetry(nodes, pages, threads []uint8) (m symmetry, ok bool) {
	for i := range m.nodes {
		m.nodes[i] = dsm.NodeID(i)
	}
	for n, to := range nodes {
		m.nodes[n] = dsm.NodeID(to)
	}
	copy(m.pages[:], pages)
	copy(m.threads[:], threads)
	if p.Token && m.nodes[0] != 0 {
		return m, false
	}
	for i, home := range p.Homes {
		if p.Homes[pages[i]] != m.nodes[home] {
			return m, false
		}
	}
	for _, n := range p.Devices {
		if !slices.Contains(p.Devices, m.nodes[n]) {
			return m, false
		}
	}
	for k := range p.Threads {
		t, to := &p.Threads[k], &p.Threads[threads[k]]
		if to.Node != m.nodes[t.Node] || to.Once != t.Once || len(to.Program) != len(t.Program) {
			return m, false
		}
		for i, instr := range t.Program {
			image := make(Instr, len(instr))
			for x, a := range instr {
				image[x] = Access{pages[a.Page], a.Write}
			}
			j := slices.IndexFunc(to.Program, func(other Instr) bool { return slices.Equal(image, other) })
			if t.Once {
				j = i
			}
			if j < 0 || !slices.Equal(image, to.Program[j]) {
				return m, false
			}
			m.instrs[k][i] = uint8(j)
		}
	}
	return m, true
}

// rename sets to to s with other names.
func (w *world) rename(s, to *state, m *symmetry) {
	p := w.p
	*to = state{budget: s.budget}
	for i := range p.Homes {
		d := &to.dirs[m.pages[i]]
		*d = s.dirs[i]
		d.Rename(&m.nodes)
		for n := range p.Nodes {
			c := &to.copies[m.nodes[n]][m.pages[i]]
			*c = s.copies[n][i]
			if k := c.page.Deferred; k == dsm.FwdRead || k == dsm.FwdWrite {
				c.page.DeferredTo = m.nodes[c.page.DeferredTo]
			}
			c.holds.lineage.Holders = m.set(c.holds.lineage.Holders)
			r := &to.parts[m.pages[i]][m.nodes[n]]
			*r = s.parts[i][n]
			r.holders = m.set(r.holders)
		}
		to.last[m.pages[i]] = s.last[i]
	}
	for from := range p.Nodes {
		for n := range p.Nodes {
			l, r := &s.links[from][n], &to.links[m.nodes[from]][m.nodes[n]]
			r.n = l.n
			for i := range l.n {
				r.m[i] = m.msg(l.m[i])
			}
		}
		d := &to.devices[m.nodes[from]]
		*d = s.devices[from]
		if d.phase != idle {
			d.page = m.pages[d.page]
		}
		if p.Token && s.holding[from] > 0 {
			to.holding[m.nodes[from]] = m.threads[s.holding[from]-1] + 1
		}
	}
	for k := range p.Threads {
		t := &to.threads[m.threads[k]]
		*t = s.threads[k]
		switch t.phase {
		case asleep:
			t.page = m.pages[t.page]
			t.instr = m.instrs[k][t.instr]
		case awake:
			t.instr = m.instrs[k][t.instr]
		}
		if p.Token {
			w.renameStreak(t, m)
		}
	}
	for i := range s.extra {
		f := &to.extra[i]
		if *f = s.extra[i]; f.on {
			f.page, f.thread = m.pages[f.page], m.threads[f.thread]
		}
	}
	if p.Token {
		to.tokens.n = s.tokens.n
		for i := range s.tokens.n {
			to.tokens.threads[i] = m.threads[s.tokens.threads[i]]
		}
		for kind := range s.bag {
			for k := range p.Threads {
				to.bag[kind] |= s.bag[kind] >> k & 1 << m.threads[k]
			}
		}
	}
	for n := range p.Nodes {
		if s.pend[n].on {
			to.pend[m.nodes[n]] = m.pending(s.pend[n])
		}
	}
	if p.Contents {
		to.renumber(p)
	}
}

func (m *symmetry) set(s dsm.NodeSet) (r dsm.NodeSet) {
	for n := range dsm.NodeID(maxNodes) {
		if s.Has(n) {
			r = r.With(m.nodes[n])
		}
	}
	return r
}

func (m *symmetry) pending(q pending) pending {
	q.page, q.from = m.pages[q.page], m.nodes[q.from]
	for i := range q.nacts {
		a := &q.acts[i]
		if a.op == dsm.OpSend {
			a.to, a.msg = m.nodes[a.to], m.msg(a.msg)
		}
	}
	for i := range q.nself {
		q.self[i] = m.msg(q.self[i])
	}
	return q
}

// renameStreak renames the pages that a thread's token state names.
func (w *world) renameStreak(t *thread, m *symmetry) {
	if t.promote > 0 {
		t.promote = m.pages[t.promote-1] + 1
	}
	var set uint8
	for i := range w.p.Homes {
		set |= t.pages >> i & 1 << m.pages[i]
	}
	t.pages = set
	w.streak.Restore(t.streak[:])
	for i, page := range w.streak.Pages() {
		w.streak.Pages()[i] = uint32(m.pages[page])
	}
	t.streak = [len(t.streak)]byte{}
	w.streak.Append(t.streak[:0])
}

func (m *symmetry) msg(x msg) msg {
	switch {
	case x.kind >= dsm.TokenReq:
		x.page = m.threads[x.page]
		return x
	case x.kind == dsm.FwdRead || x.kind == dsm.FwdWrite || x.kind == dsm.Done:
		x.peer = m.nodes[x.peer]
	}
	x.page = m.pages[x.page]
	return x
}
