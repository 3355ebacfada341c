package acpi

import (
	"encoding/binary"
	"fmt"
)

// Blob is a set of tables as it lies in guest memory.
type Blob struct {
	Base  uint64 // guest-physical address of Bytes[0]
	Bytes []byte // no longer than the tables need
	RSDP  uint64 // guest-physical address for the boot protocol; equals Base

	// Tables by signature: "RSD PTR ", "XSDT", "FACP", "DSDT", "APIC", "SRAT",
	// "SLIT" and, if the machine has one, "HMAT".
	Tables map[string]Table
}

// Table is one table inside a Blob.
type Table struct {
	Address uint64 // guest-physical
	Bytes   []byte // part of Blob.Bytes
}

// SizeError says that the tables do not fit where they should go.
type SizeError struct {
	Need, Have int // bytes
}

func (e *SizeError) Error() string {
	return fmt.Sprintf("acpi: the tables need %d bytes, there are %d", e.Need, e.Have)
}

// defaultBase is where a PC's firmware leaves its tables.
const defaultBase = 0xE_0000

// tableAlign is the alignment of every table. The RSDP needs 16 bytes
// (ACPI 6.5, 5.2.5.1); the others nothing.
const tableAlign = 16

// Build lays the tables out in [base, base+size), the RSDP at base, which must
// be a multiple of 16. The same machine gives the same bytes. Errors are those
// of Validate, a *FieldError for base, or a *SizeError.
func (m *Machine) Build(base uint64, size int) (*Blob, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	if base%tableAlign != 0 {
		return nil, fieldErrorf("base", "%#x is not a multiple of %d", base, tableAlign)
	}
	dsdt, err := m.dsdt()
	if err != nil {
		return nil, err
	}

	l := layout{base: base, tables: map[string]Table{}}
	rsdpAt := l.reserve(rsdpLength)
	// The XSDT's length follows from the number of its entries, so that it can
	// be placed before the tables that it points to.
	roots := 4
	if m.Performance != nil {
		roots++
	}
	xsdtAt := l.reserve(headerLength + 8*roots)
	dsdtAt := l.append("DSDT", dsdt)
	entries := []uint64{
		l.append("FACP", m.fadt(dsdtAt)),
		l.append("APIC", m.madt()),
		l.append("SRAT", m.srat()),
		l.append("SLIT", m.slit()),
	}
	if m.Performance != nil {
		entries = append(entries, l.append("HMAT", m.hmat()))
	}
	l.fill("XSDT", xsdtAt, xsdt(entries))
	l.fill("RSD PTR ", rsdpAt, rsdp(xsdtAt))

	if len(l.bytes) > size {
		return nil, &SizeError{Need: len(l.bytes), Have: size}
	}
	if base+uint64(len(l.bytes)) < base {
		return nil, fieldErrorf("base", "%d bytes from %#x on pass the end of the address space", len(l.bytes), base)
	}
	for sig, t := range l.tables {
		from := t.Address - base
		l.tables[sig] = Table{Address: t.Address, Bytes: l.bytes[from : from+uint64(len(t.Bytes))]}
	}
	return &Blob{Base: base, Bytes: l.bytes, RSDP: rsdpAt, Tables: l.tables}, nil
}

// Tables returns each table by its signature, like Blob.Tables, for a machine
// whose tables begin at 0xE0000.
func (m *Machine) Tables() (map[string][]byte, error) {
	blob, err := m.Build(defaultBase, 1<<30)
	if err != nil {
		return nil, err
	}
	tables := map[string][]byte{}
	for sig, t := range blob.Tables {
		tables[sig] = t.Bytes
	}
	return tables, nil
}

// layout puts tables one behind the other.
type layout struct {
	base   uint64
	bytes  []byte
	tables map[string]Table
}

// reserve makes room for n bytes and returns their address.
func (l *layout) reserve(n int) uint64 {
	for len(l.bytes)%tableAlign != 0 {
		l.bytes = append(l.bytes, 0)
	}
	addr := l.base + uint64(len(l.bytes))
	l.bytes = append(l.bytes, make([]byte, n)...)
	return addr
}

// fill copies a table to the room reserved for it.
func (l *layout) fill(signature string, addr uint64, table []byte) {
	copy(l.bytes[addr-l.base:], table)
	l.tables[signature] = Table{Address: addr, Bytes: table}
}

func (l *layout) append(signature string, table []byte) uint64 {
	addr := l.reserve(len(table))
	l.fill(signature, addr, table)
	return addr
}

// OEM and creator ids: what the guest prints when it lists the tables.
var (
	oemID      = [6]byte([]byte("COALSC"))
	oemTableID = [8]byte([]byte("COALESCE"))
	creatorID  = [4]byte([]byte("COAL"))
)

const (
	oemRevision     = 1
	creatorRevision = 1
)

// header begins every table but the RSDP (ACPI 6.5, 5.2.6).
type header struct {
	Signature       [4]byte
	Length          uint32
	Revision        uint8
	Checksum        uint8
	OEMID           [6]byte
	OEMTableID      [8]byte
	OEMRevision     uint32
	CreatorID       [4]byte
	CreatorRevision uint32
}

const headerLength = 36

// checksumOffset is that of header.Checksum.
const checksumOffset = 9

// table puts a header before body.
func table(signature string, revision uint8, body []byte) []byte {
	t := pack(nil, &header{
		Signature:       [4]byte([]byte(signature)),
		Length:          uint32(headerLength + len(body)),
		Revision:        revision,
		OEMID:           oemID,
		OEMTableID:      oemTableID,
		OEMRevision:     oemRevision,
		CreatorID:       creatorID,
		CreatorRevision: creatorRevision,
	})
	t = append(t, body...)
	t[checksumOffset] = checksum(t)
	return t
}

// checksum is the byte that makes the sum of all of b zero, where its own
// place holds zero so far.
func checksum(b []byte) uint8 {
	var sum uint8
	for _, v := range b {
		sum += v
	}
	return -sum
}

// pack appends structures of fixed size, field by field, without padding.
func pack(dst []byte, structs ...any) []byte {
	for _, s := range structs {
		b, err := binary.Append(dst, binary.LittleEndian, s)
		if err != nil {
			// Only a type without a fixed size gives an error, and every
			// caller passes a structure of this package.
			panic("acpi: " + err.Error())
		}
		dst = b
	}
	return dst
}

// genericAddress points to a register (ACPI 6.5, 5.2.3.2).
type genericAddress struct {
	Space      uint8
	BitWidth   uint8
	BitOffset  uint8
	AccessSize uint8
	Address    uint64
}

// bytePort is the register at a byte-wide I/O port.
func bytePort(port uint16) genericAddress {
	const systemIO, byteAccess = 1, 1
	return genericAddress{Space: systemIO, BitWidth: 8, AccessSize: byteAccess, Address: uint64(port)}
}
