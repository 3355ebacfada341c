package explore

import (
	"fmt"
	"slices"
)

// checkGraph checks what only the whole graph shows.
func (x *search) checkGraph() *Violation {
	if v := x.checkRest(); v != nil {
		return v
	}
	if x.p.Starvation {
		return x.checkStarvation()
	}
	return nil
}

// checkRest looks for a state from which no state at rest can be reached by
// moves that have to happen.
func (x *search) checkRest() *Violation {
	good := x.rests
	// Moves lead mostly to larger numbers, so that few rounds suffice.
	for changed := true; changed; {
		changed = false
		for i := len(x.parent) - 1; i >= 0; i-- {
			if good[i/64]>>(i%64)&1 != 0 {
				continue
			}
			for e := x.offsets[i]; e < x.offsets[i+1]; e++ {
				to := x.edges[e]
				if x.class != nil && x.class[e] == unfair {
					continue
				}
				if good[to/64]>>(to%64)&1 != 0 {
					good[i/64] |= 1 << (i % 64)
					changed = true
					break
				}
			}
		}
	}
	for i := range x.parent {
		if good[i/64]>>(i%64)&1 == 0 {
			return x.violation("from here, all can never come to rest", uint32(i), nil)
		}
	}
	return nil
}

// checkStarvation looks for a set of states that a weakly fair schedule may stay
// in for ever while one access is pending: a strongly connected component of the
// states in which it is, such that each actor moves within it, or cannot move at
// some state of it.
func (x *search) checkStarvation() *Violation {
	var who [8]string
	for k, t := range x.p.Threads {
		who[k] = fmt.Sprintf("vCPU %d on node %d", k, t.Node)
	}
	for i, n := range x.p.Devices {
		who[maxThreads+i] = fmt.Sprintf("the device of node %d", n)
	}
	for k, name := range who {
		if name == "" {
			continue
		}
		if scc := x.fairComponent(1 << k); scc != nil {
			least := scc[0]
			for _, i := range scc {
				least = min(least, i)
			}
			v := x.violation(fmt.Sprintf("%s may wait for ever in a fair schedule (%d states)", name, len(scc)), least, nil)
			v.Trace = append(v.Trace, x.cycle(least, scc)...)
			return v
		}
	}
	return nil
}

// fairComponent returns the states of such a component in which the access in
// mask is pending, by Tarjan's algorithm.
func (x *search) fairComponent(mask uint8) []uint32 {
	n := len(x.parent)
	index := make([]uint32, n) // 0: not seen; else order+1
	low := make([]uint32, n)
	// part is the number of a state's component, 0 before that is known.
	part := make([]uint32, n)
	parts := uint32(0)
	var stack []uint32
	type frame struct {
		v uint32
		e uint64
	}
	var calls []frame
	order := uint32(0)
	for root := range n {
		if index[root] != 0 || x.pending[root]&mask == 0 {
			continue
		}
		enter := func(v uint32) {
			order++
			index[v], low[v] = order, order
			stack = append(stack, v)
			calls = append(calls, frame{v, x.offsets[v]})
		}
		enter(uint32(root))
		for len(calls) > 0 {
			f := &calls[len(calls)-1]
			if f.e < x.offsets[f.v+1] {
				to := x.edges[f.e]
				f.e++
				switch {
				case x.pending[to]&mask == 0:
				case index[to] == 0:
					enter(to)
				case part[to] == 0: // on the stack
					low[f.v] = min(low[f.v], index[to])
				}
				continue
			}
			v := f.v
			calls = calls[:len(calls)-1]
			if len(calls) > 0 {
				u := calls[len(calls)-1].v
				low[u] = min(low[u], low[v])
			}
			if low[v] != index[v] {
				continue
			}
			i := len(stack) - 1
			for stack[i] != v {
				i--
			}
			scc := stack[i:]
			parts++
			for _, u := range scc {
				part[u] = parts
			}
			if x.fair(scc, part) {
				return append([]uint32(nil), scc...)
			}
			stack = stack[:i]
		}
	}
	return nil
}

type classSet [classes / 64]uint64

func (s *classSet) add(c uint8) { s[c/64] |= 1 << (c % 64) }

// fair reports whether a fair schedule can stay in a component.
func (x *search) fair(scc, part []uint32) bool {
	always := classSet{^uint64(0), ^uint64(0)} // classes that can move in every state
	var taken classSet                         // classes that move within
	inside := false
	for _, v := range scc {
		var enabled classSet
		for e := x.offsets[v]; e < x.offsets[v+1]; e++ {
			c := x.class[e]
			stays := part[x.edges[e]] == part[v]
			inside = inside || stays
			if c == unfair {
				continue
			}
			enabled.add(c)
			if stays {
				taken.add(c)
			}
		}
		for i := range always {
			always[i] &= enabled[i]
		}
	}
	for i := range always {
		if always[i]&^taken[i] != 0 {
			return false
		}
	}
	return inside
}

// cycle returns the shortest way from state v back to it within scc, in words.
func (x *search) cycle(v uint32, scc []uint32) []string {
	from := map[uint32]uint32{}
	in := map[uint32]bool{}
	for _, u := range scc {
		in[u] = true
	}
	queue := []uint32{v}
	for i := 0; ; i++ {
		u := queue[i]
		for e := x.offsets[u]; e < x.offsets[u+1]; e++ {
			to := x.edges[e]
			if _, seen := from[to]; !in[to] || seen {
				continue
			}
			from[to] = u
			queue = append(queue, to)
		}
		if _, back := from[v]; back {
			break
		}
	}
	path := []uint32{v}
	for u := from[v]; u != v; u = from[u] {
		path = append(path, u)
	}
	slices.Reverse(path)
	s, _ := x.replay(x.way(v))
	_, words := x.follow(s, path)
	return append([]string{"and then, for instance, again and again:"}, words...)
}
