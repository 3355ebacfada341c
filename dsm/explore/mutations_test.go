package explore

import (
	"slices"
	"strings"
	"testing"

	"coalesce/dsm"
)

// The profiles that mutations are looked for in: small ones.
var (
	readWrite = []Instr{R(pageA), W(pageA)}
	two       = Profile{Name: "two", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: free(2, readWrite...), Hold: HoldFree}
	three     = Profile{Name: "three", Nodes: 3, Homes: []dsm.NodeID{0}, Threads: free(3, readWrite...), Hold: HoldFree}
	reclaims  = Profile{Name: "reclaims", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: free(2, readWrite...), Budget: one(Reclaim)}
	fetching  = Profile{Name: "fetching", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: free(2, readWrite...), Hold: HoldFree, Budget: one(Fetch)}
	crowd     = Profile{Name: "crowd", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: append(free(2, readWrite...), free(2, readWrite...)...)}
	pinning   = Profile{Name: "device", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: free(2, readWrite...), Devices: []dsm.NodeID{0}}
	rivals    = Profile{Name: "rivals", Nodes: 2, Homes: []dsm.NodeID{0, 1}, Threads: []Thread{once(0, both), once(1, both)},
		Hold: HoldFree, Token: true, Starvation: true}
	widening = Profile{Name: "widening", Nodes: 2, Homes: []dsm.NodeID{0, 1}, Threads: []Thread{once(0, both, both), once(1, widens)},
		Hold: HoldFree, Token: true, Eager: true}
	queueing = Profile{Name: "queueing", Nodes: 3, Homes: []dsm.NodeID{0}, Threads: []Thread{once(0, W(pageA)), once(1, W(pageA)), once(2, W(pageA))},
		Hold: HoldFree, Token: true, Eager: true}
	contents  = Profile{Name: "contents", Nodes: 3, Homes: []dsm.NodeID{0}, Threads: free(3, readWrite...), Contents: true}
	lateFault = Profile{Name: "late", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: []Thread{once(0, R(pageA)), once(1, R(pageA))}, Token: true, Eager: true,
		Budget: [disturbances]uint8{Stale: 1, Duplicate: 1}}
	overtaking = Profile{Name: "overtaking", Nodes: 3, Homes: []dsm.NodeID{0}, Threads: []Thread{once(0, W(pageA)), once(1, W(pageA), W(pageA)), once(2, W(pageA))},
		Token: true, Eager: true}
	again = Profile{Name: "again", Nodes: 2, Homes: []dsm.NodeID{0}, Threads: free(2, W(pageA)), Hold: HoldFree, Token: true, Eager: true}
)

// comes reports whether a step was given a message of kind k.
func comes(ev *dsm.Event, k dsm.Kind) bool { return ev.Kind == dsm.EvMessage && ev.Msg.Kind == k }

// without returns acts but those that drop names.
func without(acts []dsm.Action, drop func(a dsm.Action) bool) []dsm.Action {
	return slices.DeleteFunc(slices.Clone(acts), drop)
}

func sends(a dsm.Action, k dsm.Kind) bool { return a.Op == dsm.OpSend && a.Msg.Kind == k }

// late puts the first action of op behind the message of kind k that follows it.
func late(acts []dsm.Action, op dsm.Op, k dsm.Kind) []dsm.Action {
	acts = slices.Clone(acts)
	for i := range acts {
		if acts[i].Op == op && i+1 < len(acts) && sends(acts[i+1], k) {
			acts[i], acts[i+1] = acts[i+1], acts[i]
			break
		}
	}
	return acts
}

type after = func(n dsm.Node, p *dsm.Page, d *dsm.Dir, ev dsm.Event, acts []dsm.Action) []dsm.Action

// onActions makes a mutation of what a step asks for.
func onActions(f func(acts []dsm.Action) []dsm.Action) after {
	return func(_ dsm.Node, _ *dsm.Page, _ *dsm.Dir, _ dsm.Event, acts []dsm.Action) []dsm.Action { return f(acts) }
}

// hiding returns a mutation that shows a step another page than there is, if when
// says so: what hide changes is as before after it.
func hiding(when func(p *dsm.Page, ev *dsm.Event) bool, hide func(p *dsm.Page), restore func(p *dsm.Page, was dsm.Page)) mutation {
	var was dsm.Page
	hidden := false
	return mutation{
		before: func(_ dsm.Node, p *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
			if hidden = when(p, ev); hidden {
				was = *p
				hide(p)
			}
			return true
		},
		after: func(_ dsm.Node, p *dsm.Page, _ *dsm.Dir, _ dsm.Event, acts []dsm.Action) []dsm.Action {
			if hidden {
				restore(p, was)
			}
			return acts
		},
	}
}

