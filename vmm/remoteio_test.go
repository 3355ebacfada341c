package vmm

import (
	"bytes"
	"testing"

	"coalesce/link"
	"coalesce/link/linktest"
	"coalesce/vmm/bus"
)

// memoryDevice is a device that remembers what is written to it.
type memoryDevice struct{ data [8]byte }

func (d *memoryDevice) Read(off uint64, data []byte)  { copy(data, d.data[off:]) }
func (d *memoryDevice) Write(off uint64, data []byte) { copy(d.data[off:], data) }

// TestRemoteBus sends accesses over a link to a bus and checks the answers.
func TestRemoteBus(t *testing.T) {
	client, lender := linktest.Pipe(t, link.IO, link.Options{}, link.Options{})
	ports, mmio := bus.NewPorts(), bus.NewMMIO()
	if err := ports.Register("memory", 0x100, 8, new(memoryDevice)); err != nil {
		t.Fatal(err)
	}
	served, replied := make(chan error, 1), make(chan error, 1)
	go func() {
		served <- serveIO(client, 1, &stamper{}, nil, ports, mmio, func(cpu int) bool { return cpu == 1 })
	}()
	remote := newRemoteBus(lender, &stamper{}, nil, 2)
	go func() { replied <- remote.serve() }()

	write := ioAccess{CPU: 1, Size: 4, Count: 1, Write: true, Address: 0x102}
	if err := remote.access(write, []byte{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if err := remote.access(ioAccess{CPU: 1, Size: 2, Count: 2, Address: 0x102}, got); err != nil {
		t.Fatal(err)
	}
	if want := []byte{1, 2, 1, 2}; !bytes.Equal(got, want) { // a string instruction reads one port twice
		t.Errorf("read %v, want %v", got, want)
	}
	if err := remote.access(ioAccess{CPU: 1, Size: 8, Count: 1, MMIO: true, Address: 1 << 40}, make([]byte, 8)); err != nil {
		t.Errorf("an access no device claims: %v", err)
	}
	// A vCPU that is not the lender's ends the session on both sides.
	if err := remote.access(ioAccess{CPU: 0, Size: 1, Count: 1, Address: 0x100}, got[:1]); err == nil {
		t.Error("an access for somebody else's vCPU was answered")
	}
	if err := <-served; err == nil {
		t.Error("the client goes on serving")
	}
	if err := <-replied; err == nil {
		t.Error("the lender goes on waiting")
	}
}
