package apic

import "math/bits"

// firstVector is the lowest vector an interrupt may have; 0..15 are illegal
// (SDM vol. 3, "Valid Interrupt Vectors").
const firstVector = 16

// vectorSet is a 256-bit register (IRR, ISR or TMR) in the layout of its eight
// 32-bit MSRs.
type vectorSet [8]uint32

func (s *vectorSet) has(v uint8) bool { return s[v>>5]&(1<<(v&31)) != 0 }
func (s *vectorSet) set(v uint8)      { s[v>>5] |= 1 << (v & 31) }
func (s *vectorSet) clear(v uint8)    { s[v>>5] &^= 1 << (v & 31) }

// highest returns the highest vector of the set; ok is false if it is empty.
func (s *vectorSet) highest() (v uint8, ok bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] != 0 {
			return uint8(i<<5 + bits.Len32(s[i]) - 1), true
		}
	}
	return 0, false
}
