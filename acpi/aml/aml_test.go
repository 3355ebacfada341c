package aml

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

// TestEncode compares byte code with what the grammar in ACPI 6.5, 20.2 gives
// by hand.
func TestEncode(t *testing.T) {
	for _, c := range []struct {
		name string
		term Term
		want string // hexadecimal; spaces are for the reader
	}{
		// 20.2.3, data objects
		{"zero", Int(0), "00"},
		{"one", Int(1), "01"},
		{"byte", Int(2), "0a 02"},
		{"largest byte", Int(0xFF), "0a ff"},
		{"word", Int(0x100), "0b 0001"},
		{"largest word", Int(0xFFFF), "0b ffff"},
		{"dword", Int(0x1_0000), "0c 00000100"},
		{"largest dword", Int(0xFFFF_FFFF), "0c ffffffff"},
		{"qword", Int(0x1_0000_0000), "0e 0000000001000000"},
		{"string", String("AB"), "0d 4142 00"},
		{"empty string", String(""), "0d 00"},
		{"buffer", Buffer{1, 2, 3}, "11 06 0a03 010203"},
		{"empty buffer", Buffer{}, "11 02 00"},
		{"package", Package{Int(5), Int(0), String("x")}, "12 08 03 0a05 00 0d7800"},
		// PNP: 16, 14, 16 are 10000 01110 10000.
		{"EISA id", EISAID("PNP0501"), "0c 41d00501"},
		{"EISA id, hexadecimal digits", EISAID("PNP0C0F"), "0c 41d00c0f"},
		{"EISA id, first and last letter", EISAID("AZA0000"), "0c 07410000"},

		// 20.2.2, names
		{"segment", Path("ABCD"), "41424344"},
		{"short segment", Path("A"), "415f5f5f"},
		{"digits", Path("_0Z9"), "5f305a39"},
		{"root", Path(`\`), "5c 00"},
		{"from root", Path(`\_SB`), "5c 5f53425f"},
		{"parent", Path("^"), "5e 00"},
		{"grandparent's", Path("^^AB"), "5e5e 41425f5f"},
		{"dual", Path("AB.CD"), "2e 41425f5f 43445f5f"},
		{"dual from root", Path(`\_SB.CPUS`), "5c 2e 5f53425f 43505553"},
		{"multi", Path("A.B.C"), "2f 03 415f5f5f 425f5f5f 435f5f5f"},

		// 20.2.5.1, modifiers
		{"scope", Scope(`\_SB`), "10 06 5c 5f53425f"},
		{"name", Name("_UID", Int(7)), "08 5f554944 0a07"},

		// 20.2.5.2, named objects
		{"device", Device("DEV", Name("_UID", Int(0))), "5b82 0b 4445565f 08 5f554944 00"},
		{"method", Method("_EVT", 1, Return(Arg(0))), "14 08 5f455654 09 a4 68"},
		{"method without arguments", Method("M", 0), "14 06 4d5f5f5f 08"},
		{"mutex", Mutex("LCK"), "5b01 4c434b5f 00"},
		{"region", OpRegion("REG", SystemIO, 0x610, 4), "5b80 5245475f 01 0b1006 0a04"},
		{"region in memory", OpRegion("REG", SystemMemory, 0xFED0_0000, 1), "5b80 5245475f 00 0c0000d0fe 01"},
		{
			"field", Field("REG", ByteAcc, WriteAsZeroes,
				FieldUnit{Bits: 32}, FieldUnit{Name: "A", Bits: 1}, FieldUnit{Bits: 7}, FieldUnit{Name: "BCDE", Bits: 8}),
			"5b81 14 5245475f 41 00 20 415f5f5f 01 00 07 42434445 08",
		},
		{
			"field wider than 63 bits", Field("REG", DWordAcc, Preserve, FieldUnit{Bits: 64}, FieldUnit{Name: "A", Bits: 0x123}),
			// 0x40 = nibble 0, then 0x04; 0x123 = nibble 3, then 0x12
			"5b81 0f 5245475f 03 00 4004 415f5f5f 4312",
		},
		{"field access", Field("R", QWordAcc, WriteAsOnes), "5b81 06 525f5f5f 24"},
		{"field access of words", Field("R", WordAcc, Preserve), "5b81 06 525f5f5f 02"},

		// 20.2.5.3 and 20.2.5.4, statements and operators
		{"store", Store(Int(1), Local(0)), "70 01 60"},
		{"store to a name", Store(Arg(6), Path("CSEL")), "70 6e 4353454c"},
		{"and", And(Local(7), Int(4)), "7b 67 0a04 00"},
		{"equal", Equal(Arg(0), Int(0)), "93 68 00"},
		{"notify", Notify(Path("PWRB"), Int(0x80)), "86 50575242 0a80"},
		{"return", Return(Local(0)), "a4 60"},
		{"acquire", Acquire(Path("LCK")), "5b23 4c434b5f ffff"},
		{"release", Release(Path("LCK")), "5b27 4c434b5f"},
		{"call", Call("CNFY", Int(1), Arg(1)), "434e4659 01 69"},
		{"if", If(Local(0), Return(Int(1))), "a0 04 60 a4 01"},
		{"if, else", If(Local(0), Return(Int(1))).Else(Return(Int(0))), "a0 04 60 a4 01 a1 03 a4 00"},
		{"while", While(Local(0), Store(Int(0), Local(0))), "a2 05 60 70 00 60"},

		// 6.4, resources
		{"no resources", ResourceTemplate{}, "11 05 0a02 7900"},
		{"ports", ResourceTemplate{IO{0x3F8, 8}}, "11 0d 0a0a 47 01 f803 f803 01 08 7900"},
		{"last ports", ResourceTemplate{IO{0xFFF8, 8}}, "11 0d 0a0a 47 01 f8ff f8ff 01 08 7900"},
		{"interrupt", ResourceTemplate{Interrupt{GSIs: []uint32{4}}}, "11 0e 0a0b 89 0600 03 01 04000000 7900"},
		{
			"interrupts, other flags", ResourceTemplate{Interrupt{GSIs: []uint32{4, 0x100}, Level: true, ActiveLow: true, Shared: true}},
			"11 12 0a0f 89 0a00 0d 02 04000000 00010000 7900",
		},
		{"memory", ResourceTemplate{Memory32Fixed{0xD000_0000, 0x200}}, "11 11 0a0e 86 0900 01 000000d0 00020000 7900"},
		{
			"memory above 4 GiB", ResourceTemplate{QWordMemory{1 << 40, 0x1000}},
			"11 33 0a30 8a 2b00 00 0d 01 0000000000000000 0000000000010000 ff0f000000010000 0000000000000000 0010000000000000 7900",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := hex.DecodeString(strings.ReplaceAll(c.want, " ", ""))
			if err != nil {
				t.Fatal(err)
			}
			got, err := Encode(c.term)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("got  %x\nwant %x", got, want)
			}
		})
	}
}

// TestEncodeNested: an inner package changes the outer one's length, and the
// length itself takes more bytes where it must.
func TestEncodeNested(t *testing.T) {
	inner := make(Buffer, 60) // 60, 2 for its size and 1 for the length: 63
	got, err := Encode(Scope("ABCD", Name("N", inner)))
	if err != nil {
		t.Fatal(err)
	}
	// The scope holds 4 + 1 + 4 + 1 + 63 = 73 bytes and 2 for its length: 75.
	prefix := []byte{
		0x10, 0x4B, 0x04, 'A', 'B', 'C', 'D',
		0x08, 'N', '_', '_', '_',
		0x11, 63, 0x0A, 60,
	}
	if !bytes.HasPrefix(got, prefix) || len(got) != 1+75 {
		t.Errorf("got %d bytes %x", len(got), got)
	}
}

func TestEncodeErrors(t *testing.T) {
	for _, c := range []struct {
		name string
		term Term
		want string
	}{
		{"no name", Path(""), "empty name"},
		{"empty segment", Path("A..B"), "bad segment"},
		{"long segment", Path("ABCDE"), "bad segment"},
		{"digit first", Path("1ABC"), "bad segment"},
		{"small letter", Path("abc"), "bad segment"},
		{"inner root", Path(`A.\B`), "bad segment"},
		{"many segments", Path(strings.Repeat("A.", 255) + "A"), "256 segments"},
		{"string", String("\x80"), "character 0x80"},
		{"string with NUL", String("a\x00"), "character 0x00"},
		{"package", make(Package, 256), "256 elements"},
		{"short EISA id", EISAID("PNP05"), "seven characters"},
		{"EISA letters", EISAID("pNP0501"), "capital letters"},
		{"EISA digits", EISAID("PNP050G"), "hexadecimal"},
		{"EISA sign", EISAID("PNP+501"), "hexadecimal"},
		{"arguments", Method("M", 8), "8 arguments"},
		{"no arguments", Method("M", -1), "-1 arguments"},
		{"argument", Arg(7), "Arg7"},
		{"local", Local(8), "Local8"},
		{"field name", Field("R", ByteAcc, Preserve, FieldUnit{Name: "A.B", Bits: 1}), "single segment"},
		{"field width", Field("R", ByteAcc, Preserve, FieldUnit{Name: "A", Bits: 1 << 28}), "not in 0..268435455"},
		{"negative field width", Field("R", ByteAcc, Preserve, FieldUnit{Name: "A", Bits: -1}), "not in 0..268435455"},
		{"ports", ResourceTemplate{IO{0xFFF9, 8}}, "pass 0xffff"},
		{"no interrupt", ResourceTemplate{Interrupt{}}, "0 interrupts"},
		{"many interrupts", ResourceTemplate{Interrupt{GSIs: make([]uint32, 256)}}, "256 interrupts"},
		{"empty memory", ResourceTemplate{QWordMemory{0, 0}}, "length 0x0"},
		{"memory past the end", ResourceTemplate{QWordMemory{^uint64(0), 2}}, "length 0x2"},
		{"deep inside", Scope("A", Device("B", Name("bad", Int(0)))), `"bad"`},
		{"the first of two", Scope("A", Name("bad", Int(0)), Name("worse", Int(0))), `"bad"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Encode(c.term)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "aml: ") {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
