package acpi

import (
	"fmt"

	"coalesce/acpi/aml"
)

// dsdtRevision of at least 2 makes AML integers 64 bits wide (ACPI 6.5,
// 19.6.29).
const dsdtRevision = 2

// dsdt holds the devices that cannot be found by probing. A hardware-reduced
// platform hides the legacy interrupts of a PC from Linux, so each device
// names its own with an extended interrupt descriptor.
func (m *Machine) dsdt() ([]byte, error) {
	devices := []aml.Term{m.motherboard(), clock()}
	for i := range m.Serial {
		devices = append(devices, m.Serial[i].device(i))
	}
	if m.PVPanicPort != 0 {
		devices = append(devices, pvpanic(m.PVPanicPort))
	}
	for i := range m.VirtioMMIO {
		devices = append(devices, m.VirtioMMIO[i].device(i))
	}
	devices = append(devices, m.processors())
	if m.GED != nil {
		devices = append(devices, powerButton(), m.eventDevice())
	}

	// ACPI 6.5, 7.4.2: the first element is the SLP_TYP for the sleep control
	// register; a hardware-reduced platform uses no other.
	code, err := aml.Encode(
		aml.Name(`\_S5`, aml.Package{aml.Int(sleepTypeS5), aml.Int(0), aml.Int(0), aml.Int(0)}),
		aml.Scope(`\_SB`, devices...),
	)
	if err != nil {
		return nil, fmt.Errorf("acpi: encode the DSDT: %w", err)
	}
	return table("DSDT", dsdtRevision, code), nil
}

// motherboard reserves the ports that belong to no device of their own.
func (m *Machine) motherboard() aml.Term {
	ports := aml.ResourceTemplate{
		aml.IO{Port: m.Sleep.Control, Length: 1},
		aml.IO{Port: m.Sleep.Status, Length: 1},
		aml.IO{Port: m.Sleep.Reset, Length: 1},
	}
	if m.GED != nil {
		ports = append(ports, aml.IO{Port: m.GED.SelectorPort, Length: selectorPorts})
	}
	if m.CPUHotplugPort != 0 {
		ports = append(ports, aml.IO{Port: m.CPUHotplugPort, Length: CPUHotplugLength})
	}
	return aml.Device("MBRD",
		aml.Name("_HID", aml.EISAID("PNP0C02")),
		aml.Name("_UID", aml.Int(0)),
		aml.Name("_CRS", ports),
	)
}

// clock is the MC146818. It has no interrupt: Linux then leaves alarms out.
func clock() aml.Term {
	return aml.Device("RTC",
		aml.Name("_HID", aml.EISAID("PNP0B00")),
		aml.Name("_CRS", aml.ResourceTemplate{aml.IO{Port: rtcPort, Length: rtcPorts}}),
	)
}

// device is COM1 and so on, by index from 0.
func (s *Serial) device(index int) aml.Term {
	return aml.Device(aml.Path(fmt.Sprintf("COM%d", index+1)),
		aml.Name("_HID", aml.EISAID("PNP0501")),
		aml.Name("_UID", aml.Int(s.UID)),
		aml.Name("_CRS", aml.ResourceTemplate{
			aml.IO{Port: s.Port, Length: s.Length},
			aml.Interrupt{GSIs: []uint32{s.GSI}},
		}),
	)
}

// pvpanic is the device by which a guest says that it has panicked, known to
// Linux by the id that QEMU gave it.
func pvpanic(port uint16) aml.Term {
	return aml.Device("PEVT",
		aml.Name("_HID", aml.String("QEMU0001")),
		aml.Name("_CRS", aml.ResourceTemplate{aml.IO{Port: port, Length: 1}}),
	)
}

// device is V000 and so on, by index.
func (v *VirtioMMIO) device(index int) aml.Term {
	var window aml.Resource = aml.QWordMemory{Base: v.Base, Length: uint64(v.Length)}
	if last := v.Base + uint64(v.Length) - 1; last < 1<<32 {
		window = aml.Memory32Fixed{Base: uint32(v.Base), Length: v.Length}
	}
	return aml.Device(aml.Path(fmt.Sprintf("V%03X", index)),
		aml.Name("_HID", aml.String("LNRO0005")),
		aml.Name("_UID", aml.Int(v.UID)),
		aml.Name("_CRS", aml.ResourceTemplate{window, aml.Interrupt{GSIs: []uint32{v.GSI}}}),
	)
}

// powerButton is a control method power button (ACPI 6.5, 4.8.2.2.1.2).
func powerButton() aml.Term {
	return aml.Device("PWRB", aml.Name("_HID", aml.EISAID("PNP0C0C")))
}

// eventDevice is the GED (ACPI 6.5, 5.6.9). Linux accepts nothing but
// interrupts in its _CRS, so the selector's ports belong to the motherboard.
// Linux runs _EVT from the interrupt's thread, once for each edge.
func (m *Machine) eventDevice() aml.Term {
	const buttonPressed = 0x80 // 5.6.6: status change of a power button
	pending := aml.Local(0)
	handler := []aml.Term{aml.Store(aml.Path("ESEL"), pending)}
	if m.CPUHotplugPort != 0 {
		handler = append(handler, aml.If(aml.And(pending, aml.Int(EventCPUHotplug)),
			aml.Call(`\_SB.CPUS.CSCN`),
		))
	}
	handler = append(handler, aml.If(aml.And(pending, aml.Int(EventPowerButton)),
		aml.Notify(aml.Path(`\_SB.PWRB`), aml.Int(buttonPressed)),
	))
	return aml.Device("GED",
		aml.Name("_HID", aml.String("ACPI0013")),
		aml.Name("_UID", aml.Int(0)),
		aml.Name("_CRS", aml.ResourceTemplate{aml.Interrupt{GSIs: []uint32{m.GED.GSI}}}),
		aml.OpRegion("EREG", aml.SystemIO, aml.Int(m.GED.SelectorPort), selectorPorts),
		aml.Field("EREG", aml.DWordAcc, aml.WriteAsZeroes, aml.FieldUnit{Name: "ESEL", Bits: 8 * selectorPorts}),
		aml.Method("_EVT", 1, handler...),
	)
}
