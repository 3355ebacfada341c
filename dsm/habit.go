package dsm

// habit tells pages that are read first and then written each time they come
// (migratory ones) from those that are only read: the former are asked for to
// be written at once, which saves the upgrade.
type habit struct {
	score  uint8 // how surely a read is followed by a write
	shared bool  // the copy was fetched to be read and has not been written
	asked  uint8 // counts reads, to look again now and then
}

const (
	habitSure = 2  // score from which on a read asks to write
	habitMax  = 8  // bounds the score
	habitLook = 16 // one read in so many asks to read all the same
)

// installed records how the copy came.
func (h *habit) installed(writable bool) { h.shared = !writable }

// upgraded records that it is written.
func (h *habit) upgraded() {
	if h.shared {
		h.score = min(h.score+1, habitMax)
	}
	h.shared = false
}

// left records that it is gone.
func (h *habit) left() {
	if h.shared {
		h.score /= 2
	}
	h.shared = false
}

// writes reports whether a read that has to ask for the page should ask to
// write it.
func (h *habit) writes() bool {
	if h.score < habitSure {
		return false
	}
	h.asked++
	return h.asked%habitLook != 0
}
