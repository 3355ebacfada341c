package apic

import "errors"

// The x2APIC MSR range, of which every access comes to this package.
const (
	FirstMSR uint32 = 0x800
	LastMSR  uint32 = 0x8ff
)

// x2APIC registers (SDM vol. 3, "x2APIC Register Address Space").
const (
	MSRID           uint32 = 0x802 // ro
	MSRVersion      uint32 = 0x803 // ro
	MSRTPR          uint32 = 0x808
	MSRPPR          uint32 = 0x80a // ro
	MSREOI          uint32 = 0x80b // wo, 0 only
	MSRLDR          uint32 = 0x80d // ro
	MSRSVR          uint32 = 0x80f
	MSRISR          uint32 = 0x810 // ro, 8 registers
	MSRTMR          uint32 = 0x818 // ro, 8 registers
	MSRIRR          uint32 = 0x820 // ro, 8 registers
	MSRESR          uint32 = 0x828 // write 0 only
	MSRICR          uint32 = 0x830 // 64 bits
	MSRLVTTimer     uint32 = 0x832
	MSRLVTThermal   uint32 = 0x833
	MSRLVTPerf      uint32 = 0x834
	MSRLVTLINT0     uint32 = 0x835
	MSRLVTLINT1     uint32 = 0x836
	MSRLVTError     uint32 = 0x837
	MSRInitialCount uint32 = 0x838
	MSRCurrentCount uint32 = 0x839 // ro
	MSRDivideConfig uint32 = 0x83e
	MSRSelfIPI      uint32 = 0x83f // wo
)

// ErrGP says that the access is to be answered with a general protection
// exception. It is returned as it is, unwrapped.
var ErrGP = errors.New("x2APIC access raises #GP")

// Local vector table, in the order of its MSRs from MSRLVTTimer.
const (
	lvtTimer = iota
	lvtThermal
	lvtPerf
	lvtLINT0
	lvtLINT1
	lvtError
	numLVT
)

// Bits of LVT entries.
const (
	lvtVector         = 0xff
	lvtDelivery       = 7 << 8
	lvtDeliveryStatus = 1 << 12 // ro, always idle here
	lvtPolarity       = 1 << 13
	lvtRemoteIRR      = 1 << 14 // ro, always 0: nothing drives the pins
	lvtLevel          = 1 << 15
	lvtMasked         = 1 << 16
	lvtPeriodic       = 1 << 17 // bit 18, TSC-deadline, is not offered: reserved
)

// lvtWritable and lvtReadOnly are the bits of each entry; all others are
// reserved.
var (
	lvtWritable = [numLVT]uint32{
		lvtTimer:   lvtVector | lvtMasked | lvtPeriodic,
		lvtThermal: lvtVector | lvtDelivery | lvtMasked,
		lvtPerf:    lvtVector | lvtDelivery | lvtMasked,
		lvtLINT0:   lvtVector | lvtDelivery | lvtPolarity | lvtLevel | lvtMasked,
		lvtLINT1:   lvtVector | lvtDelivery | lvtPolarity | lvtLevel | lvtMasked,
		lvtError:   lvtVector | lvtMasked,
	}
	lvtReadOnly = [numLVT]uint32{
		lvtTimer:   lvtDeliveryStatus,
		lvtThermal: lvtDeliveryStatus,
		lvtPerf:    lvtDeliveryStatus,
		lvtLINT0:   lvtDeliveryStatus | lvtRemoteIRR,
		lvtLINT1:   lvtDeliveryStatus | lvtRemoteIRR,
		lvtError:   lvtDeliveryStatus,
	}
)

// Spurious interrupt vector register. Bit 9, focus processor checking, means
// nothing since the Pentium 4 but is writable on AMD: kept, without effect. Bit
// 12, EOI-broadcast suppression, is not offered: reserved.
const (
	svrEnable   = 1 << 8
	svrWritable = 0x3ff
)

// Error status register.
const (
	esrSendIllegalVector    = 1 << 5
	esrReceiveIllegalVector = 1 << 6
	esrBits                 = esrSendIllegalVector | esrReceiveIllegalVector
)

