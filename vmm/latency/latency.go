// Package latency keeps the host's processors from idle states that take long to
// wake from: each page, interrupt and device access of a guest on several hosts
// wakes a thread.
package latency

import (
	"encoding/binary"
	"fmt"
	"os"
)

// Device is the kernel's interface, see Documentation/power/pm_qos_interface.rst.
// Only root may open it unless somebody has changed that; a kernel without
// CONFIG_CPU_IDLE does not have it.
const Device = "/dev/cpu_dma_latency"

// Hold asks for wake-ups in no time, host-wide, until the result is closed. The
// error Is fs.ErrNotExist or fs.ErrPermission where that cannot be had.
func Hold() (*os.File, error) { return hold(Device) }

func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	// The most latency to bear, in microseconds; in force while the file is open.
	if err := binary.Write(f, binary.NativeEndian, int32(0)); err != nil {
		f.Close()
		return nil, fmt.Errorf("ask %s for none: %w", path, err)
	}
	return f, nil
}
