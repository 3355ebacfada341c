package vcpu

import (
	"encoding/binary"
	"errors"
	"fmt"

	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
)

// An encoded State, little endian: version u16; registers, special registers,
// events and debug registers as in KVM's structures; the APIC's state; then
// counted by u16 the XCRs (index u32, value u64) and the MSRs (the same), and
// counted by u32 the bytes of the XSAVE image.
const (
	stateVersion   = 1
	maxStateXCRs   = 16
	maxStateMSRs   = 512
	minXSAVE       = 576      // legacy area and header
	maxXSAVE       = 64 << 10 // four times what any processor uses
	indexedBytes   = 12       // of an encoded XCR or MSR
	stateFixedSize = 2 + 0x90 + 0x138 + 0x40 + 0x80 + apic.StateSize

	// MaxStateBytes bounds an encoded State.
	MaxStateBytes = stateFixedSize + 2 + maxStateXCRs*indexedBytes + 2 + maxStateMSRs*indexedBytes + 4 + maxXSAVE
)

// ErrBadState is wrapped by the errors of DecodeState.
var ErrBadState = errors.New("malformed vCPU state")

// Append appends the encoded state to b.
func (s *State) Append(b []byte) ([]byte, error) {
	if len(s.XCRs) > maxStateXCRs || len(s.MSRs) > maxStateMSRs || len(s.XSAVE) > maxXSAVE {
		return nil, fmt.Errorf("vCPU state too large: %d XCRs, %d MSRs, %d bytes of XSAVE", len(s.XCRs), len(s.MSRs), len(s.XSAVE))
	}
	le := binary.LittleEndian
	b = le.AppendUint16(b, stateVersion)
	for _, part := range s.fixed() {
		var err error
		if b, err = binary.Append(b, le, part); err != nil {
			return nil, err
		}
	}
	b = s.APIC.Append(b)
	b = le.AppendUint16(b, uint16(len(s.XCRs)))
	for _, x := range s.XCRs {
		b = le.AppendUint64(le.AppendUint32(b, x.XCR), x.Value)
	}
	b = le.AppendUint16(b, uint16(len(s.MSRs)))
	for _, m := range s.MSRs {
		b = le.AppendUint64(le.AppendUint32(b, m.Index), m.Value)
	}
	b = le.AppendUint32(b, uint32(len(s.XSAVE)))
	return append(b, s.XSAVE...), nil
}

// fixed lists the parts that are KVM's structures, in encoded order.
func (s *State) fixed() []any { return []any{&s.Regs, &s.Sregs, &s.Events, &s.DebugRegs} }

// DecodeState decodes a state from another node. It checks the form and the
// APIC; what the rest means is for KVM to judge, in a VM of its own. Its
// errors wrap ErrBadState.
func DecodeState(b []byte) (*State, error) {
	d := stateDecoder{rest: b}
	s := &State{}
	if v := d.u16(); d.err == nil && v != stateVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrBadState, v, stateVersion)
	}
	for _, part := range s.fixed() {
		d.decode(part)
	}
	if raw := d.take(apic.StateSize); raw != nil {
		a, err := apic.DecodeState(raw)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrBadState, err)
		}
		s.APIC = a
	}
	s.XCRs = make([]kvm.XCR, d.count(int(d.u16()), maxStateXCRs, "XCRs"))
	for i := range s.XCRs {
		s.XCRs[i] = kvm.XCR{XCR: d.u32(), Value: d.u64()}
	}
	s.MSRs = make([]kvm.MSR, d.count(int(d.u16()), maxStateMSRs, "MSRs"))
	for i := range s.MSRs {
		s.MSRs[i] = kvm.MSR{Index: d.u32(), Value: d.u64()}
	}
	n := int(d.u32())
	if d.err == nil && (n < minXSAVE || n > maxXSAVE) {
		d.err = fmt.Errorf("XSAVE image of %d bytes", n)
	}
	s.XSAVE = append([]byte(nil), d.take(n)...)
	if d.err == nil && len(d.rest) != 0 {
		d.err = fmt.Errorf("%d bytes too many", len(d.rest))
	}
	if d.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadState, d.err)
	}
	return s, nil
}

// stateDecoder takes values off a buffer. After the first error everything it
// returns is zero.
type stateDecoder struct {
	rest []byte
	err  error
}

// take returns the next n bytes, nil if there are not that many.
func (d *stateDecoder) take(n int) []byte {
	if d.err == nil && n > len(d.rest) {
		d.err = fmt.Errorf("%d bytes missing", n-len(d.rest))
	}
	if d.err != nil {
		return nil
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *stateDecoder) decode(v any) {
	if b := d.take(binary.Size(v)); b != nil {
		_, d.err = binary.Decode(b, binary.LittleEndian, v)
	}
}

func (d *stateDecoder) u16() (v uint16) { d.decode(&v); return v }
func (d *stateDecoder) u32() (v uint32) { d.decode(&v); return v }
func (d *stateDecoder) u64() (v uint64) { d.decode(&v); return v }

// count checks a number of entries before anything is allocated for them.
func (d *stateDecoder) count(n, most int, what string) int {
	if d.err == nil && n > most {
		d.err = fmt.Errorf("%d %s, at most %d", n, what, most)
	}
	if d.err != nil {
		return 0
	}
	return n
}
