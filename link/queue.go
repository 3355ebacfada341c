package link

// chunkSize is how much of the queue the writer hands to the socket at once.
const chunkSize = 64 << 10

// queue is a FIFO of bytes. Its memory is proportional to what it holds. Not
// safe for concurrent use, except that the bytes front returned may be read
// while others are added.
type queue struct {
	head, tail *chunk
	size       int    // bytes held
	spare      *chunk // one chunk kept for reuse
}

type chunk struct {
	next *chunk
	r, w int // buf[r:w] is held
	buf  [chunkSize]byte
}

func (q *queue) add(p []byte) {
	q.size += len(p)
	for len(p) > 0 {
		if q.tail == nil || q.tail.w == chunkSize {
			c := q.spare
			q.spare = nil
			if c == nil {
				c = new(chunk)
			}
			if q.tail == nil {
				q.head = c
			} else {
				q.tail.next = c
			}
			q.tail = c
		}
		n := copy(q.tail.buf[q.tail.w:], p)
		q.tail.w += n
		p = p[n:]
	}
}

// front returns the oldest bytes, as many as lie together. The queue must not be empty.
func (q *queue) front() []byte { return q.head.buf[q.head.r:q.head.w] }

// drop removes the n oldest bytes, all of them from front's.
func (q *queue) drop(n int) {
	c := q.head
	c.r += n
	q.size -= n
	if c.r < c.w {
		return
	}
	if q.head = c.next; q.head == nil {
		q.tail = nil
	}
	c.next, c.r, c.w = nil, 0, 0
	q.spare = c
}
