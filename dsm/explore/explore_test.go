package explore

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestProfiles searches every profile that is small enough.
func TestProfiles(t *testing.T) {
	for _, p := range Profiles() {
		if p.Slow {
			continue
		}
		t.Run(p.Name, func(t *testing.T) {
			r, err := Explore(p, Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Log(r)
			if r.Violation != nil {
				t.Fatal(r.Violation)
			}
		})
	}
}

// TestEncodingAndSymmetry walks through the states of every profile at random.
// Each state must survive being stored, and must lead, under other names, to the
// same states under other names.
func TestEncodingAndSymmetry(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	symmetries := 0
	for _, p := range Profiles() {
		p.Starvation = false // which forgoes symmetry
		x := newSearch(&p, nil, Options{})
		symmetries += len(x.symmetries) - 1
		var s, again state
		for i := range 2000 {
			if i%200 == 0 {
				s = initial(&p)
			}
			if again.restore(&p, s.append(&p, nil)); again != s {
				t.Fatalf("%s: restored as %+v, was %+v", p.Name, again, s)
			}
			next := x.reached(t, &s)
			if i%10 == 0 {
				want := prints(x, next)
				for j := range x.symmetries {
					var named state
					x.rename(&s, &named, &x.symmetries[j])
					if got := prints(x, x.reached(t, &named)); !slices.Equal(got, want) {
						t.Fatalf("%s: %d states follow under the names %+v, %d without", p.Name, len(got), x.symmetries[j], len(want))
					}
				}
			}
			if len(next) == 0 {
				s = initial(&p)
				continue
			}
			s = next[r.IntN(len(next))]
		}
	}
	if symmetries == 0 {
		t.Error("no profile has a symmetry")
	}
}

// reached returns the states that follow s.
func (x *search) reached(t *testing.T, s *state) (next []state) {
	x.each(s, func(to *state, _ []string, broken string) bool {
		if broken != "" {
			t.Fatalf("%s: %s", x.p.Name, broken)
		}
		next = append(next, *to)
		return false
	})
	return next
}

// prints returns the fingerprints of states, sorted, without repetition.
func prints(x *search, states []state) (fps []uint64) {
	for i := range states {
		fps = append(fps, x.fingerprint(&states[i]))
	}
	slices.Sort(fps)
	return slices.Compact(fps)
}
