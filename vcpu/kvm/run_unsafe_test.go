package kvm

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// page builds a kvm_run by its documented offsets.
type page []byte

func (p page) u8(at int, v uint8)   { p[at] = v }
func (p page) u16(at int, v uint16) { binary.LittleEndian.PutUint16(p[at:], v) }
func (p page) u32(at int, v uint32) { binary.LittleEndian.PutUint32(p[at:], v) }
func (p page) u64(at int, v uint64) { binary.LittleEndian.PutUint64(p[at:], v) }

func TestRunAccessors(t *testing.T) {
	const union = 32
	p := make(page, 12288)
	r := newRun(p)

	p.u32(8, 2)
	p.u8(12, 1)
	p.u8(13, 1)
	p.u64(16, 5)
	p.u64(24, 0xfee00d00)
	if r.ExitReason() != KVM_EXIT_IO || !r.ReadyForInterruptInjection() || !r.IFFlag() || r.CR8() != 5 || r.APICBase() != 0xfee00d00 {
		t.Error("header")
	}
	r.RequestInterruptWindow(true)
	r.SetImmediateExit(true)
	r.SetCR8(7)
	if p[0] != 1 || p[1] != 1 || p[16] != 7 {
		t.Error("header, written")
	}
	r.RequestInterruptWindow(false)
	r.SetImmediateExit(false)
	if p[0] != 0 || p[1] != 0 {
		t.Error("header, cleared")
	}

	p.u8(union, 1)
	p.u8(union+1, 2)
	p.u16(union+2, 0x3f8)
	p.u32(union+4, 3)
	p.u64(union+8, 4096)
	copy(p[4096:], "abcdef")
	if x, err := r.IO(); err != nil || x.Port != 0x3f8 || x.Size != 2 || x.Count != 3 || !x.Out || string(x.Data) != "abcdef" {
		t.Errorf("io: %+v %v", x, err)
	}
	for _, offset := range []uint64{12288 - 5, 12289, 1 << 63} {
		p.u64(union+8, offset)
		if x, err := r.IO(); err == nil {
			t.Errorf("io at offset %#x: %+v", offset, x)
		}
	}

	clear(p[union:])
	p.u64(union, 0xd000_0004)
	copy(p[union+8:], "01234567")
	p.u32(union+16, 4)
	p.u8(union+20, 1)
	if x := r.MMIO(); x.GPA != 0xd000_0004 || !x.Write || !bytes.Equal(x.Data, []byte("0123")) {
		t.Errorf("mmio: %+v", x)
	}
	p.u32(union+16, 200)
	if x := r.MMIO(); len(x.Data) != 8 {
		t.Errorf("mmio of 200 bytes: %+v", x)
	}

	clear(p[union:])
	p.u32(union+8, KVM_MSR_EXIT_REASON_INVAL)
	p.u32(union+12, 0x830)
	p.u64(union+16, 1<<32|0x21)
	if x := r.MSR(); x != (MSRExit{Index: 0x830, Reason: 1, Value: 1<<32 | 0x21}) {
		t.Errorf("msr: %+v", x)
	}
	r.CompleteMSR(0x1122, true)
	if p[union] != 1 || binary.LittleEndian.Uint64(p[union+16:]) != 0x1122 {
		t.Error("msr, completed")
	}

	clear(p[union:])
	p.u32(union, 3)
	p.u32(union+4, 99)
	p.u64(union+8, 0xabc)
	if sub, data := r.InternalError(); sub != 3 || len(data) != 16 || data[0] != 0xabc {
		t.Errorf("internal error: %d %x", sub, data)
	}
	if typ, data := r.SystemEvent(); typ != 3 || len(data) != 16 {
		t.Errorf("system event: %d %x", typ, data)
	}
}

func TestExitNames(t *testing.T) {
	if s := KVM_EXIT_X86_WRMSR.String(); s != "wrmsr" {
		t.Error(s)
	}
	if s := ExitReason(99).String(); s != "exit 99" {
		t.Error(s)
	}
	for r := range exitNames {
		if r >= ExitReasons {
			t.Errorf("%v is beyond ExitReasons", r)
		}
	}
}
