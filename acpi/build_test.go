package acpi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"coalesce/acpi/aml"
)

// TestStructureSizes holds the Go structures to the lengths in the
// specification.
func TestStructureSizes(t *testing.T) {
	for _, c := range []struct {
		structure any
		want      int
	}{
		{rootPointer{}, rsdpLength},
		{header{}, headerLength},
		{genericAddress{}, 12},
		{fadtBody{}, 276 - headerLength},
		{madtBody{}, 8},
		{madtX2APIC{}, 16},
		{madtIOAPIC{}, 12},
		{madtX2APICNMI{}, 12},
		{sratX2APIC{}, 24},
		{sratMemory{}, 40},
		{hmatDomain{}, hmatDomainLength},
		{hmatLocality{}, hmatLocalityLength},
	} {
		if got := binary.Size(c.structure); got != c.want {
			t.Errorf("%T has %d bytes, want %d", c.structure, got, c.want)
		}
	}
}

// checkBlob follows the pointers from the RSDP as a guest does.
func checkBlob(t *testing.T, m *Machine, b *Blob, base uint64, size int) {
	t.Helper()
	if b.Base != base || b.RSDP != base || base%16 != 0 || len(b.Bytes) > size {
		t.Fatalf("base %#x, RSDP %#x, %d bytes; asked for %#x, %d", b.Base, b.RSDP, len(b.Bytes), base, size)
	}
	le := binary.LittleEndian
	// at returns the memory from an address on.
	at := func(addr uint64, n int) []byte {
		t.Helper()
		if addr < base || addr-base > uint64(len(b.Bytes)) || uint64(n) > uint64(len(b.Bytes))-(addr-base) {
			t.Fatalf("%d bytes at %#x lie outside the tables", n, addr)
		}
		return b.Bytes[addr-base:][:n]
	}
	zeroSum := func(what string, p []byte) {
		t.Helper()
		var sum uint8
		for _, v := range p {
			sum += v
		}
		if sum != 0 {
			t.Errorf("%s: bytes add up to %#x", what, sum)
		}
	}
	seen := map[string]bool{}
	claim := func(sig string, addr uint64, p []byte) {
		t.Helper()
		zeroSum(sig, p)
		seen[sig] = true
		if e := b.Tables[sig]; e.Address != addr || !bytes.Equal(e.Bytes, p) {
			t.Errorf("%s lies at %#x with %d bytes, not at %#x with %d", sig, addr, len(p), e.Address, len(e.Bytes))
		}
	}
	tableAt := func(addr uint64) []byte {
		t.Helper()
		p := at(addr, int(le.Uint32(at(addr, headerLength)[4:])))
		if string(p[10:16]) != "COALSC" || string(p[16:24]) != "COALESCE" {
			t.Errorf("%s: OEM id %q, table id %q", p[:4], p[10:16], p[16:24])
		}
		claim(string(p[:4]), addr, p)
		return p
	}

	rsdp := at(b.RSDP, rsdpLength)
	if string(rsdp[:8]) != "RSD PTR " || rsdp[15] != 2 || le.Uint32(rsdp[16:]) != 0 {
		t.Fatalf("RSDP is %x", rsdp)
	}
	zeroSum("first part of the RSDP", rsdp[:20])
	claim("RSD PTR ", b.RSDP, rsdp)
	xsdt := tableAt(le.Uint64(rsdp[24:]))
	var order []string
	for p := xsdt[headerLength:]; len(p) > 0; p = p[8:] {
		addr := le.Uint64(p)
		entry := tableAt(addr)
		sig := string(entry[:4])
		order = append(order, sig)
		if sig == "FACP" {
			if sig := string(tableAt(le.Uint64(entry[140:]))[:4]); sig != "DSDT" {
				t.Errorf("the FADT points to %s", sig)
			}
		}
	}
	want := "[FACP APIC SRAT SLIT]"
	if m.Performance != nil {
		want = "[FACP APIC SRAT SLIT HMAT]"
	}
	if fmt.Sprint(order) != want {
		t.Errorf("the XSDT lists %v, want %s", order, want)
	}
	if len(seen) != len(b.Tables) {
		t.Errorf("reached %v, but there are %d tables", seen, len(b.Tables))
	}
}

func TestBuild(t *testing.T) {
	for name, machine := range machines {
		t.Run(name, func(t *testing.T) {
			const base, size = 0xE_0000, 0x2_0000
			m := machine()
			b, err := m.Build(base, size)
			if err != nil {
				t.Fatal(err)
			}
			checkBlob(t, m, b, base, size)

			again, err := machine().Build(base, len(b.Bytes))
			if err != nil {
				t.Fatalf("in just the room that it takes: %v", err)
			}
			if !bytes.Equal(again.Bytes, b.Bytes) {
				t.Error("the same machine gives other bytes")
			}

			_, err = m.Build(base, len(b.Bytes)-1)
			var tooSmall *SizeError
			if !errors.As(err, &tooSmall) || tooSmall.Need != len(b.Bytes) || tooSmall.Have != len(b.Bytes)-1 {
				t.Errorf("in one byte less: %v", err)
			}

			high, err := m.Build(1<<40, size)
			if err != nil {
				t.Fatal(err)
			}
			checkBlob(t, m, high, 1<<40, size)
		})
	}
}

func TestBuildBase(t *testing.T) {
	m := oneCPU()
	for _, base := range []uint64{0xE_0008, math.MaxUint64 - 15} {
		_, err := m.Build(base, 0x2_0000)
		var field *FieldError
		if !errors.As(err, &field) || field.Field != "base" {
			t.Errorf("at %#x: %v", base, err)
		}
	}
}

