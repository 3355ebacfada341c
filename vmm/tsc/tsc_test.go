package tsc

import "testing"

func TestReadAdvances(t *testing.T) {
	before := Read()
	for range 1000 {
		if now := Read(); now <= before {
			t.Fatalf("counter went from %d to %d", before, now)
		} else {
			before = now
		}
	}
}
