// Package tsc reads the processor's time stamp counter.
package tsc

// Read returns this processor's time stamp counter. Earlier loads are complete
// when it is read (LFENCE before RDTSC, SDM volume 2, RDTSC). Where the
// clocksource is tsc, all processors of the host agree.
func Read() uint64