// mutations are mistakes, each with the profile that shows it and words of what
// is noticed.
var mutations = []struct {
	name string
	in   Profile
	m    mutation
	want string
}{
	// Invalidation.
	{"an acknowledgement without unmapping", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		if slices.ContainsFunc(acts, func(a dsm.Action) bool { return sends(a, dsm.InvAck) }) {
			return without(acts, func(a dsm.Action) bool { return a.Op == dsm.OpZap })
		}
		return acts
	})}, "more with page A than its state I allows"},
	{"the acknowledgement leaves before the page is unmapped", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return late(acts, dsm.OpZap, dsm.InvAck)
	})}, "writers on nodes"},
	{"one copy is not invalidated", three, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.Req) && ev.Msg.Flags&dsm.FlagWrite != 0 && d.Phase == dsm.Idle {
			for n := range dsm.NodeID(maxNodes) {
				if d.Copies.Has(n) && n != d.Owner && n != ev.From {
					d.Copies = d.Copies.Without(n)
					break
				}
			}
		}
		return true
	}}, "writers on nodes"},
	{"granted before all acknowledgements", three, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.InvAck) {
			d.Acks = dsm.NodeSet(0).With(ev.From)
		}
		return true
	}}, "writers on nodes"},
	{"one acknowledgement is skipped", three, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		return !comes(ev, dsm.InvAck) || ev.From != 2
	}}, "which is not there"},
	{"an acknowledged copy stays in the set", two, mutation{after: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev dsm.Event, acts []dsm.Action) []dsm.Action {
		if comes(&ev, dsm.InvAck) {
			d.Copies = d.Copies.With(ev.From)
		}
		return acts
	}}, "which is not there"},

	// Supplying a page.
	{"the alias is read before DONTNEED", two, readsTooEarly(), "without the last write"},
	{"the page leaves before it is unmapped", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return late(acts, dsm.OpZap, dsm.Data)
	})}, "writers on nodes"},
	{"the page leaves before it is write-protected", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return late(acts, dsm.OpProtect, dsm.Data)
	})}, "writers on nodes"},
	{"modified to owned without write protection", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return without(acts, func(a dsm.Action) bool { return a.Op == dsm.OpProtect })
	})}, "more with page A than its state O allows"},
	{"supplied by a node that is not the owner", three, mutation{after: func(n dsm.Node, _ *dsm.Page, _ *dsm.Dir, _ dsm.Event, acts []dsm.Action) []dsm.Action {
		for i, a := range acts {
			if sends(a, dsm.FwdWrite) && a.To != n.Self && a.Msg.Peer != n.Self {
				acts = slices.Clone(acts)
				acts[i].To = n.Self
			}
		}
		return acts
	}}, "protocol violation"},
	{"the home supplies what it does not have", three, mutation{before: func(n dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.Req) && ev.From != n.Self && ev.Msg.Flags&dsm.FlagWrite == 0 && d.Phase == dsm.Idle {
			d.Copies = d.Copies.With(n.Self)
		}
		return true
	}}, "there is no copy here"},
	{"Done is dropped", three, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return without(acts, func(a dsm.Action) bool { return sends(a, dsm.Done) })
	})}, "not all is at rest"},
	{"the home does not wait for Done", three, mutation{after: func(n dsm.Node, _ *dsm.Page, _ *dsm.Dir, _ dsm.Event, acts []dsm.Action) []dsm.Action {
		acts = slices.Clone(acts)
		for _, a := range acts {
			if (sends(a, dsm.FwdRead) || sends(a, dsm.FwdWrite)) && a.To != n.Self {
				acts = append(acts, dsm.Action{Op: dsm.OpSend, To: n.Self, Msg: dsm.Msg{Kind: dsm.Done, Page: a.Msg.Page, Peer: a.Msg.Peer}})
			}
		}
		return without(acts, func(a dsm.Action) bool { return sends(a, dsm.Done) && a.To != n.Self })
	}}, "which is not there"},
	{"the copyset is not updated", two, mutation{after: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev dsm.Event, acts []dsm.Action) []dsm.Action {
		if comes(&ev, dsm.Done) && ev.Msg.Peer != d.Owner {
			d.Copies = d.Copies.Without(ev.Msg.Peer)
		}
		return acts
	}}, "does not know"},
	{"a copy that is gone is upgraded", two, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.Req) && ev.Msg.Flags&dsm.FlagWrite != 0 {
			d.Copies = d.Copies.With(ev.From)
		}
		return true
	}}, "which is not there"},

	// Installing.
	{"the content that came is not stored", two, mutation{skips: dutyFill}, "without the last write"},
	{"a copy to read is mapped writable", two, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return raised(acts, dsm.OpInstall)
	})}, "more with page A than its state"},
	{"a copy that was fine is mapped writable", reclaims, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return raised(acts, dsm.OpResolve)
	})}, "more with page A than its state"},
	{"data that nobody asked for is taken", three, mutation{
		before: func(_ dsm.Node, p *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
			if comes(ev, dsm.Data) && p.Want == dsm.WantNothing {
				p.Want, p.Access = dsm.WantRead, dsm.Invalid
				ev.Msg.Flags &^= dsm.FlagWrite
			}
			return true
		},
		after: onActions(func(acts []dsm.Action) []dsm.Action { // the supplier sends twice
			for _, a := range acts {
				if sends(a, dsm.Data) && a.Msg.Flags&dsm.FlagWrite == 0 {
					return append(slices.Clone(acts), a)
				}
			}
			return acts
		}),
	}, "while the guest has it mapped"},

	// Contents.
	{"every node is taken to have the content", contents, mutation{pass: func(l *dsm.Lineage, to dsm.NodeID, changed bool) (uint32, dsm.NodeSet, bool) {
		version, holders, _ := l.Pass(to, changed)
		return version, holders, true
	}}, "which is no base"},
	{"who had the content before it changed is taken to have it", contents, mutation{pass: func(l *dsm.Lineage, to dsm.NodeID, changed bool) (uint32, dsm.NodeSet, bool) {
		had := l.Holders
		version, _, knew := l.Pass(to, changed)
		l.Holders = had.With(to)
		return version, had, knew
	}}, "which is no base"},
	{"a changed content keeps its version", contents, mutation{pass: func(l *dsm.Lineage, to dsm.NodeID, changed bool) (uint32, dsm.NodeSet, bool) {
		version, holders, knew := l.Pass(to, changed)
		if changed {
			version--
			l.Version--
		}
		return version, holders, knew
	}}, "which is no base"},
	{"a change is overlooked", contents, mutation{pass: func(l *dsm.Lineage, to dsm.NodeID, changed bool) (uint32, dsm.NodeSet, bool) {
		return l.Pass(to, false)
	}}, "which is no base"},
	{"a page that is to be written keeps an old twin", contents, mutation{skips: dutyTwin}, "without the last write"},

	// Waking.
	{"installing wakes nobody", two, mutation{skips: dutyWake}, "not all is at rest"},
	{"a page that is waited for comes unmapped, as it was asked for ahead", fetching, mutation{skips: dutyMark}, "not all is at rest"},
	{"a userfault of a page that came unmapped is dropped", fetching, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return without(acts, func(a dsm.Action) bool { return a.Op == dsm.OpResolve })
	})}, "not all is at rest"},
	{"a userfault of a page that is there is dropped", reclaims, mutation{after: onActions(func(acts []dsm.Action) []dsm.Action {
		return without(acts, func(a dsm.Action) bool { return a.Op == dsm.OpResolve })
	})}, "not all is at rest"},
	{"a write-protection fault counts as a read", two, mutation{fault: func(e pte, write bool) bool {
		return write && e != readOnly
	}}, "never come to rest"},

	// Requests.
	{"two transactions at once", three, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.Req) {
			d.Phase = dsm.Idle
		}
		return true
	}}, "protocol violation"},
	{"a request to read becomes one to write on its way", crowd, mutation{before: func(_ dsm.Node, p *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
		if ev.Kind == dsm.EvFault && ev.Write && p.Want == dsm.WantRead {
			p.Want = dsm.WantWrite
		}
		return true
	}}, "not the access that was asked for"},
	{"a request is forgotten while another is served", two, mutation{before: func(_ dsm.Node, _ *dsm.Page, d *dsm.Dir, ev *dsm.Event) bool {
		return !comes(ev, dsm.Req) || d.Phase == dsm.Idle
	}}, "not all is at rest"},

	// Holds and pins.
	{"what is deferred is forgotten", two, mutation{skips: dutyPush}, "not all is at rest"},
	{"a fault drops what is deferred", two, mutation{before: func(_ dsm.Node, p *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
		if ev.Kind == dsm.EvFault && ev.Write && p.Access == dsm.Shared {
			p.Deferred = dsm.Nothing
		}
		return true
	}}, "not all is at rest"},
	{"a pin is ignored", pinning, hiding(
		func(p *dsm.Page, ev *dsm.Event) bool { return ev.Kind == dsm.EvMessage && p.Pins > 0 },
		func(p *dsm.Page) { p.Pins, p.WritePins = 0, 0 },
		func(p *dsm.Page, was dsm.Page) { p.Pins, p.WritePins = was.Pins, was.WritePins },
	), "more with page A than its state"},
	{"a hold blocks an upgrade", widening, hiding(
		func(p *dsm.Page, ev *dsm.Event) bool { return ev.Held && p.Want == dsm.WantWrite },
		func(p *dsm.Page) { p.Want = dsm.WantNothing },
		func(p *dsm.Page, was dsm.Page) { p.Want = was.Want },
	), "rest"},

	// The token.
	{"nobody asks for the token", rivals, mutation{queue: func(*dsm.TokenQueue, dsm.Kind, dsm.Waiter) bool { return false }},
		"nobody knows"},
	{"the queue is FIFO for the token's holder, too", queueing, mutation{before: func(_ dsm.Node, _ *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
		if comes(ev, dsm.Req) {
			ev.Msg.Flags &^= dsm.FlagToken
		}
		return true
	}}, "with the token is at place"},
	{"a promotion is ignored", queueing, mutation{before: func(_ dsm.Node, _ *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
		return !comes(ev, dsm.Req) || ev.Msg.Flags&dsm.FlagPromote == 0
	}}, "waits in the queue"},
	{"the grant promotes nothing", queueing, mutation{before: func(_ dsm.Node, _ *dsm.Page, _ *dsm.Dir, ev *dsm.Event) bool {
		return ev.Kind != dsm.EvPromote
	}}, "waits in the queue"},
	{"the token's holder gives up its streak", rivals, mutation{skips: dutyStreak}, "before its instruction is complete"},
	{"a vCPU keeps the token while it halts", lateFault, mutation{skips: dutyHalt}, "not all is at rest"},
	{"a promotion goes out after the proof", overtaking, mutation{skips: dutyProven}, "waits in the queue"},
	{"what the streak delayed is forgotten", rivals, mutation{skips: dutyReleaseStreak}, "rest"},
	{"the request is lost when the vCPU has its pages again", rivals, mutation{perform: func(w *world, n dsm.NodeID, a *act) {
		if a.op != dsm.OpInstall {
			return
		}
		for k := range w.p.Threads {
			if w.p.Threads[k].Node == n && w.load(k).Asking() {
				w.s.threads[k].streak[0] = 0 // counting
			}
		}
	}}, "may wait for ever"},
	{"a request that overtakes its vCPU's release is lost", again, mutation{queue: func(q *dsm.TokenQueue, kind dsm.Kind, from dsm.Waiter) bool {
		holder, held := q.Holder()
		return kind != dsm.TokenReq || !held || holder != from
	}}, "nobody knows"},
	{"two vCPUs hold the token", rivals, mutation{queue: func(q *dsm.TokenQueue, kind dsm.Kind, from dsm.Waiter) bool {
		if holder, held := q.Holder(); held && kind == dsm.TokenReq {
			q.Release(holder)
		}
		return true
	}}, "nobody knows"},
	{"the release of the token is lost", again, mutation{queue: func(q *dsm.TokenQueue, kind dsm.Kind, from dsm.Waiter) bool {
		return kind != dsm.TokenRelease
	}}, "rest"},
}

