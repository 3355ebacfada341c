package apic

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// DestMode says how Message.Dest names its destination. The zero value is
// Physical; the values are those of ICR bit 11.
type DestMode uint8

const (
	// Physical: Dest is an APIC id, or Broadcast.
	Physical DestMode = 0
	// Logical: Dest is a cluster (bits 31:16) and a set of its members (bits
	// 15:0), or Broadcast.
	Logical DestMode = 1
)

// Broadcast is the destination that every APIC matches, in both modes.
const Broadcast uint32 = 0xffff_ffff

// FromDevice is the Message.From of messages that no local APIC sent: the
// IOAPIC's and MSIs. It is no APIC id.
const FromDevice uint32 = 0xffff_ffff

// Shorthand is the destination shorthand of an IPI, ICR bits 19:18.
type Shorthand uint8

const (
	NoShorthand Shorthand = iota
	Self
	AllIncludingSelf
	AllExcludingSelf
)

// Delivery is a delivery mode with the encoding of ICR and redirection entry
// bits 10:8. 3 is reserved.
type Delivery uint8

const (
	Fixed          Delivery = 0
	LowestPriority Delivery = 1
	SMI            Delivery = 2
	NMI            Delivery = 4
	INIT           Delivery = 5
	SIPI           Delivery = 6
	ExtINT         Delivery = 7
)

var deliveryNames = [8]string{"fixed", "lowest-priority", "SMI", "reserved", "NMI", "INIT", "SIPI", "ExtINT"}

func (d Delivery) String() string {
	if int(d) < len(deliveryNames) {
		return deliveryNames[d]
	}
	return fmt.Sprintf("delivery mode %d", uint8(d))
}

// Message is an interrupt message between an APIC or a device and local APICs.
// Destination shorthands are resolved before one travels.
type Message struct {
	// Dest names the destination as DestMode says.
	Dest     uint32
	DestMode DestMode
	Delivery Delivery
	// Vector is the interrupt vector, or for SIPI the page number of the
	// start address. NMI, INIT, SMI and ExtINT ignore it.
	Vector uint8
	// Level says level triggered; false is edge triggered.
	Level bool
	// Assert is false only for the INIT level de-assert of old, which nothing
	// here sends and Deliver ignores.
	Assert bool
	// From is the APIC id of the sender, or FromDevice.
	From uint32
}

// MessageSize is the length of an encoded Message in bytes.
const MessageSize = 12

// Encoded message, little endian:
//
//	0  u32  Dest
//	4  u32  From
//	8  u8   Vector
//	9  u8   Delivery
//	10 u8   bit 0 logical, bit 1 level triggered, bit 2 assert
//	11 u8   0
const (
	flagLogical = 1 << 0
	flagLevel   = 1 << 1
	flagAssert  = 1 << 2
)

// ErrBadMessage is wrapped by every error of DecodeMessage.
var ErrBadMessage = errors.New("malformed interrupt message")

// Append appends the MessageSize bytes of the encoded message to b.
func (m Message) Append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, m.Dest)
	b = binary.LittleEndian.AppendUint32(b, m.From)
	var flags uint8
	if m.DestMode == Logical {
		flags |= flagLogical
	}
	if m.Level {
		flags |= flagLevel
	}
	if m.Assert {
		flags |= flagAssert
	}
	return append(b, m.Vector, uint8(m.Delivery), flags, 0)
}

// DecodeMessage decodes exactly MessageSize bytes that came from another node.
// Its errors wrap ErrBadMessage.
func DecodeMessage(b []byte) (Message, error) {
	if len(b) != MessageSize {
		return Message{}, fmt.Errorf("%w: %d bytes, want %d", ErrBadMessage, len(b), MessageSize)
	}
	m := Message{
		Dest:     binary.LittleEndian.Uint32(b[0:]),
		From:     binary.LittleEndian.Uint32(b[4:]),
		Vector:   b[8],
		Delivery: Delivery(b[9]),
		Level:    b[10]&flagLevel != 0,
		Assert:   b[10]&flagAssert != 0,
	}
	if b[10]&flagLogical != 0 {
		m.DestMode = Logical
	}
	if m.Delivery > ExtINT || m.Delivery == 3 {
		return Message{}, fmt.Errorf("%w: delivery mode %d", ErrBadMessage, b[9])
	}
	if b[10]&^(flagLogical|flagLevel|flagAssert) != 0 || b[11] != 0 {
		return Message{}, fmt.Errorf("%w: reserved bits set", ErrBadMessage)
	}
	return m, nil
}

// logicalID returns the logical x2APIC id that follows from an APIC id: the
// value of the LDR (SDM vol. 3, "Deriving Logical x2APIC ID from the Local
// x2APIC ID").
func logicalID(id uint32) uint32 { return id>>4<<16 | 1<<(id&15) }

// matches reports whether the APIC with this id is a destination.
func matches(id, dest uint32, mode DestMode) bool {
	if dest == Broadcast {
		return true
	}
	if mode == Physical {
		return dest == id
	}
	ldr := logicalID(id)
	return dest>>16 == ldr>>16 && dest&ldr&0xffff != 0
}
