package doctor

import (
	"errors"
	"strings"
	"testing"

	"coalesce/vcpu/kvm"
)

// TestNestedPaging: the probe by itself says what the whole report says.
func TestNestedPaging(t *testing.T) {
	sys, err := kvm.Open(kvm.Device)
	if errors.Is(err, kvm.ErrNotSupported) {
		t.Skip(err)
	} else if err != nil {
		t.Fatal(err)
	}
	defer sys.Close()
	var want Check
	for _, c := range Run(t.Context(), kvm.Device).Checks {
		if c.Name == "nested paging" {
			want = c
		}
	}
	err = NestedPaging(sys)
	var shadow *ShadowPagingError
	if errors.As(err, &shadow) != (want.Status == Missing) || err != nil && shadow == nil {
		t.Fatalf("%v, but the report says %+v", err, want)
	}
	if shadow != nil && (shadow.Mend != want.Mend || !strings.Contains(err.Error(), shadow.Measured) || !strings.Contains(err.Error(), want.Mend)) {
		t.Errorf("%v, but the report says %+v", err, want)
	}
}