// readsTooEarly has the content read while the guest can still write it.
func readsTooEarly() mutation {
	early := false
	return mutation{perform: func(w *world, n dsm.NodeID, a *act) {
		c := &w.s.copies[n][pageA]
		switch {
		case a.op == dsm.OpZap:
			// A vCPU's write may come in between.
			if early = c.pte == writable && w.tape.choose(2) == 1; early {
				w.written(n, pageA)
			}
		case a.op == dsm.OpSend && a.msg.kind == dsm.Data && early:
			c.fresh, early = false, false
		}
	}}
}

// raised returns acts with a copy mapped writable.
func raised(acts []dsm.Action, op dsm.Op) []dsm.Action {
	acts = slices.Clone(acts)
	for i := range acts {
		if acts[i].Op == op {
			acts[i].Writable = true
		}
	}
	return acts
}

// TestMutationsAreCaught shows that the checks can fail: with each mistake, one
// is noticed, and without it none is.
func TestMutationsAreCaught(t *testing.T) {
	sound := map[string]bool{}
	for _, x := range mutations {
		t.Run(x.name, func(t *testing.T) {
			if !sound[x.in.Name] {
				sound[x.in.Name] = true
				if r, err := Explore(x.in, Options{}); err != nil || r.Violation != nil {
					t.Fatalf("%v; without the mistake: %v", err, r.Violation)
				}
			}
			r, err := explore(x.in, &x.m, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if r.Violation == nil {
				t.Fatalf("not noticed in %v", r)
			}
			t.Logf("%v\n%v", r, r.Violation)
			if !strings.Contains(r.Violation.What, x.want) {
				t.Errorf("noticed as %q, want %q", r.Violation.What, x.want)
			}
		})
	}
}
