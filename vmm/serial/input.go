package serial

// Enqueue puts input on the line and returns how much of p it took; the rest
// finds no room now. OnSpace tells when it is worth trying again.
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

// OnSpace has f called once after each Enqueue that was cut short, when there is
// room for half of what may wait. f runs with the UART locked: it must not block
// or call back. When OnSpace returns, the function set before is not running and
// will not be called again; nil sets none.
func (u *UART) OnSpace(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.onSpace = f
}

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
		if u.onSpace != nil {
			u.onSpace()
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
