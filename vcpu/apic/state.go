package apic

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// State is all of an APIC that moves with its vCPU. The timer's deadline is
// kept as time left, because clocks differ between nodes. Pending kicks and
// counters belong to the node and stay behind.
type State struct {
	ID  uint32
	BSP bool

	Activity   Activity
	INIT       bool // latched, not taken
	SIPI       bool
	NMI        bool
	SIPIVector uint8

	TPR              uint8
	TimerCounting    bool
	SVR              uint32
	ESR, ESRPending  uint32
	ICR              uint64
	LVT              [numLVT]uint32
	InitialCount     uint32
	DivideConfig     uint32
	TimerRemainingNS int64 // until the count reaches zero; 0 if not counting

	IRR, ISR, TMR [8]uint32
}

// StateSize is the length of an encoded State in bytes.
const StateSize = 8 + 4*4 + 8 + 4*numLVT + 2*4 + 8 + 3*32

// stateVersion is the first byte of an encoded State.
const stateVersion = 1

// maxTimerNS is the longest time the timer counts: 2^32-1 ticks of 128 ns.
const maxTimerNS = (1<<32 - 1) * 128

// ErrBadState is wrapped by every error of DecodeState and Restore.
var ErrBadState = errors.New("malformed APIC state")

// Save returns the state. vCPU's thread only, outside the guest. What other
// threads deliver afterwards is not in it: the caller turns the Router away
// first.
func (a *APIC) Save() State {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := State{
		ID: a.id, BSP: a.bsp,
		Activity: a.life.activity,
		INIT:     a.life.init, SIPI: a.life.sipi, NMI: a.life.nmi,
		SIPIVector: a.life.vector,
		TPR:        a.tpr, SVR: a.svr,
		ESR: a.esr, ESRPending: a.esrPending,
		ICR: a.icr, LVT: a.lvt,
		InitialCount: a.timer.initial, DivideConfig: a.timer.divide,
		TimerCounting: a.timer.counting,
		IRR:           a.irr, ISR: a.isr, TMR: a.tmr,
	}
	if a.timer.counting {
		// An expired timer that no Tick has seen fires at once when restored.
		s.TimerRemainingNS = max(a.timer.deadline-a.clock.NowNS(), 0)
	}
	return s
}

// Restore replaces the state by s, which Save made of the APIC with the same id
// and BSP flag. The error wraps ErrBadState, and nothing has changed then.
// vCPU's thread only, outside the guest.
func (a *APIC) Restore(s State) error {
	if s.ID != a.id || s.BSP != a.bsp {
		return fmt.Errorf("%w: of APIC id %d (BSP %t), restored to %d (BSP %t)", ErrBadState, s.ID, s.BSP, a.id, a.bsp)
	}
	if err := s.check(); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.irr, a.isr, a.tmr = s.IRR, s.ISR, s.TMR
	a.tpr, a.svr = s.TPR, s.SVR
	a.esr, a.esrPending = s.ESR, s.ESRPending
	a.icr, a.lvt = s.ICR, s.LVT
	a.life = lifecycle{activity: s.Activity, init: s.INIT, sipi: s.SIPI, nmi: s.NMI, vector: s.SIPIVector}
	now := a.clock.NowNS()
	a.timer = timer{initial: s.InitialCount, divide: s.DivideConfig, counting: s.TimerCounting, accepted: now}
	if s.TimerCounting {
		a.timer.deadline = now + s.TimerRemainingNS
	}
	return nil
}

// check reports a value that no APIC can hold.
func (s *State) check() error {
	switch {
	case s.ID == Broadcast:
		return fmt.Errorf("%w: APIC id is the broadcast id", ErrBadState)
	case s.Activity > WaitForSIPI:
		return fmt.Errorf("%w: %v", ErrBadState, s.Activity)
	case s.SVR&^svrWritable != 0:
		return fmt.Errorf("%w: SVR %#x", ErrBadState, s.SVR)
	case (s.ESR|s.ESRPending)&^esrBits != 0:
		return fmt.Errorf("%w: ESR %#x, pending %#x", ErrBadState, s.ESR, s.ESRPending)
	case uint32(s.ICR)&(icrReserved|icrBusy) != 0:
		return fmt.Errorf("%w: ICR %#x", ErrBadState, s.ICR)
	case s.DivideConfig&^divideBits != 0:
		return fmt.Errorf("%w: divide configuration %#x", ErrBadState, s.DivideConfig)
	case s.TimerCounting && s.InitialCount == 0:
		return fmt.Errorf("%w: timer counts from 0", ErrBadState)
	case s.TimerRemainingNS < 0 || s.TimerRemainingNS > maxTimerNS || !s.TimerCounting && s.TimerRemainingNS != 0:
		return fmt.Errorf("%w: timer has %d ns left", ErrBadState, s.TimerRemainingNS)
	case (s.IRR[0]|s.ISR[0]|s.TMR[0])&(1<<firstVector-1) != 0:
		return fmt.Errorf("%w: vector below %d", ErrBadState, firstVector)
	}
	for i, entry := range s.LVT {
		if entry&^lvtWritable[i] != 0 || s.SVR&svrEnable == 0 && entry&lvtMasked == 0 {
			return fmt.Errorf("%w: LVT entry %d is %#x", ErrBadState, i, entry)
		}
	}
	return nil
}

