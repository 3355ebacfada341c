// Package labtest is what the whole-system tests share besides their hosts.
package labtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Saw prints what a test has seen, also when it passes.
func Saw(t *testing.T, format string, args ...any) {
	fmt.Printf("%s: %s\n", strings.TrimPrefix(t.Name(), "Test"), fmt.Sprintf(format, args...))
}

// Within is the test's context with a time limit.
func Within(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("not within %v", limit))
	t.Cleanup(cancel)
	return ctx
}
