package vmm

import (
	"errors"
	"testing"

	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
)

// TestReceiveIPI: what a peer may send to this node's APICs, and to the I/O APIC if it is here.
func TestReceiveIPI(t *testing.T) {
	const here, elsewhere = 5, 6
	message := func(dest uint32, mode apic.DestMode) []byte {
		m := apic.Message{Dest: dest, DestMode: mode, From: apic.FromDevice, Vector: 0x40, Assert: true}
		return m.Append(nil)
	}
	for _, tt := range []struct {
		name string
		node link.NodeID
		kind uint8
		body []byte
		good bool
	}{
		{"an APIC here", 1, irqMessage, message(here, apic.Physical), true},
		{"all APICs", 1, irqMessage, message(apic.Broadcast, apic.Physical), true},
		{"the logical id of one here", 1, irqMessage, message(1<<here, apic.Logical), true},
		{"an APIC elsewhere", 1, irqMessage, message(elsewhere, apic.Physical), false},
		{"the logical id of one elsewhere", 1, irqMessage, message(1<<elsewhere, apic.Logical), false},
		{"a message cut off", 1, irqMessage, message(here, apic.Physical)[:4], false},
		{"an EOI", 0, irqEOI, []byte{0x40}, true},
		{"an EOI of no vector", 0, irqEOI, nil, false},
		{"an EOI for a lender", 1, irqEOI, []byte{0x40}, false},
		{"another kind", 1, 99, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &node{id: tt.node, ioapic: func(uint8) {}}
			n.router = apic.NewRouter(n.endOfInterrupt)
			n.router.SetLocal(apic.New(here, false, n.router, vcpu.Clock{}), func() {})
			err := n.receiveIPI(2, &link.Header{Kind: tt.kind}, tt.body)
			if (err == nil) != tt.good {
				t.Errorf("got %v", err)
			}
			if tt.good && tt.kind == irqMessage && n.ipisIn.Load() != 1 {
				t.Errorf("%d IPIs counted", n.ipisIn.Load())
			}
			if err != nil && tt.kind != irqMessage && !errors.Is(err, errMalformedIRQ) {
				t.Errorf("got %v", err)
			}
		})
	}
}
