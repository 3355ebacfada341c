package vmm

import (
	"bytes"
	"errors"
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
		served <- serveIO(client, stamper{}, ports, mmio, func(cpu int) bool { return cpu == 1 })
	}()
	remote := newRemoteBus(lender, stamper{}, 2)
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

func FuzzIOAccessDecode(f *testing.F) {
	var b [ioAccessSize]byte
	a := ioAccess{CPU: 1, Size: 4, Count: 1, Write: true, Address: 0x3f8}
	a.encode(&b)
	f.Add(append(b[:], 1, 2, 3, 4), false)
	f.Add(b[:], true)
	a = ioAccess{CPU: 1, Size: 8, Count: 1, MMIO: true, Address: 0xfec00000}
	a.encode(&b)
	f.Add(b[:], false)
	f.Fuzz(func(t *testing.T, in []byte, reply bool) {
		var a ioAccess
		data, err := a.decode(in, reply)
		if err != nil {
			return
		}
		if n := int(a.Size) * int(a.Count); n > ioMaxData || len(data) != 0 && len(data) != n {
			t.Fatalf("%+v with %d bytes of data was accepted", a, len(data))
		}
		var again [ioAccessSize]byte
		a.encode(&again)
		if !bytes.Equal(append(again[:], data...), in) {
			t.Fatalf("decode and encode differ for %x", in)
		}
	})
}

func FuzzDecodeControl(f *testing.F) {
	f.Add([]byte(`{"node":1,"shares":[{"CPUs":1,"Memory":2097152},{"CPUs":1}],"view":1}`))
	f.Add([]byte(`{"cpus":1}{"cpus":1}`))
	f.Add([]byte{})
	f.Add([]byte(" "))
	f.Add([]byte("{"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s setup
		err := decodeControl(in, &s)
		// The end of a message is not the end of its connection.
		if err != nil && (!errors.Is(err, errMalformedControl) || link.Lost(err)) {
			t.Fatal(err)
		}
		if err == nil {
			// What a hostile setup lays out is bounded or refused.
			if l, err := NewLayout(s.Shares); err == nil && len(l.CPUs) > MaxCPUs {
				t.Fatalf("%d CPUs", len(l.CPUs))
			}
		}
	})
}