// Interrupt command register. Bit 12, the delivery status of xAPIC mode, is
// ignored as AMD and KVM do.
const (
	icrLogical  = 1 << 11
	icrBusy     = 1 << 12
	icrAssert   = 1 << 14
	icrLevel    = 1 << 15
	icrReserved = 0xfff0_0000 | 3<<16 | 1<<13
)

// version is MSRVersion: an integrated APIC (0x14), numLVT entries, no
// EOI-broadcast suppression.
const version = (numLVT-1)<<16 | 0x14

// outcome is what a register write asks of the bus once the lock is released.
type outcome struct {
	send      bool
	message   Message
	shorthand Shorthand
	eoi       bool
	vector    uint8
}

// ReadMSR reads a register. The error is nil or ErrGP. vCPU's thread only.
func (a *APIC) ReadMSR(msr uint32) (uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if msr == MSRICR {
		return a.icr, nil
	}
	v, err := a.read32Locked(msr)
	return uint64(v), err
}

// read32Locked reads any register but the ICR.
func (a *APIC) read32Locked(msr uint32) (uint32, error) {
	switch {
	case msr >= MSRISR && msr < MSRISR+8:
		return a.isr[msr-MSRISR], nil
	case msr >= MSRTMR && msr < MSRTMR+8:
		return a.tmr[msr-MSRTMR], nil
	case msr >= MSRIRR && msr < MSRIRR+8:
		return a.irr[msr-MSRIRR], nil
	case msr >= MSRLVTTimer && msr <= MSRLVTError:
		return a.lvt[msr-MSRLVTTimer], nil
	}
	switch msr {
	case MSRID:
		return a.id, nil
	case MSRVersion:
		return version, nil
	case MSRTPR:
		return uint32(a.tpr), nil
	case MSRPPR:
		return uint32(ppr(a.tpr, &a.isr)), nil
	case MSRLDR:
		return logicalID(a.id), nil
	case MSRSVR:
		return a.svr, nil
	case MSRESR:
		return a.esr, nil
	case MSRInitialCount:
		return a.timer.initial, nil
	case MSRCurrentCount:
		return a.currentCountLocked(a.clock.NowNS()), nil
	case MSRDivideConfig:
		return a.timer.divide, nil
	}
	return 0, ErrGP
}

// WriteMSR writes a register and carries out what that asks for, IPIs and EOI
// broadcasts included. The error is nil or ErrGP; on ErrGP nothing has changed.
// vCPU's thread only; Pending may have changed afterwards.
func (a *APIC) WriteMSR(msr uint32, v uint64) error {
	a.mu.Lock()
	out, err := a.writeLocked(msr, v)
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if out.send {
		a.bus.Send(out.message, out.shorthand)
	}
	if out.eoi {
		a.bus.EOI(out.vector)
	}
	return nil
}

func (a *APIC) writeLocked(msr uint32, v uint64) (outcome, error) {
	if msr == MSRICR {
		return a.writeICRLocked(v)
	}
	if v>>32 != 0 {
		return outcome{}, ErrGP
	}
	w := uint32(v)
	if msr >= MSRLVTTimer && msr <= MSRLVTError {
		return outcome{}, a.writeLVTLocked(int(msr-MSRLVTTimer), w)
	}
	switch msr {
	case MSRTPR:
		if w > 0xff {
			return outcome{}, ErrGP
		}
		a.tpr = uint8(w)
	case MSREOI:
		if w != 0 {
			return outcome{}, ErrGP
		}
		return a.eoiLocked(), nil
	case MSRSVR:
		if w&^svrWritable != 0 {
			return outcome{}, ErrGP
		}
		a.writeSVRLocked(w)
	case MSRESR:
		if w != 0 {
			return outcome{}, ErrGP
		}
		a.esr, a.esrPending = a.esrPending, 0
	case MSRInitialCount:
		a.writeInitialCountLocked(w, a.clock.NowNS())
	case MSRDivideConfig:
		if w&^divideBits != 0 {
			return outcome{}, ErrGP
		}
		a.writeDivideLocked(w, a.clock.NowNS())
	case MSRSelfIPI:
		if w > 0xff {
			return outcome{}, ErrGP
		}
		a.stats.Sent[Fixed]++
		a.sendSelfLocked(Message{Delivery: Fixed, Vector: uint8(w), Assert: true, From: a.id})
	default:
		return outcome{}, ErrGP
	}
	return outcome{}, nil
}

