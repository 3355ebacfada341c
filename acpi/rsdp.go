package acpi

import "encoding/binary"

// rootPointer is the RSDP (ACPI 6.5, 5.2.5.3).
type rootPointer struct {
	Signature        [8]byte
	Checksum         uint8 // of the first 20 bytes
	OEMID            [6]byte
	Revision         uint8
	RSDTAddress      uint32 // none: the XSDT takes its place
	Length           uint32
	XSDTAddress      uint64
	ExtendedChecksum uint8 // of all
	_                [3]byte
}

const (
	rsdpLength         = 36
	rsdpRevision       = 2
	rsdpChecksumOffset = 8
	rsdpVersion1Length = 20
	rsdpExtChecksumOff = 32
)

func rsdp(xsdt uint64) []byte {
	b := pack(nil, &rootPointer{
		Signature:   [8]byte([]byte("RSD PTR ")),
		OEMID:       oemID,
		Revision:    rsdpRevision,
		Length:      rsdpLength,
		XSDTAddress: xsdt,
	})
	b[rsdpChecksumOffset] = checksum(b[:rsdpVersion1Length])
	b[rsdpExtChecksumOff] = checksum(b)
	return b
}

// xsdt lists the tables at the given addresses (ACPI 6.5, 5.2.8).
func xsdt(entries []uint64) []byte {
	const revision = 1
	var body []byte
	for _, addr := range entries {
		body = binary.LittleEndian.AppendUint64(body, addr)
	}
	return table("XSDT", revision, body)
}
