package top

import (
	"bytes"
	"fmt"
	"os"

	"golang.org/x/term"
)

// Screen shows one page of text after another: on a terminal in place of the one
// before, on a screen of its own; elsewhere one behind the other.
type Screen struct {
	out      *os.File
	terminal bool
	began    bool
}

// NewScreen returns one on out. Close it.
func NewScreen(out *os.File) *Screen {
	return &Screen{out: out, terminal: term.IsTerminal(int(out.Fd()))}
}

// Control sequences (ECMA-48, and xterm's private modes 1049, the alternate screen
// with the cursor saved, and 25, a visible cursor).
const (
	enter     = "\x1b[?1049h\x1b[?25l"
	leave     = "\x1b[?25h\x1b[?1049l"
	home      = "\x1b[H"
	clearLine = "\x1b[K"
	clearRest = "\x1b[J"
)

// Show shows text, on a terminal as much of it as there is room for.
func (s *Screen) Show(text []byte) error {
	var b bytes.Buffer
	if s.terminal {
		if !s.began {
			b.WriteString(enter)
			s.began = true
		}
		width, height, err := term.GetSize(int(s.out.Fd()))
		if err != nil || width <= 0 || height <= 0 {
			width, height = 80, 24
		}
		frame(&b, text, width, height)
	} else {
		b.Write(text)
	}
	if _, err := s.out.Write(b.Bytes()); err != nil {
		return fmt.Errorf("show: %w", err)
	}
	return nil
}

// frame writes what replaces the text that fills a screen of this size.
func frame(b *bytes.Buffer, text []byte, width, height int) {
	b.WriteString(home)
	lines := bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n"))
	for i, line := range lines[:min(len(lines), height)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		// The last column stays free: what follows a character there differs between
		// terminals.
		if runes := []rune(string(line)); len(runes) >= width {
			line = []byte(string(runes[:width-1]))
		}
		b.Write(line)
		b.WriteString(clearLine)
	}
	b.WriteString(clearRest)
}

// Close leaves the terminal as it was.
func (s *Screen) Close() error {
	if !s.began {
		return nil
	}
	s.began = false
	if _, err := s.out.WriteString(leave); err != nil {
		return fmt.Errorf("restore the terminal: %w", err)
	}
	return nil
}
