package vcpu_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"coalesce/guest/micro"
	"coalesce/vcpu"
	"coalesce/vcpu/apic"
	"coalesce/vcpu/kvm"
	"coalesce/vcpu/microvm"
)

// sampleState is a state with something in every part.
func sampleState() *vcpu.State {
	s := &vcpu.State{
		Regs:  kvm.Regs{RAX: 1, R15: 15, RIP: 0xffff_ffff_8100_0000, RFLAGS: 0x246},
		Sregs: kvm.Sregs{CS: kvm.Segment{Selector: 0x10, L: 1}, CR3: 0x1000, EFER: 0xd01},
		XSAVE: make([]byte, 640),
		XCRs:  []kvm.XCR{{Value: 7}},
		MSRs:  []kvm.MSR{{Index: 0xc000_0082, Value: 0x1234}, {Index: 0x277, Value: 0x0007_0406_0007_0406}},
		APIC:  apic.New(3, false, nil, vcpu.Clock{}).Save(),
	}
	s.Events.Interrupt.Nr = 0x20
	s.DebugRegs.DR7 = 0x400
	s.XSAVE[100] = 9
	return s
}

func TestStateRoundTrip(t *testing.T) {
	s := sampleState()
	b, err := s.Append(nil)
	must(t, err)
	got, err := vcpu.DecodeState(b)
	must(t, err)
	if !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v\nwant %+v", got, s)
	}
	for n := range len(b) {
		if _, err := vcpu.DecodeState(b[:n]); !errors.Is(err, vcpu.ErrBadState) {
			t.Fatalf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, err := vcpu.DecodeState(append(b, 0)); !errors.Is(err, vcpu.ErrBadState) {
		t.Errorf("one byte too many: %v", err)
	}
	s.MSRs = make([]kvm.MSR, 10_000)
	if _, err := s.Append(nil); err == nil {
		t.Error("encoded 10,000 MSRs")
	}
}

func FuzzDecodeState(f *testing.F) {
	b, err := sampleState().Append(nil)
	must(f, err)
	f.Add(b)
	f.Add(b[:700])
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := vcpu.DecodeState(b)
		if err != nil {
			if !errors.Is(err, vcpu.ErrBadState) {
				t.Fatalf("not ErrBadState: %v", err)
			}
			return
		}
		again, err := s.Append(nil)
		must(t, err)
		other, err := vcpu.DecodeState(again)
		must(t, err)
		if !reflect.DeepEqual(s, other) {
			t.Fatal("encodes to something else")
		}
	})
}

// A state that goes through Capture, a change and Restore changes exactly that:
// the self-checking guest notices, which also says that its checks work.
func TestRestoreIsWhatTheGuestSees(t *testing.T) {
	for _, c := range []struct {
		name   string
		spoil  func(s *vcpu.State)
		expect uint8
	}{
		{"nothing", func(*vcpu.State) {}, 0},
		{"r9", func(s *vcpu.State) { s.Regs.R9++ }, micro.CheckRegister + uint8(micro.R9)},
		{"xmm3", func(s *vcpu.State) { s.XSAVE[160+3*16] ^= 1 }, micro.CheckVector},
		{"ymm3", func(s *vcpu.State) { s.XSAVE[0x240+3*16] ^= 1 }, micro.CheckVector},
		{"mxcsr", func(s *vcpu.State) { s.XSAVE[25] ^= 0x20 }, micro.CheckMXCSR},
		{"st0", func(s *vcpu.State) { s.XSAVE[32] ^= 0x80 }, micro.CheckX87},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx := context.Background()
			r := newRig(t)
			v := r.add(0)
			must(t, micro.SelfCheck(r.Machine, micro.SelfCheckOptions{
				Code: codeAt, Data: dataAt, Vectors: micro.AVX, Rounds: 100_000,
			}))
			r.start(v, micro.Options{RIP: codeAt, XCR0: micro.AVX.XCR0()})
			status := func() micro.Status { return micro.SelfCheckStatus(dataAt, r.RAM.Load) }
			// Stop it in the long part of a pass, where registers are only checked.
			for {
				must(t, v.Pause(ctx))
				if n := status().Rounds; n > 10 && n < 99_000 {
					break
				}
				must(t, v.Resume(ctx))
				must(t, v.Sync(ctx))
			}
			s, err := v.Capture(ctx)
			must(t, err)
			c.spoil(s)
			must(t, v.Restore(ctx, s))
			must(t, v.Resume(ctx))
			if c.expect == 0 {
				n := status().Passes
				r.until("two more passes", func() bool { return status().Passes > n+1 })
				return
			}
			if e := r.event(); e.Kind != microvm.Fail || e.Code != c.expect {
				t.Errorf("got %v, want check %#x to fail", e, c.expect)
			}
		})
	}
}

func TestRecallGoesOnlyBackByRestore(t *testing.T) {
	ctx := context.Background()
	r := newRig(t)
	v := r.add(0)
	code, err := micro.Spin(codeAt, dataAt)
	must(t, err)
	must(t, r.Write(codeAt, code))
	r.start(v, micro.Options{RIP: codeAt, Ring: 3})
	if _, err := v.Capture(ctx); !errors.Is(err, vcpu.ErrNotPaused) {
		t.Errorf("capture while running: %v", err)
	}
	s, err := v.Recall(ctx)
	must(t, err)
	if v.Phase() != vcpu.Recalled {
		t.Errorf("phase %v", v.Phase())
	}
	for what, err := range map[string]error{
		"resume":       v.Resume(ctx),
		"recall again": func() error { _, err := v.Recall(ctx); return err }(),
		"set up":       v.Setup(ctx, s.Regs, s.Sregs, 0),
	} {
		if !errors.Is(err, vcpu.ErrRecalled) {
			t.Errorf("%s when recalled: %v", what, err)
		}
	}
	must(t, r.VM.Resume(ctx)) // leaves recalled vCPUs alone
	n := r.RAM.Load(dataAt)
	must(t, v.Restore(ctx, s))
	must(t, v.Resume(ctx))
	r.until("it runs again", func() bool { return r.RAM.Load(dataAt) > n })
}
