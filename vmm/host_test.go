package vmm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"coalesce/vmm/doctor"
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