// TestBuildKeepsMachine: sorting entries must not sort the caller's slices.
func TestBuildKeepsMachine(t *testing.T) {
	m := slots()
	if _, err := m.Tables(); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(m.CPUs, m.Memory), fmt.Sprint(slots().CPUs, slots().Memory); got != want {
		t.Errorf("the machine became %s, was %s", got, want)
	}
}

// TestBuildLarge: the room that a PC leaves for tables is enough for far more
// CPUs than a guest of several hosts will have.
func TestBuildLarge(t *testing.T) {
	m := hotplug()
	for i := len(m.CPUs); i < 512; i++ {
		m.CPUs = append(m.CPUs, CPU{UID: uint32(1000 + i), APICID: uint32(1000 + i), Domain: 1, State: OnlineCapable})
	}
	b, err := m.Build(0xE_0000, 0x2_0000)
	if err != nil {
		t.Fatal(err)
	}
	checkBlob(t, m, b, 0xE_0000, 0x2_0000)
}

func TestSLITDefault(t *testing.T) {
	m := slots()
	m.Distances = nil
	tables, err := m.Tables()
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{
		4, 0, 0, 0, 0, 0, 0, 0,
		10, 20, 20, 20,
		20, 10, 20, 20,
		20, 20, 10, 20,
		20, 20, 20, 10,
	}
	if got := tables["SLIT"][headerLength:]; !bytes.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

// TestHMATDomains: memory without CPUs is no initiator, CPUs without memory
// are no target.
func TestHMATDomains(t *testing.T) {
	m := oneCPU()
	m.CPUs = []CPU{{}, {UID: 1, APICID: 1, Domain: 1}}
	m.Memory = append(m.Memory, Memory{Base: 4 << 30, Length: 2 << 30, Domain: 2})
	m.Performance = &Performance{LatencyNS: [][]uint32{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}}
	tables, err := m.Tables()
	if err != nil {
		t.Fatal(err)
	}
	p := tables["HMAT"][headerLength+4:]
	le := binary.LittleEndian
	for i, want := range []struct {
		flags             uint16
		initiator, memory uint32
	}{{1, 0, 0}, {0, 0, 2}} {
		s := p[hmatDomainLength*i:]
		if le.Uint16(s[8:]) != want.flags || le.Uint32(s[12:]) != want.initiator || le.Uint32(s[16:]) != want.memory {
			t.Errorf("memory %d: %x", i, s[:hmatDomainLength])
		}
	}
	p = p[2*hmatDomainLength:]
	if n := le.Uint32(p[4:]); int(n) != len(p) {
		t.Fatalf("structure of %d bytes, %d are left", n, len(p))
	}
	if base := le.Uint64(p[24:]); base != 1000 {
		t.Errorf("base unit %d", base)
	}
	want := []byte{
		0, 0, 0, 0, 1, 0, 0, 0, // initiators
		0, 0, 0, 0, 2, 0, 0, 0, // targets
		1, 0, 3, 0,
		4, 0, 6, 0,
	}
	if got := p[hmatLocalityLength:]; !bytes.Equal(got, want) {
		t.Errorf("lists and entries %v", got)
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		values []uint64
		unit   uint64
		base   uint64
		want   []uint16
	}{
		{[]uint64{0, 0}, 1000, 1000, []uint16{0, 0}},
		{[]uint64{1000, 65_533_000}, 1000, 1000, []uint16{1, 65_533}},
		{[]uint64{1000, 65_534_000}, 1000, 10_000, []uint16{1, 6_553}},
		{[]uint64{0, 100_000, 50_000_000, 4_294_967_295}, 1000, 100_000, []uint16{0, 1, 500, 42_949}},
		// 20 ms, past what Linux can hold
		{[]uint64{20_000_000_000}, 1000, 100_000, []uint16{42_949}},
		{[]uint64{20_000, 12}, 1, 1, []uint16{20_000, 12}},
		{[]uint64{70_000, 12, 4}, 1, 10, []uint16{7_000, 1, 1}},
		{[]uint64{math.MaxUint32}, 1, 100_000, []uint16{42_949}},
	} {
		base, got := scale(c.values, c.unit)
		if base != c.base || fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v in units of %d: base %d, %v, want %d, %v", c.values, c.unit, base, got, c.base, c.want)
		}
	}
}

// TestVirtioWindow: 32-bit descriptors wherever they reach, 64-bit ones
// elsewhere.
func TestVirtioWindow(t *testing.T) {
	const tag32, tag64 = 0x86, 0x8A
	for _, c := range []struct {
		base uint64
		tag  byte
	}{
		{0xD000_0000, tag32},
		{1<<32 - 0x200, tag32},
		{1<<32 - 0x100, tag64},
		{1 << 32, tag64},
		{math.MaxUint64 - 0x1FF, tag64},
	} {
		code, err := aml.Encode((&VirtioMMIO{Base: c.base, Length: 0x200}).device(0))
		if err != nil {
			t.Fatal(err)
		}
		_, crs, found := bytes.Cut(code, []byte("_CRS\x11")) // name, then a buffer
		if !found || len(crs) < 4 {
			t.Fatalf("at %#x: no _CRS in %x", c.base, code)
		}
		// A one-byte package length and a one-byte size with its prefix.
		if got := crs[3]; got != c.tag {
			t.Errorf("at %#x: descriptor %#x, want %#x", c.base, got, c.tag)
		}
	}
}
