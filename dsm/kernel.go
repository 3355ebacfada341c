package dsm

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"coalesce/dsm/uffd"
)

// kernel is the Host that guests run on.
type kernel struct {
	*uffd.Memory
	*uffd.Uffd
	timer int // a timerfd: Go's own timers round to milliseconds
}

func newKernel(mem *uffd.Memory) (*kernel, error) {
	u, err := uffd.Open(mem, uffd.Options{})
	if err != nil {
		return nil, fmt.Errorf("open userfaultfd for the guest's memory: %w", err)
	}
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create the hold timer: %w", os.NewSyscallError("timerfd_create", err)), u.Close())
	}
	return &kernel{Memory: mem, Uffd: u, timer: timer}, nil
}

func (*kernel) Breathe() { uffd.Breathe() }

var epoch = time.Now()

func (*kernel) Now() int64 { return int64(time.Since(epoch)) }

func (*kernel) CPUTime(tid uint32) uint64 { return uint64(ThreadCPUTime(int(tid))) }

func (k *kernel) SetAlarm(in int64) {
	// Fails for a bad descriptor or time only; both are ours.
	_ = unix.TimerfdSettime(k.timer, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(in)}, nil)
}

// awaitAlarm returns when the alarm goes off.
func (k *kernel) awaitAlarm() error {
	var expirations [8]byte
	if _, err := unix.Read(k.timer, expirations[:]); err != nil && err != unix.EINTR {
		return os.NewSyscallError("read", err)
	}
	return nil
}

// Close closes the userfaultfd and the timer; nobody may read either.
func (k *kernel) Close() error { return errors.Join(k.Uffd.Close(), unix.Close(k.timer)) }
