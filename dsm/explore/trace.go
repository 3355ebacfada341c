package explore

import (
	"slices"
	"strings"
)

// violation describes a broken rule: the moves to state id, the move that breaks
// it, if it is not the state itself, and what is left to do.
func (x *search) violation(what string, id uint32, last *move) *Violation {
	s, trace := x.replay(x.way(id))
	if last != nil {
		trace = append(trace, x.breaking(&s)...)
	}
	x.s = &s
	return &Violation{What: what, Trace: trace, State: x.describe()}
}

// way returns the numbers of the states on the shortest way to id, without the
// first state's.
func (x *search) way(id uint32) (path []uint32) {
	for ; id != 0; id = x.parent[id] {
		path = append(path, id)
	}
	slices.Reverse(path)
	return path
}

// replay follows a path from the first state.
func (x *search) replay(path []uint32) (state, []string) {
	return x.follow(initial(x.p), path)
}

// follow makes the moves that lead from s through the states of path, and returns
// the last and the moves in words. The names are those of s throughout.
func (x *search) follow(s state, path []uint32) (state, []string) {
	var trace []string
	for _, id := range path {
		x.each(&s, func(t *state, words []string, broken string) bool {
			if broken != "" || x.fingerprint(t) != x.seen.of[id] {
				return false
			}
			s = *t
			trace = append(trace, strings.Join(words, "; "))
			return true
		})
	}
	return s, trace
}

// breaking makes the move from s that breaks a rule.
func (x *search) breaking(s *state) (trace []string) {
	x.each(s, func(t *state, words []string, broken string) bool {
		if broken == "" {
			return false
		}
		*s = *t
		trace = []string{strings.Join(words, "; ")}
		return true
	})
	return trace
}

// each makes every move from s, until f returns true.
func (x *search) each(s *state, f func(t *state, words []string, broken string) bool) {
	from := *s
	for _, m := range x.moves(&from, nil) {
		x.tape = tape{}
		for {
			var words []string
			x.words = &words
			t := from
			broken := x.try(&t, m)
			x.words = nil
			if f(&t, words, broken) {
				return
			}
			if !x.tape.next() {
				break
			}
		}
	}
}
