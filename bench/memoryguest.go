package bench

import (
	"debug/elf"
	"io"

	"coalesce/guest/micro"
)

// The memory of the guest that reads at random: guest-physical addresses, which
// are virtual ones too.
const (
	readerBase  = 0x10_0000             // tables of the micro machine
	readerCode  = 0x20_0000             //
	readerData  = 0x1000_0000           // what it reads
	readerReads = 20_000                // in one measurement
	readerPort  = 0x3f8                 // where it says the cycles of each, 16 digits and a line feed
	readerLine  = 16 + 1                // bytes of that
	lcgFactor   = 0x5851_f42d_4c95_7f2d // Knuth's MMIX generator
	lcgAddend   = 0x1405_7b7e_f767_814f
)

// reader is a kernel that reads at random, for ever, and says how long that
// takes. Each address depends on what was read before, so no read begins before
// the last one ends.
type reader struct {
	image   imageAt
	machine *micro.Machine
	ring0   uint64 // where a loader enters: to be the machine's, and on to ring3
	ring3   uint64
	size    int // of what it reads, in bytes
}

// ram is how much memory it needs, in bytes.
func (r *reader) ram() int { return readerData + r.size }

// imageAt is guest memory from readerBase on; it grows as it is written.
type imageAt []byte

// WriteAt implements io.WriterAt; offsets are guest-physical addresses.
func (m *imageAt) WriteAt(b []byte, gpa int64) (int, error) {
	at := gpa - readerBase
	if at < 0 || at+int64(len(b)) > readerData-readerBase {
		return 0, io.ErrShortWrite
	}
	if missing := int(at) + len(b) - len(*m); missing > 0 {
		*m = append(*m, make([]byte, missing)...)
	}
	return copy((*m)[at:], b), nil
}

// newReader makes one that reads in 1<<bits bytes.
func newReader(bits uint8) (*reader, error) {
	r := &reader{size: 1 << bits}
	var err error
	if r.machine, err = micro.NewMachineAt(&r.image, readerBase); err != nil {
		return nil, err
	}
	entry, err := r.machine.Entry(micro.Options{})
	if err != nil {
		return nil, err
	}
	a := micro.NewAsm(readerCode)
	ring3 := a.Label()
	a.Cli()
	a.Cld()
	r.machine.UseTables(a, 0, entry.CR3)
	r.machine.EnterRing3(a, 0, ring3)
	a.Bind(ring3)

	// Every page is there before it is read.
	a.MovImm(micro.RDI, readerData)
	a.MovImm(micro.RAX, 1)
	touch := a.Here()
	a.StoreAt(micro.RDI, micro.RAX)
	a.AddImm(micro.RDI, 4096)
	a.CmpImm(micro.RDI, readerData+int32(r.size))
	a.Jcc(micro.Below, touch)

	a.MovImm(micro.R10, lcgFactor)
	a.MovImm(micro.R11, lcgAddend)
	a.MovImm(micro.R13, readerData)
	a.MovImm(micro.R12, 1)
	round := a.Here()
	cycles(a, micro.R14)
	a.MovImm(micro.RCX, readerReads)
	each := a.Here()
	a.Imul(micro.R12, micro.R10)
	a.Add(micro.R12, micro.R11)
	a.Mov(micro.RAX, micro.R12)
	a.ShrImm(micro.RAX, 64-bits)
	a.AndImm(micro.RAX, -8)
	a.Add(micro.RAX, micro.R13)
	a.AddM(micro.R12, micro.At(micro.RAX, 0))
	a.Dec(micro.RCX)
	a.Jcc(micro.NotEqual, each)
	cycles(a, micro.RAX)
	a.Sub(micro.RAX, micro.R14)

	a.Mov(micro.RSI, micro.RAX)
	a.MovImm(micro.RDX, readerPort)
	a.MovImm(micro.RCX, 16)
	digit, decimal := a.Here(), a.Label()
	a.RolImm(micro.RSI, 4)
	a.Mov(micro.RAX, micro.RSI)
	a.AndImm(micro.RAX, 15)
	a.CmpImm(micro.RAX, 10)
	a.Jcc(micro.Below, decimal)
	a.AddImm(micro.RAX, 'a'-'0'-10)
	a.Bind(decimal)
	a.AddImm(micro.RAX, '0')
	a.OutDX()
	a.Dec(micro.RCX)
	a.Jcc(micro.NotEqual, digit)
	a.MovImm(micro.RAX, '\n')
	a.OutDX()
	a.Jmp(round)
	if err := a.Install(r.machine, readerCode, nil); err != nil {
		return nil, err
	}
	r.ring0, r.ring3 = readerCode, a.Address(ring3)
	return r, nil
}

// kernel is the reader as a file that coalesce boots.
func (r *reader) kernel() ([]byte, error) {
	return micro.ELF(r.image, readerBase, r.ring0, elf.PF_R|elf.PF_W|elf.PF_X)
}
