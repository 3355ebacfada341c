package console

// ctrlA is the byte that Ctrl-a sends.
const ctrlA = 0x01

// escape finds the commands in what is typed.
//
//	          Ctrl-a               x: quit
//	plain ────────────▶ prefix ────────────▶ (nothing after it counts)
//	  ▲                   │
//	  └───────────────────┘
//	   h: help; Ctrl-a, a: send Ctrl-a;
//	   else: send both
type escape struct {
	prefix bool // Ctrl-a was the last byte
}

// command is what was typed besides input.
type command struct {
	quit, help bool
}

// filter returns what of p is for the guest. The prefix may end one call and its
// letter begin the next.
func (e *escape) filter(p []byte) (in []byte, typed command) {
	in = make([]byte, 0, len(p)+1)
	for _, b := range p {
		if !e.prefix {
			if e.prefix = b == ctrlA; !e.prefix {
				in = append(in, b)
			}
			continue
		}
		e.prefix = false
		switch b {
		case 'x':
			typed.quit = true
			return in, typed
		case 'h':
			typed.help = true
		case 'a', ctrlA:
			in = append(in, ctrlA)
		default:
			in = append(in, ctrlA, b)
		}
	}
	return in, typed
}