const (
	stateBSP = 1 << iota
	stateINIT
	stateSIPI
	stateNMI
	stateCounting
	stateFlags = 1<<iota - 1
)

// Append appends the StateSize bytes of the encoded state to b. Little endian:
// version u8, flags u8, activity u8, SIPI vector u8, TPR u8, 3 zero bytes, ID,
// SVR, ESR, pending ESR u32, ICR u64, LVT u32 each, initial count, divide
// configuration u32, ns left u64, IRR, ISR, TMR 8 u32 each.
func (s State) Append(b []byte) []byte {
	var flags uint8
	for _, f := range []struct {
		set bool
		bit uint8
	}{{s.BSP, stateBSP}, {s.INIT, stateINIT}, {s.SIPI, stateSIPI}, {s.NMI, stateNMI}, {s.TimerCounting, stateCounting}} {
		if f.set {
			flags |= f.bit
		}
	}
	le := binary.LittleEndian
	b = append(b, stateVersion, flags, uint8(s.Activity), s.SIPIVector, s.TPR, 0, 0, 0)
	b = le.AppendUint32(b, s.ID)
	b = le.AppendUint32(b, s.SVR)
	b = le.AppendUint32(b, s.ESR)
	b = le.AppendUint32(b, s.ESRPending)
	b = le.AppendUint64(b, s.ICR)
	for _, entry := range s.LVT {
		b = le.AppendUint32(b, entry)
	}
	b = le.AppendUint32(b, s.InitialCount)
	b = le.AppendUint32(b, s.DivideConfig)
	b = le.AppendUint64(b, uint64(s.TimerRemainingNS))
	for _, set := range [][8]uint32{s.IRR, s.ISR, s.TMR} {
		for _, w := range set {
			b = le.AppendUint32(b, w)
		}
	}
	return b
}

// DecodeState decodes exactly StateSize bytes that came from another node. What
// it returns is a state that an APIC can be in. Its errors wrap ErrBadState.
func DecodeState(b []byte) (State, error) {
	if len(b) != StateSize {
		return State{}, fmt.Errorf("%w: %d bytes, want %d", ErrBadState, len(b), StateSize)
	}
	if b[0] != stateVersion {
		return State{}, fmt.Errorf("%w: version %d, want %d", ErrBadState, b[0], stateVersion)
	}
	flags := b[1]
	if flags&^stateFlags != 0 || b[5]|b[6]|b[7] != 0 {
		return State{}, fmt.Errorf("%w: reserved bits set", ErrBadState)
	}
	s := State{
		BSP:  flags&stateBSP != 0,
		INIT: flags&stateINIT != 0, SIPI: flags&stateSIPI != 0, NMI: flags&stateNMI != 0,
		TimerCounting: flags&stateCounting != 0,
		Activity:      Activity(b[2]),
		SIPIVector:    b[3],
		TPR:           b[4],
	}
	b = b[8:]
	u32 := func() uint32 {
		w := binary.LittleEndian.Uint32(b)
		b = b[4:]
		return w
	}
	u64 := func() uint64 {
		low := u32()
		return uint64(u32())<<32 | uint64(low)
	}
	s.ID, s.SVR, s.ESR, s.ESRPending = u32(), u32(), u32(), u32()
	s.ICR = u64()
	for i := range s.LVT {
		s.LVT[i] = u32()
	}
	s.InitialCount, s.DivideConfig = u32(), u32()
	s.TimerRemainingNS = int64(u64())
	for _, set := range []*[8]uint32{&s.IRR, &s.ISR, &s.TMR} {
		for i := range set {
			set[i] = u32()
		}
	}
	if err := s.check(); err != nil {
		return State{}, err
	}
	return s, nil
}
