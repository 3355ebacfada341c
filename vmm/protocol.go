package vmm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"coalesce/dsm"
	"coalesce/link"
)

// Frame kinds of the control class; payloads are JSON.
const (
	ctlSetup      = 1 + iota // client → lender: setup
	ctlReady                 // lender → client
	ctlLinked                // lender → client: every link of it stands
	ctlStart                 // client → lender
	ctlReport                // client → lender: asks; lender → client: NodeReport
	ctlStop                  // client → lender: the session ends; lender → client: it knows
	ctlFailed                // either way: failed
	ctlClock                 // client → lender: question, which sets the guest's clock forward; lender → client: clockAnswer
	ctlStatistics            // client → lender: question; lender → client: statisticsAnswer
	ctlTrace                 // client → lender: question, which ends the recording; lender → client: traceAnswer
)

// ask is the payload of a client's control Hello: what it wants to borrow.
type ask struct {
	CPUs   int    `json:"cpus"`
	Memory uint64 `json:"memory"` // bytes
}

// offer is the payload of the lender's Welcome: what it lends at most.
type offer struct {
	CPUs   int    `json:"cpus"`
	Memory uint64 `json:"memory"`
}

// setup tells a lender everything about the guest that it becomes part of.
type setup struct {
	Node      link.NodeID   `json:"node"`
	Shares    []Share       `json:"shares"`
	View      uint32        `json:"view"`
	CPUID     []byte        `json:"cpuid"`       // feature set common to all nodes
	TSCKHz    uint32        `json:"tsc_khz"`     // the guest's
	TSCOffset int64         `json:"tsc_offset"`  // guest TSC minus the lender's
	Hold      time.Duration `json:"hold_ns"`     // fixed minimum hold of a page, or 0
	Transfer  time.Duration `json:"transfer_ns"` // first guess of a page's transfer time
	Trace     bool          `json:"trace,omitempty"`
	// Dial lists the page, interrupt links this lender makes itself, to the
	// lenders with a smaller node id.
	Dial []peerAddress `json:"dial,omitempty"`
}

type peerAddress struct {
	Node    link.NodeID `json:"node"`
	Address string      `json:"address"`
}

// failed says why a side ends the session.
type failed struct {
	Error string `json:"error"`
	// Reset: the guest asked for it, by a triple fault of a lender's vCPU.
	Reset bool `json:"reset,omitempty"`
	// Lost is the fellow lender whose connection broke, if that is why; 0 is none.
	Lost link.NodeID `json:"lost,omitempty"`
}

// maxReason bounds, in bytes, what is shown of a peer's reason.
const maxReason = 1 << 10

// reason is what the peer said, fit to be shown.
func (f *failed) reason() error { return errors.New(link.Printable(f.Error, maxReason)) }

// NodeReport is what one node did for the guest.
type NodeReport struct {
	Node     link.NodeID   `json:"node"`
	Name     string        `json:"name"`
	CPUs     []CPUReport   `json:"cpus"`
	Memory   dsm.Stats     `json:"memory"`
	IPIsOut  uint64        `json:"ipis_out"`    // interrupt messages sent to other nodes
	IPIsIn   uint64        `json:"ipis_in"`     // received from other nodes
	Forward  uint64        `json:"forwarded"`   // device accesses sent to the client
	Resident uint64        `json:"resident"`    // bytes of guest memory held here
	RTT      time.Duration `json:"rtt_ns"`      // smallest seen from the client; filled in there
	TSCError uint64        `json:"tsc_error"`   // bound of the offset's error, cycles; filled in there
	Waits    uint64        `json:"stamp_waits"` // frames held until this node's clock had passed their stamp
	Clock    ClockSteps    `json:"clock"`       // how the guest's clock was kept; filled in by the client
}

// CPUReport is what one vCPU did.
type CPUReport struct {
	ID         int               `json:"id"`
	APICID     uint32            `json:"apic_id"`
	Time       time.Duration     `json:"time_ns"` // its thread's CPU time
	Entries    uint64            `json:"entries"`
	Interrupts uint64            `json:"interrupts"`
	Kicks      uint64            `json:"kicks"`
	Exits      map[string]uint64 `json:"exits"`
}

// sendControl sends one control message.
func sendControl(c *link.Conn, kind uint8, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode control message %d: %w", kind, err)
	}
	if err := c.Send(link.Header{Kind: kind}, b); err != nil {
		return fmt.Errorf("send control message %d: %w", kind, err)
	}
	return nil
}

var errMalformedControl = errors.New("malformed control message")

// decodeControl parses a control message strictly: a field this build does not
// know means a peer that means something else. Its errors wrap
// errMalformedControl and nothing else, so that the end of a message is never
// taken for the end of a connection.
func decodeControl(b []byte, v any) error {
	if len(b) == 0 {
		return fmt.Errorf("%w: it is empty", errMalformedControl)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %v", errMalformedControl, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: more follows it", errMalformedControl)
	}
	return nil
}