// writeSVRLocked enables or disables the APIC. "When the local APIC is
// software-disabled, the mask bits for all the LVT entries are set; attempts to
// reset these bits will be ignored" (SDM vol. 3, "Local APIC State After It Has
// Been Software Disabled"). IRR and ISR are kept.
func (a *APIC) writeSVRLocked(w uint32) {
	a.advanceTimerLocked(a.clock.NowNS()) // under the old mask
	a.svr = w
	if !a.enabledLocked() {
		for i := range a.lvt {
			a.lvt[i] |= lvtMasked
		}
	}
}

func (a *APIC) writeLVTLocked(entry int, w uint32) error {
	if w&^(lvtWritable[entry]|lvtReadOnly[entry]) != 0 {
		return ErrGP
	}
	w &= lvtWritable[entry]
	if !a.enabledLocked() {
		w |= lvtMasked
	}
	if entry == lvtTimer {
		// What expired under the old mask and mode stays as it went.
		a.advanceTimerLocked(a.clock.NowNS())
	}
	a.lvt[entry] = w
	return nil
}

// eoiLocked ends the interrupt with the highest priority in service.
func (a *APIC) eoiLocked() outcome {
	v, ok := a.isr.highest()
	if !ok {
		return outcome{}
	}
	a.isr.clear(v)
	a.stats.EOIs++
	a.acknowledgedLocked(v)
	if !a.tmr.has(v) {
		return outcome{}
	}
	a.stats.LevelEOIs++
	return outcome{eoi: true, vector: v}
}

// writeICRLocked sends an IPI. The trigger mode is ignored but for the INIT
// level de-assert, which modern CPUs ignore as a whole: every IPI is sent edge
// triggered (SDM vol. 3, "Interrupt Command Register").
func (a *APIC) writeICRLocked(v uint64) (outcome, error) {
	w := uint32(v)
	if w&icrReserved != 0 {
		return outcome{}, ErrGP
	}
	a.icr = v &^ icrBusy
	m := Message{
		Dest:     uint32(v >> 32),
		Delivery: Delivery(w >> 8 & 7),
		Vector:   uint8(w),
		Assert:   true,
		From:     a.id,
	}
	if w&icrLogical != 0 {
		m.DestMode = Logical
	}
	shorthand := Shorthand(w >> 18 & 3)
	if m.Delivery == INIT && w&icrLevel != 0 && w&icrAssert == 0 {
		return outcome{}, nil
	}
	if !sendable(m.Delivery, shorthand) {
		a.stats.Dropped++
		return outcome{}, nil
	}
	a.stats.Sent[m.Delivery]++
	if shorthand == Self || shorthand == NoShorthand && m.DestMode == Physical && m.Dest == a.id {
		a.sendSelfLocked(m)
		return outcome{}, nil
	}
	if illegalVector(m) {
		a.errorLocked(esrSendIllegalVector)
		return outcome{}, nil
	}
	return outcome{send: true, message: m, shorthand: shorthand}, nil
}

// sendSelfLocked is an IPI that does not leave the APIC.
func (a *APIC) sendSelfLocked(m Message) {
	if illegalVector(m) {
		a.errorLocked(esrSendIllegalVector)
		return
	}
	a.receiveLocked(m)
}

func illegalVector(m Message) bool {
	return (m.Delivery == Fixed || m.Delivery == LowestPriority) && m.Vector < firstVector
}

// sendable reports whether an IPI may have this delivery mode: 3 and ExtINT are
// reserved in the ICR, and of the shorthands that contain the sender only fixed
// is valid (SDM vol. 3, "Valid Combinations for the ... ICR"). NMI is let
// through with them, as KVM does.
func sendable(d Delivery, s Shorthand) bool {
	switch s {
	case Self, AllIncludingSelf:
		return d == Fixed || d == NMI
	}
	return d != 3 && d != ExtINT
}
