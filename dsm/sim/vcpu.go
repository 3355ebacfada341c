package sim

import (
	"fmt"

	"coalesce/dsm"
	"coalesce/dsm/uffd"
)

// vcpu is a vCPU's thread.
//
//	running ── fault ──► asleep ── wake, or a kick ──► running
//	   │ ▲                                               │
//	   │ └──────── interrupt, time is up ── halted ◄─────┤ HLT
//	   └──────────────────────────────────► finished ◄───┘
type vcpu struct {
	n      *node
	index  uint32
	tid    uint32
	thread *dsm.Thread // nil: a stranger
	program

	t     *thread
	state vcpuState

	// What it executes: the last is under way, those before are interrupted.
	frames [3]codeFrame
	depth  int

	fault *userfault // that it sleeps on, or tries again while it spins
	spins int        // how often it will

	lastFault uint32 // the page it faulted on last

	kicked, stalled bool // see vcpu.VCPU.Stall
	stalledAt       int64

	used  uint64 // ns of CPU time, up to since if it runs
	since int64

	// script goes before the program.
	script []uint32 // pages to read, as the last thing

	// Pages that came to it as the token's holder.
	fetched map[uint32]bool
}

type vcpuState uint8

const (
	running vcpuState = iota
	asleep
	halted
	finished
)

// codeFrame is a piece of code that is executed: one instruction of the program,
// or several of an interrupt's handler.
type codeFrame struct {
	instruction
	began   int64 // when the instruction was first tried
	tried   bool
	more    int  // instructions that follow in this frame
	eoi     bool // it ends with an exit to user space
	handler bool
	entered int64 // when the handler began
}

func (n *node) addVCPU(d dice) {
	v := n.newThread(d)
	v.thread = n.driver.Engine.AddThread(int(v.tid), v.stall)
	v.tick(0)
}

// addStranger adds a thread that uses the guest's memory and that the engine does
// not know: it has no streak, and nothing is held for it.
func (n *node) addStranger(d dice) {
	v := n.newThread(d)
	v.mix, v.sum = [numKinds]int{}, 1
	v.mix[kindRoamer] = 1
	v.single = true
}

func (n *node) newThread(d dice) *vcpu {
	v := &vcpu{n: n, index: uint32(len(n.vcpus)), fetched: map[uint32]bool{}}
	v.tid = 1000*uint32(n.id+1) + v.index
	v.program = newProgram(n.w, n, d)
	n.vcpus = append(n.vcpus, v)
	v.t = n.spawn(fmt.Sprintf("vCPU %d", v.index), v.run)
	v.t.wakeIn(1 + d.Int64N(1_000_000))
	return v
}

// proves tells the engine that KVM_RUN returned with an exit.
func (v *vcpu) proves() {
	if v.thread != nil {
		v.n.callFlushed(v.thread.Proof)
	}
}

// idles tells the engine that the vCPU halts or goes on.
func (v *vcpu) idles(idle bool) {
	if v.thread != nil {
		v.n.callFlushed(func() { v.thread.Idle(idle) })
	}
}

// cpuTime returns the CPU time used so far.
func (v *vcpu) cpuTime() uint64 {
	if v.state == running {
		return v.used + uint64(v.n.w.now-v.since)
	}
	return v.used
}

// enter changes the state; CPU time is used while running only.
func (v *vcpu) enter(s vcpuState) {
	v.used = v.cpuTime()
	v.since = v.n.w.now
	v.state = s
}

// run is the thread.
func (v *vcpu) run(t *thread) {
	w := v.n.w
	defer v.enter(finished)
	for !v.n.ending {
		v.enter(running)
		if v.fault != nil { // it spins
			v.n.kernel.forget(v.fault)
			v.fault = nil
		}
		if v.kicked && !v.stalled && v.depth < len(v.frames) {
			v.kicked = false
			v.interrupt()
		}
		switch {
		case v.depth > 0:
			v.try(t)
		case len(v.script) > 0:
			f := v.push()
			f.reset()
			f.add(v.script[0], reads, 0)
			v.script = v.script[1:]
			v.try(t)
		case w.stopping():
			v.finish(t)
		default:
			v.goOn(t)
		}
	}
}

// goOn does what the program does next.
func (v *vcpu) goOn(t *thread) {
	switch p := v.dice.Float64(); {
	case p < v.computes:
		t.sleep(v.n.cost(v.dice.spread(500, 200_000)))
	case p < v.computes+v.exits:
		v.proves()
		t.sleep(v.n.cost(3_000))
	case p < v.computes+v.exits+v.halts:
		v.halt(t, v.dice.spread(20_000, 5_000_000))
	default:
		f := v.push()
		v.draw(&f.instruction)
		v.try(t)
	}
}

func (v *vcpu) push() *codeFrame {
	f := &v.frames[v.depth]
	v.depth++
	*f = codeFrame{instruction: f.instruction, entered: v.n.w.now}
	return f
}

