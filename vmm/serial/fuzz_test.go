package serial

import (
	"io"
	"reflect"
	"testing"
)

// FuzzRegisters plays a script of register accesses and input, two bytes a step.
// After each step the interrupt line must agree with IIR, no bound may be
// exceeded, and the state must survive a round through Save and Restore.
func FuzzRegisters(f *testing.F) {
	f.Add([]byte{0x02, 0xc1, 0x04, 0x0b, 0x01, 0x0f, 0x10, 0x20, 0x00, 'x', 0x08, 0, 0x0a, 0})
	f.Add([]byte{0x04, 0x1f, 0x00, 'a', 0x00, 'b', 0x0d, 0, 0x0e, 0, 0x01, 0x08})
	f.Add([]byte{0x03, 0x80, 0x00, 1, 0x01, 0, 0x03, 3, 0x0a, 0})
	f.Fuzz(func(t *testing.T, script []byte) {
		p := newPort(t, io.Discard)
		for step := 0; len(script) >= 2 && step < 500; step++ {
			op, v := script[0], script[1]
			script = script[2:]
			reg := uint64(op % 8)
			switch op >> 3 % 3 {
			case 0:
				p.out8(reg, v)
			case 1:
				p.in(reg)
			case 2:
				p.Enqueue(make([]byte, int(v)*16))
			}
			s := p.Save()
			if len(s.FIFO) > fifoSize || len(s.Input) > inputRoom {
				t.Fatalf("step %d: %d bytes in the FIFO, %d wait", step, len(s.FIFO), len(s.Input))
			}
			if err := p.Restore(s); err != nil {
				t.Fatalf("step %d: %v", step, err)
			}
			if again := p.Save(); !reflect.DeepEqual(s, again) {
				t.Fatalf("step %d: saved %+v, restored %+v", step, s, again)
			}
			p.UART.mu.Lock()
			due := p.causeLocked() != iirNone
			p.UART.mu.Unlock()
			if due != p.irqLevel() {
				t.Fatalf("step %d: line is %v, cause %v", step, p.irqLevel(), due)
			}
		}
	})
}
