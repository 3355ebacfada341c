package explore

import (
	"fmt"
	"strings"

	"coalesce/dsm"
)

func pageName(page uint8) string { return "page " + string('A'+rune(page)) }

func pageAs(page uint8, write bool) string {
	if write {
		return pageName(page) + ", to write"
	}
	return pageName(page) + ", to read"
}

func verb(write bool) string {
	if write {
		return "write"
	}
	return "read"
}

func setName(s dsm.NodeSet) string {
	var names []string
	for n := range dsm.NodeID(dsm.MaxNodes) {
		if s.Has(n) {
			names = append(names, fmt.Sprint(n))
		}
	}
	return "{" + strings.Join(names, " ") + "}"
}

func (i Instr) String() string {
	var parts []string
	for _, a := range i {
		parts = append(parts, verb(a.Write)+" "+pageName(a.Page))
	}
	return strings.Join(parts, ", ")
}

func (m msg) String() string {
	if m.kind >= dsm.TokenReq {
		return fmt.Sprintf("%v of vCPU %d", m.kind, m.page)
	}
	s := fmt.Sprintf("%v for %s", m.kind, pageName(m.page))
	if m.flags&dsm.FlagPromote != 0 {
		return "a promotion of its " + s
	}
	if m.flags&dsm.FlagWrite != 0 {
		s += ", to write"
	}
	if m.flags&dsm.FlagToken != 0 {
		s += ", with the token"
	}
	switch m.kind {
	case dsm.FwdRead, dsm.FwdWrite, dsm.Done:
		s += fmt.Sprintf(" (node %d)", m.peer)
	case dsm.Data:
		if !m.fresh {
			s += ", without the last write"
		}
	}
	return s
}

// describe returns what is left to do in w.s, in words.
func (w *world) describe() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	s := w.s
	for i := range w.p.Homes {
		name := pageName(uint8(i))
		d := &s.dirs[i]
		if d.Phase != dsm.Idle {
			phase := "moves"
			if d.Phase == dsm.Invalidating {
				phase = "is invalidated on nodes " + setName(d.Acks)
			}
			add("%s %s for node %d to %s", name, phase, d.Requester, verb(d.Write))
		}
		for j := range d.Waiting() {
			n, write := d.Waiter(j)
			add("%s: node %d is at place %d of the queue, to %s", name, n, j, verb(write))
		}
		for n := range w.p.Nodes {
			c := &s.copies[n][i]
			wants := ""
			if c.page.Want != dsm.WantNothing {
				wants = ", wants to " + verb(c.page.Want == dsm.WantWrite)
			}
			if c.page.Deferred != dsm.Nothing {
				wants += fmt.Sprintf(", has deferred %v", c.page.Deferred)
			}
			add("%s on node %d: %v, mapped %s%s", name, n, c.page.Access, [...]string{"not", "read-only", "writable"}[c.pte], wants)
		}
	}
	for from := range w.p.Nodes {
		for to := range w.p.Nodes {
			l := &s.links[from][to]
			for _, m := range l.m[:l.n] {
				add("on the way from node %d to node %d: %v", from, to, m)
			}
		}
	}
	for k := range w.p.Threads {
		t := &s.threads[k]
		where := fmt.Sprintf("vCPU %d on node %d", k, w.p.Threads[k].Node)
		if w.p.Token {
			st := w.load(k)
			if st.Asking() {
				where += ", which asks for the token,"
			} else if st.Holding() {
				where += ", which has the token,"
			}
		}
		switch t.phase {
		case awake:
			add("%s is to execute: %v", where, w.p.Threads[k].Program[t.instr])
		case asleep:
			read := ""
			if t.queued {
				read = " (not read yet)"
			}
			add("%s sleeps in a fault on a %s of %s%s", where, verb(t.write), pageName(t.page), read)
		}
	}
	for n := range w.p.Nodes {
		if d := &s.devices[n]; d.phase != idle {
			add("node %d's device waits for %s or has it pinned, to %s", n, pageName(d.page), verb(d.write))
		}
	}
	return lines
}
