package vcpu

import (
	"time"

	"golang.org/x/sys/unix"
)

// Clock is CLOCK_MONOTONIC in nanoseconds, the time base of a vCPU's timer:
// the apic.Clock to give to the APIC of every vCPU of this process.
type Clock struct{}

var clockBase, clockBaseNS = func() (time.Time, int64) {
	t := time.Now()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic("clock_gettime(CLOCK_MONOTONIC): " + err.Error())
	}
	return t, ts.Nano()
}()

// NowNS reads the clock through Go's vDSO call; unix.ClockGettime would be a
// system call. The base was taken after Go's, so that NowNS is never behind:
// a timer that has fired finds its deadline passed.
func (Clock) NowNS() int64 { return clockBaseNS + int64(time.Since(clockBase)) }
