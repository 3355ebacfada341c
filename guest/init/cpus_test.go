package main

import (
	"slices"
	"testing"
)

func TestParseList(t *testing.T) {
	for in, want := range map[string][]int{"0\n": {0}, "0-2,5\n": {0, 1, 2, 5}, "3,7-7": {3, 7}} {
		if got, err := parseList(in); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "2-1", "-1", "0-1024", "1,,2", "99999999999999999999"} {
		if got, err := parseList(in); err == nil {
			t.Errorf("%q: accepted as %v", in, got)
		}
	}
}
