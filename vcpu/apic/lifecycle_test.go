package apic

import (
	"fmt"
	"strings"
	"testing"
)

// TestLifecycle plays sequences of arrivals and takes. Words: INIT, NMI, SIPI@n
// deliver; halt and run are SetActivity; take is TakeEvents and must return what
// follows it in brackets; then the activity.
func TestLifecycle(t *testing.T) {
	for _, c := range []struct {
		bsp    bool
		script string
	}{
		{false, "take[] wait-for-SIPI"},
		{true, "take[] running"},
		{false, "SIPI@9a take[SIPI@9a] running"},
		{false, "SIPI@9a SIPI@10 take[SIPI@9a] running take[] running"},
		{false, "SIPI@9a take[SIPI@9a] SIPI@9a take[] running"},
		{true, "SIPI@1 take[] running"},
		{true, "halt SIPI@1 take[] halted"},
		{false, "INIT take[INIT] wait-for-SIPI SIPI@8 take[SIPI@8] running"},
		{false, "INIT SIPI@8 SIPI@8 take[INIT,SIPI@8] running"},
		{true, "INIT SIPI@8 take[INIT,SIPI@8] running"},
		{true, "INIT take[INIT] wait-for-SIPI"},
		{true, "halt INIT take[INIT] wait-for-SIPI"},
		{true, "SIPI@7 INIT take[INIT] wait-for-SIPI"},
		{true, "INIT SIPI@7 INIT take[INIT] wait-for-SIPI"},
		{true, "INIT SIPI@7 INIT SIPI@8 take[INIT,SIPI@8] running"},
		{true, "NMI take[NMI] running take[] running"},
		{true, "NMI NMI take[NMI] running"},
		{true, "halt NMI take[NMI] halted run take[] running"},
		{false, "NMI take[] wait-for-SIPI SIPI@1 take[SIPI@1] running"},
		{true, "NMI INIT take[INIT] wait-for-SIPI"},
		{true, "INIT NMI SIPI@1 take[INIT,SIPI@1] running"},
		{true, "INIT SIPI@1 NMI take[INIT,SIPI@1,NMI] running"},
		{false, "SIPI@1 NMI take[SIPI@1,NMI] running"},
	} {
		a := New(1, c.bsp, &recordBus{}, &fakeClock{})
		for _, word := range strings.Fields(c.script) {
			vector := uint8(0)
			op, want, _ := strings.Cut(word, "[")
			if n, _ := fmt.Sscanf(op, "SIPI@%x", &vector); n == 1 {
				op = "SIPI"
			}
			switch op {
			case "INIT":
				a.Deliver(Message{Delivery: INIT, Assert: true})
			case "NMI":
				a.Deliver(Message{Delivery: NMI, Assert: true})
			case "SIPI":
				a.Deliver(Message{Delivery: SIPI, Vector: vector, Assert: true})
			case "halt":
				a.SetActivity(Halted)
			case "run":
				a.SetActivity(Running)
			case "take":
				e := a.TakeEvents()
				var got []string
				if e.INIT {
					got = append(got, "INIT")
				}
				if e.SIPI {
					got = append(got, fmt.Sprintf("SIPI@%x", e.SIPIVector))
				}
				if e.NMI {
					got = append(got, "NMI")
				}
				if g := strings.Join(got, ",") + "]"; g != want {
					t.Errorf("%q: took [%s, want [%s", c.script, g, want)
				}
			default:
				if got := a.Activity().String(); got != op {
					t.Errorf("%q: %s, want %s", c.script, got, op)
				}
			}
		}
	}
}

// TestInitResets fills every register and checks that INIT leaves an APIC as
// New does, id and BSP flag included, but for the clock.
func TestInitResets(t *testing.T) {
	a, _, _ := newTest(t)
	for msr, v := range map[uint32]uint64{
		MSRTPR: 0x33, MSRICR: 9<<32 | 0x4400, MSRLVTTimer: 0x200ec, MSRLVTThermal: 0xfa, MSRLVTPerf: 0x400,
		MSRLVTLINT0: 0x700, MSRLVTLINT1: 0x400, MSRLVTError: 0xfe, MSRDivideConfig: 3, MSRInitialCount: 77,
	} {
		write(t, a, msr, v)
	}
	a.Deliver(levelled(0x91))
	take(a)
	a.Deliver(levelled(0x92))
	a.Deliver(fixed(1))
	write(t, a, MSRESR, 0)
	a.Deliver(fixed(1))

	a.Deliver(Message{Delivery: INIT, Assert: true})
	if got := take(a); got != 0xfe {
		t.Errorf("took %#x before the INIT was taken, want the error interrupt", got)
	}
	a.TakeEvents()
	want := New(5, true, &recordBus{}, &fakeClock{})
	want.SetActivity(WaitForSIPI)
	if got, want := a.Save(), want.Save(); got != want {
		t.Errorf("after INIT\n%+v, want\n%+v", got, want)
	}
	if _, armed := a.NextTimer(); armed {
		t.Error("the timer survives INIT")
	}
}
