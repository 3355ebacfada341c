package vmm

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"coalesce/vcpu/kvm"
	"coalesce/vmm/doctor"
	"coalesce/vmm/tsc"
)

// TestCheckSpan: shadow paging can be allowed, anything else that keeps a host from a guest on several cannot.
func TestCheckSpan(t *testing.T) {
	shadow := &doctor.ShadowPagingError{Measured: "shadow paging (kvm_amd npt=N)", Mend: "sudo modprobe -r kvm_amd && sudo modprobe kvm_amd npt=1"}
	other := errors.New("userfaultfd: this kernel lacks something")
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, []byte("none"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		found error
		allow bool
		want  error
	}{
		{"nested paging", nil, false, nil},
		{"nested paging, allowed", nil, true, nil},
		{"shadow paging", shadow, false, shadow},
		{"shadow paging, allowed", shadow, true, nil},
		{"no userfaultfd", other, false, other},
		{"no userfaultfd, allowed", other, true, other},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			h := &Host{AllowShadowPaging: tt.allow, span: func() error { return tt.found }}
			if err := h.checkSpan(zerolog.New(&log)); err != tt.want {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if warned := strings.Contains(log.String(), shadow.Measured); warned != (tt.found == shadow && tt.allow) {
				t.Errorf("log: %q", log.String())
			}
			// Both roles ask.
			_, err := NewLender(LendConfig{Listen: "127.0.0.1:0:0", CPUs: 1, Host: h})
			if tt.want != nil && err != tt.want || tt.want == nil && err == nil {
				t.Errorf("the lender's error is %v", err)
			}
			c := &client{cfg: RunConfig{Host: h, Kernel: kernel, CPUs: 1, Memory: granule, Lenders: []LenderSpec{{Address: "127.0.0.1:1", CPUs: 1, Distance: DefaultDistance}}}}
			if err := c.prepare(t.Context()); tt.want != nil && err != tt.want || tt.want == nil && err == nil {
				t.Errorf("the client's error is %v", err)
			}
		})
	}
}

// TestFixedTSC: where KVM cannot set a guest's TSC, a guest of this host counts the host's, and one of several hosts may
// join if that is the same to within what a measurement is wrong by.
func TestFixedTSC(t *testing.T) {
	const khz = 2_000_000
	fixed := &kvm.FeatureError{Feature: "a TSC offset"}
	before := tsc.Read()
	offset := (&Host{TSCKHz: khz}).firstTSCOffset()
	if start := uint64(-offset); start < before || start > tsc.Read() {
		t.Errorf("a guest begins at host time %d, between %d and now", start, before)
	}
	if got := (&Host{TSCKHz: khz, FixedTSC: fixed}).firstTSCOffset(); got != 0 {
		t.Errorf("offset %d", got)
	}
	for _, tt := range []struct {
		offset int64
		fixed  error
		ok     bool
	}{
		{0, nil, true}, {-1 << 60, nil, true},
		{0, fixed, true}, {khz, fixed, true}, {-khz, fixed, true}, {khz + 1, fixed, false}, {-khz - 1, fixed, false},
		{math.MinInt64, fixed, false}, {math.MaxInt64, fixed, false},
	} {
		err := (&Host{TSCKHz: khz, FixedTSC: tt.fixed}).checkTSCOffset(tt.offset)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, kvm.ErrNotSupported) {
			t.Errorf("offset %d, fixed %v: %v", tt.offset, tt.fixed, err)
		}
	}
}
