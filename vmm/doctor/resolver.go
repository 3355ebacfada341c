package doctor

import (
	"errors"
	"runtime"

	"coalesce/dsm/uffd"
)

// resolver answers every fault of a memory at once, on a thread of its own, and
// keeps a record of them. Only one goroutine at a time may call its methods.
type resolver struct {
	u    *uffd.Uffd
	mem  *uffd.Memory
	note func() uint64 // may be nil
	done chan error

	seen []seenFault // of the resolving thread until done, then of take
}

// seenFault is a fault and the note taken when it came.
type seenFault struct {
	uffd.Fault
	note uint64
}

// startResolver registers all of mem and starts to resolve. note, unless nil, is
// called when a fault comes, while its thread waits.
func startResolver(mem *uffd.Memory, note func() uint64) (*resolver, error) {
	u, err := uffd.Open(mem, uffd.Options{})
	if err != nil {
		return nil, err
	}
	if err := u.Register(0, mem.Pages()); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	r := &resolver{u: u, mem: mem, note: note}
	r.start()
	return r, nil
}

func (r *resolver) start() {
	r.done = make(chan error, 1)
	go func() { r.done <- r.loop() }()
}

// loop resolves until it is interrupted. On an error it lets all threads that
// wait go on, as nobody else would.
func (r *resolver) loop() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var buf [8]uffd.Fault
	for {
		n, err := r.u.Read(buf[:])
		for i := 0; i < n && err == nil; i++ {
			s := seenFault{Fault: buf[i]}
			if r.note != nil {
				s.note = r.note()
			}
			r.seen = append(r.seen, s)
			err = r.resolve(buf[i])
		}
		switch err {
		case nil:
		case uffd.ErrInterrupted, uffd.ErrClosed:
			return nil
		default:
			return errors.Join(err, r.u.Close())
		}
	}
}

func (r *resolver) resolve(f uffd.Fault) error {
	if f.WP {
		return r.u.Unprotect(f.Page, 1)
	}
	if err := r.mem.PopulateAlias(f.Page, 1); err != nil {
		return err
	}
	if _, err := r.u.Continue(f.Page, 1, false); err != uffd.ErrPresent {
		return err
	}
	return r.u.Wake(f.Page, 1)
}

// take returns the faults since the last call.
func (r *resolver) take() ([]seenFault, error) {
	if err := r.u.Interrupt(); err != nil && err != uffd.ErrClosed {
		return nil, err
	}
	if err := <-r.done; err != nil {
		r.done <- nil // Close waits for it, too
		return nil, err
	}
	s := r.seen
	r.seen = nil
	r.start()
	return s, nil
}

// Close ends the resolver. Whoever touches the memory must have stopped.
func (r *resolver) Close() error {
	return errors.Join(r.u.Close(), <-r.done)
}
