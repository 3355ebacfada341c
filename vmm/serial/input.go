package serial

// Enqueue puts input on the line and returns how much of p it took; the rest
// finds no room now. In that case Space signals when it is worth trying again.
//
// Input goes to the receive FIFO while the guest asserts RTS, as a peer with
// hardware flow control would send it: Linux raises RTS once the port is open
// and its FIFOs are cleared, so what was typed or piped in during boot is not lost.
func (u *UART) Enqueue(p []byte) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.out.closing {
		return len(p) // nobody will read it
	}
	n := min(len(p), inputRoom-len(u.input))
	u.input = append(u.input, p[:n]...)
	u.wantSpace = n < len(p)
	u.fillLocked()
	u.updateLocked()
	return n
}

// Space delivers a value after an Enqueue that was cut short, once there is room
// for half of what may wait.
func (u *UART) Space() <-chan struct{} { return u.space }

// receiveLocked takes a byte from RBR, 0 if there is none.
func (u *UART) receiveLocked() byte {
	if len(u.fifo) == 0 {
		return 0
	}
	v := u.fifo[0]
	u.fifo = u.fifo[:copy(u.fifo, u.fifo[1:])]
	u.fillLocked()
	return v
}

// fillLocked moves input into the FIFO.
func (u *UART) fillLocked() {
	if u.mcr&mcrRTS == 0 || u.mcr&mcrLoop != 0 {
		return
	}
	n := min(u.fifoRoomLocked(), len(u.input))
	if n == 0 {
		return
	}
	u.fifo = append(u.fifo, u.input[:n]...)
	u.input = u.input[:copy(u.input, u.input[n:])]
	if u.wantSpace && len(u.input) <= inputRoom/2 {
		u.wantSpace = false
		select {
		case u.space <- struct{}{}:
		default:
		}
	}
}

// fifoRoomLocked is how many bytes the FIFO takes; without FIFOs RBR holds one.
func (u *UART) fifoRoomLocked() int {
	if u.fcr&fcrEnable == 0 {
		return max(0, 1-len(u.fifo))
	}
	return fifoSize - len(u.fifo)
}
