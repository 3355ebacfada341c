package dsm

import (
	"errors"
	"fmt"

	"coalesce/dsm/uffd"
)

// serveFaults resolves userfaults on a thread of its own: it reads the
// descriptor blocking, and answers or asks the home inline.
func (e *Engine) serveFaults() {
	LockServiceThread("faults")
	defer e.running.Done()
	var buf [16]uffd.Fault
	for {
		n, err := e.kernel.Read(buf[:])
		if err != nil {
			if !errors.Is(err, uffd.ErrInterrupted) {
				e.fail(fmt.Errorf("read userfaults: %w", err))
			}
			return
		}
		for _, f := range buf[:n] {
			err := e.fault(f)
			e.flush()
			if err != nil {
				e.fail(err)
				break // the ranges are unregistered by Close, which wakes all
			}
		}
	}
}

// fault handles one userfault. A write-protection message on a page that is
// invalid by now is a write miss like any other (rule 4). flush follows.
func (e *Engine) fault(f uffd.Fault) error {
	write := f.Write || f.WP
	if write {
		e.stats.faultsWrite.Add(1)
	} else {
		e.stats.faultsRead.Add(1)
	}
	t := e.threadOf(f.TID)
	began := e.traceNow()
	missed, again, mark := false, false, false
	err := e.withEntry(f.Page, func(r *region, en *entry) error {
		asked := en.page.Want
		token := false
		if t != nil && !en.page.Access.allows(write) {
			again = t.waiting.Load() == f.Page
			en.thread = t
			token = e.faulted(t, f.Page)
		}
		var waited bool
		if mark, waited = en.ahead.fault(); waited {
			en.requested = e.host.Now() // what came before is not its wait
		}
		if mark || waited {
			e.stats.prefetchUsed.Add(1)
		}
		if !write && en.page.Access == Invalid && en.habit.writes() {
			write = true
		}
		if _, err := e.stepLocked(r, f.Page, Event{Kind: EvFault, Write: write, Token: token}, nil); err != nil {
			return err
		}
		missed = asked == WantNothing && en.page.Want != WantNothing
		switch {
		case t == nil:
		case !en.page.Access.allows(write):
			t.awaitPage(f.Page, f.Write || f.WP, began)
		case e.cfg.Tracer != nil:
			e.cfg.Tracer.Fault(t.index, e.host.GPA(f.Page), f.Write || f.WP, true, began)
		}
		return e.retryPinsLocked(r, f.Page)
	})
	switch {
	case err != nil || t == nil:
		return err
	case missed || mark:
		return e.fetchMore(t, f.Page, write, missed, mark)
	case again:
		// A signal was pending when it began to wait inside KVM's instruction
		// emulator: it will spin until the page comes.
		e.stats.faultsAgain.Add(1)
		e.flush()
		e.host.Breathe()
	}
	return nil
}
