package acpi

import (
	"fmt"

	"coalesce/acpi/aml"
)

// processors is the container of the CPUs (ACPI 6.5, 8.4). With CPU hotplug it
// also holds the register block and the methods that drive it.
func (m *Machine) processors() aml.Term {
	terms := []aml.Term{
		aml.Name("_HID", aml.String("ACPI0010")),
		aml.Name("_CID", aml.EISAID("PNP0A05")),
	}
	if m.CPUHotplugPort != 0 {
		terms = append(terms, m.hotplugRegisters()...)
		terms = append(terms, m.hotplugMethods()...)
	}
	for i := range m.CPUs {
		terms = append(terms, m.processor(i))
	}
	return aml.Device("CPUS", terms...)
}

func processorName(index int) aml.Path {
	return aml.Path(fmt.Sprintf("C%03X", index))
}

func (m *Machine) processor(index int) aml.Term {
	c := &m.CPUs[index]
	terms := []aml.Term{
		aml.Name("_HID", aml.String("ACPI0007")),
		aml.Name("_UID", aml.Int(c.UID)),
		// Linux asks a CPU that is added later for its domain here.
		aml.Name("_PXM", aml.Int(c.Domain)),
	}
	if m.CPUHotplugPort == 0 {
		if c.State == OnlineCapable {
			const absent = 0 // ACPI 6.5, 6.3.7
			terms = append(terms, aml.Name("_STA", aml.Int(absent)))
		}
		return aml.Device(processorName(index), terms...)
	}

	self := aml.Int(index)
	terms = append(terms,
		// Linux takes the APIC id from _MAT (ACPI 6.5, 6.2.10), and only from
		// an entry that is enabled. The entry matters when _STA says that the
		// CPU is there, so it can be enabled always.
		aml.Name("_MAT", aml.Buffer(c.x2APIC(apicEnabled))),
		aml.Method("_STA", 0, aml.Return(aml.Call("CSTA", self))),
		aml.Method("_OST", 3, aml.Call("COST", self, aml.Arg(0), aml.Arg(1))),
	)
	if index != 0 { // the boot processor stays
		terms = append(terms, aml.Method("_EJ0", 1, aml.Call("CEJT", self)))
	}
	return aml.Device(processorName(index), terms...)
}

// Registers of QEMU's modern CPU hotplug interface, and what is written there:
//
//	port  bytes  read                        write
//	+0    4      0                           CSEL  select a CPU
//	+4    1      bit 0 CENA  it is there     -
//	             bit 1 CINS  insert event    1 clears the event
//	             bit 2 CREM  remove event    1 clears the event
//	             bit 3 -                     CEJE  1 ejects the CPU
//	+5    1      -                           CCMD  command
//	+8    4      CDAT, by the last command   CDAT, by the last command
const (
	// cpuNextEvent selects the next CPU with an event, from the selected one
	// on; CDAT then reads as its number.
	cpuNextEvent = 0
	// cpuOSTEvent and cpuOSTStatus make CDAT take the arguments of _OST.
	cpuOSTEvent  = 1
	cpuOSTStatus = 2
)

func (m *Machine) hotplugRegisters() []aml.Term {
	return []aml.Term{
		aml.Mutex("CLCK"),
		aml.OpRegion("CREG", aml.SystemIO, aml.Int(m.CPUHotplugPort), CPUHotplugLength),
		// Writing 1 to one of these bits acts; the others are written as zero.
		aml.Field("CREG", aml.ByteAcc, aml.WriteAsZeroes,
			aml.FieldUnit{Bits: 4 * 8},
			aml.FieldUnit{Name: "CENA", Bits: 1},
			aml.FieldUnit{Name: "CINS", Bits: 1},
			aml.FieldUnit{Name: "CREM", Bits: 1},
			aml.FieldUnit{Name: "CEJE", Bits: 1},
			aml.FieldUnit{Bits: 4},
			aml.FieldUnit{Name: "CCMD", Bits: 8},
		),
		aml.Field("CREG", aml.DWordAcc, aml.Preserve,
			aml.FieldUnit{Name: "CSEL", Bits: 32},
			aml.FieldUnit{Bits: 32},
			aml.FieldUnit{Name: "CDAT", Bits: 32},
		),
	}
}

// hotplugMethods are CSTA (status), CEJT (eject), COST (report), CNFY (notify)
// and CSCN (look for events). All registers refer to the CPU in CSEL, so each
// sequence runs under CLCK.
func (m *Machine) hotplugMethods() []aml.Term {
	const (
		lock     = aml.Path("CLCK")
		selected = aml.Path("CSEL")
		present  = aml.Path("CENA")
		inserted = aml.Path("CINS")
		removed  = aml.Path("CREM")
		eject    = aml.Path("CEJE")
		command  = aml.Path("CCMD")
		data     = aml.Path("CDAT")

		clear = aml.Int(1)

		// ACPI 6.5, 6.3.7: present, enabled, shown, working.
		staWorking = aml.Int(0xF)
		// ACPI 6.5, 5.6.6: notifications that every device knows.
		deviceCheck  = aml.Int(1)
		ejectRequest = aml.Int(3)

		result = aml.Local(0)
	)

	notify := make([]aml.Term, 0, len(m.CPUs))
	for i := range m.CPUs {
		notify = append(notify, aml.If(aml.Equal(aml.Arg(0), aml.Int(i)),
			aml.Notify(processorName(i), aml.Arg(1)),
		))
	}

	return []aml.Term{
		// CSTA (index): _STA of a CPU.
		aml.Method("CSTA", 1,
			aml.Acquire(lock),
			aml.Store(aml.Arg(0), selected),
			aml.Store(aml.Int(0), result),
			aml.If(aml.Equal(present, aml.Int(1)), aml.Store(staWorking, result)),
			aml.Release(lock),
			aml.Return(result),
		),
		// CEJT (index): the guest has let go of a CPU.
		aml.Method("CEJT", 1,
			aml.Acquire(lock),
			aml.Store(aml.Arg(0), selected),
			aml.Store(aml.Int(1), eject),
			aml.Release(lock),
		),
		// COST (index, event, status): what became of a notification. This is
		// how the machine learns that the guest refuses to give a CPU back.
		aml.Method("COST", 3,
			aml.Acquire(lock),
			aml.Store(aml.Arg(0), selected),
			aml.Store(aml.Int(cpuOSTEvent), command),
			aml.Store(aml.Arg(1), data),
			aml.Store(aml.Int(cpuOSTStatus), command),
			aml.Store(aml.Arg(2), data),
			aml.Release(lock),
		),
		// CNFY (index, value).
		aml.Method("CNFY", 2, notify...),
		// CSCN (): tell the system of every event. Each round costs a few port
		// accesses and finds one CPU, however many there are.
		aml.Method("CSCN", 0,
			aml.Acquire(lock),
			aml.Store(aml.Int(0), selected),
			aml.Store(aml.Int(1), result),
			aml.While(aml.Equal(result, aml.Int(1)),
				aml.Store(aml.Int(0), result),
				aml.Store(aml.Int(cpuNextEvent), command),
				aml.If(aml.Equal(inserted, aml.Int(1)),
					aml.Call("CNFY", data, deviceCheck),
					aml.Store(clear, inserted),
					aml.Store(aml.Int(1), result),
				).Else(
					aml.If(aml.Equal(removed, aml.Int(1)),
						aml.Call("CNFY", data, ejectRequest),
						aml.Store(clear, removed),
						aml.Store(aml.Int(1), result),
					),
				),
			),
			aml.Release(lock),
		),
	}
}