// interrupt begins an interrupt's handler in front of what was under way.
func (v *vcpu) interrupt() {
	f := v.push()
	f.more, f.eoi, f.handler = v.dice.IntN(4), v.dice.chance(0.7), true
	v.drawKernel(&f.instruction)
	v.n.w.trace(v.n, "is interrupted")
}

// try executes the instruction under way if all its pages are there.
func (v *vcpu) try(t *thread) {
	w, f := v.n.w, &v.frames[v.depth-1]
	if !f.tried {
		f.tried, f.began = true, w.now
	}
	for _, a := range f.accesses {
		if fault, ok := v.n.kernel.access(a.page, a.write); !ok {
			v.faults(t, fault)
			return
		}
	}
	f.perform(v.n, v.dice)
	w.executed(v, f)
	v.depth--
	if f.more > 0 {
		f.more--
		f.tried = false
		v.depth++
		v.drawKernel(&f.instruction)
	} else {
		if f.eoi {
			v.proves()
		}
		if f.handler {
			v.tick(8 * (w.now - f.entered)) // vCPUs give a slow one respite
		}
	}
	t.sleep(v.n.cost(v.dice.spread(200, 3_000)))
}

// faults has the kernel tell the engine and sleeps. With a signal pending inside
// KVM's instruction emulator it does not sleep but tries again, and again.
func (v *vcpu) faults(t *thread, f uffd.Fault) {
	f.TID = v.tid
	v.lastFault = f.Page
	v.fault = &userfault{f, v}
	if v.spins == 0 && !v.stalled && v.n.w.dice.chance(v.n.w.sc.Spin) {
		v.spins = v.dice.upTo(30)
	}
	v.n.kernel.post(v.fault)
	if v.spins > 0 {
		v.spins--
		t.sleep(v.n.cost(4_000))
		return
	}
	v.enter(asleep)
	for v.fault != nil {
		t.park()
	}
}

// woken is for the kernel: the page was woken, or the thread's sleep is over.
func (v *vcpu) woken() {
	v.fault = nil
	if v.state == asleep {
		v.t.wakeIn(v.n.cost(costWake))
	}
}

// tick has the timer's next interrupt come, in at least so many ns.
func (v *vcpu) tick(least int64) {
	w := v.n.w
	if mean := w.sc.Kick; mean != 0 {
		w.after(max(least, int64(w.dice.ExpFloat64()*float64(mean))), func() {
			if !w.stopping() && v.state != finished {
				v.kick()
			}
		})
	}
}

// kick is an IPI, or the timer's signal.
func (v *vcpu) kick() {
	v.kicked = true
	switch {
	case v.stalled: // stall sends it
	case v.state == asleep && v.fault != nil:
		v.n.w.trace(v.n, "vCPU %d is kicked in its fault on page %#x", v.index, v.fault.Page)
		v.n.kernel.forget(v.fault)
		v.woken()
	case v.state == halted:
		v.t.wakeIn(v.n.cost(costWake))
	}
}

// stall holds kicks back while the vCPU waits for a page; for the engine.
func (v *vcpu) stall(stalled bool) {
	v.n.w.Switch()
	v.stalled, v.stalledAt = stalled, v.n.w.now
	if !stalled && v.kicked {
		v.n.w.after(v.n.cost(1_000), func() {
			if v.kicked && !v.n.dead {
				v.kick()
			}
		})
	}
}

// halt waits for an interrupt, or for some time.
func (v *vcpu) halt(t *thread, in int64) {
	v.proves() // HLT is an exit
	v.idles(true)
	v.enter(halted)
	for until := v.n.w.now + in; v.n.w.now < until && (!v.kicked || v.stalled) && !v.n.ending; {
		t.wakeIn(until - v.n.w.now)
		t.park()
	}
	v.enter(running)
	v.idles(false)
}

// finish ends the program, until there is a script.
func (v *vcpu) finish(t *thread) {
	v.n.w.trace(v.n, "has finished")
	v.proves()
	v.idles(true)
	v.enter(finished)
	for len(v.script) == 0 && !v.n.ending {
		t.park()
	}
	v.enter(running)
	v.idles(false)
}

// meanwhile has a vCPU, which does not wait for the engine, write to a page just
// before it cannot any more, or as soon as it can.
func (n *node) meanwhile(page uint32) {
	if e := n.kernel.pte[page]; !e.present || e.wp || !n.w.dice.chance(0.1) {
		return
	}
	v := n.vcpus[n.w.dice.IntN(len(n.vcpus))]
	if v.state != running {
		return
	}
	n.w.trace(n, "vCPU %d writes to page %#x at this moment", v.index, page)
	n.w.truth.holds(n, page, "is used")
	a := access{page: page, write: true, does: scribbles}
	a.perform(n, n.w.dice, page)
}

// needs reports whether an instruction that is not complete uses a page;
// onlyWrite: for writing.
func (v *vcpu) needs(page uint32, onlyWrite bool) bool {
	for i := range v.frames[:v.depth] {
		for _, a := range v.frames[i].accesses {
			if a.page == page && (a.write || !onlyWrite) {
				return true
			}
		}
	}
	return false
}
