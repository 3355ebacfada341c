package vcpu_test

import (
	"context"
	"testing"

	"coalesce/guest/micro"
)

func TestSelfCheck(t *testing.T) {
	for _, vectors := range vectorLevels(t) {
		t.Run(vectors.String(), func(t *testing.T) {
			r := newRig(t)
			v := r.add(0)
			must(t, micro.SelfCheck(r.Machine, micro.SelfCheckOptions{
				Code: codeAt, Data: dataAt, Vectors: vectors, Rounds: 20,
				Timer: 1_000_000, TimerVector: irqVector, IO: true,
			}))
			r.start(v, micro.Options{RIP: codeAt, XCR0: vectors.XCR0()})
			status := func() micro.Status { return micro.SelfCheckStatus(dataAt, r.RAM.Load) }
			r.until("it has made 300 passes", func() bool { return status().Passes > 300 })
			r.until("the timer has ticked 5 times", func() bool { return status().Ticks > 5 })
			must(t, v.Pause(context.Background()))
		})
	}
}
