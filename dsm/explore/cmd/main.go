// Explore searches the profiles of package explore, those too large for
// the tests among them, and prints what it did.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/debug"
	"time"

	"coalesce/dsm/explore"
)

func main() {
	only := flag.String("only", "", "search the profiles whose name matches the regular expression")
	list := flag.Bool("list", false, "list the profiles")
	limit := flag.Int("limit", 0, "give a profile up at this many states; 0: never")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "explore: want no arguments and a regular expression for --only (%v)\n", err)
		os.Exit(2)
	}
	// What is large here has no pointers: collecting often costs little, and
	// spares memory.
	debug.SetGCPercent(20)
	failed := false
	for _, p := range explore.Profiles() {
		switch {
		case !match.MatchString(p.Name):
		case *list:
			fmt.Println(p.Name)
		default:
			failed = !search(p, *limit) || failed
		}
	}
	if failed {
		os.Exit(1)
	}
}

// search explores one profile and reports whether no rule is broken.
func search(p explore.Profile, limit int) bool {
	r, err := explore.Explore(p, explore.Options{MaxStates: limit,
		Progress: func(states, frontier, depth int, took time.Duration) {
			fmt.Fprintf(os.Stderr, "%s: %d states, %d to go, depth %d, %.0f s\n", p.Name, states, frontier, depth, took.Seconds())
		}})
	fmt.Printf("%-32s %v\n", p.Name, r)
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
	case r.Violation != nil:
		fmt.Println(r.Violation)
	default:
		return true
	}
	return false
}
