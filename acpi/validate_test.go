package acpi

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	for name, machine := range machines {
		if err := machine().Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Legal, if unusual.
	for name, change := range map[string]func(m *Machine){
		"asymmetric distances": func(m *Machine) { m.Distances[0][1] = 21 },
		"CPUs without memory":  func(m *Machine) { m.Memory = m.Memory[:1] },
		"memory without CPUs":  func(m *Machine) { m.CPUs = m.CPUs[:1] },
		"nothing but CPUs": func(m *Machine) {
			m.IOAPIC, m.Serial, m.GED, m.CPUHotplugPort = nil, nil, nil, 0
		},
		"touching ranges": func(m *Machine) {
			m.Memory = append(m.Memory, Memory{Base: 1 << 30, Length: pageSize})
		},
		"the last page": func(m *Machine) {
			m.Memory = append(m.Memory, Memory{Base: math.MaxUint64 - pageSize + 1, Length: pageSize})
		},
		"windows at the ends of 32 and 64 bits": func(m *Machine) {
			m.VirtioMMIO = []VirtioMMIO{
				{Base: 1<<32 - 0x200, Length: 0x200, GSI: 6},
				{Base: math.MaxUint64 - 0x1FF, Length: 0x200, GSI: 7, UID: 1},
			}
		},
		"the last port": func(m *Machine) { m.PVPanicPort = math.MaxUint16 },
	} {
		m := hotplug()
		change(m)
		if err := m.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if _, err := m.Build(0, 1<<20); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestValidateErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(m *Machine) // of hotplug()
		field  string
		say    string
	}{
		{"no CPUs", func(m *Machine) { m.CPUs = nil }, "CPUs", "none"},
		{"too many CPUs", func(m *Machine) { m.CPUs = make([]CPU, maxCPUs+1) }, "CPUs", "4097"},
		{"same UID", func(m *Machine) { m.CPUs[2].UID = 1 }, "CPUs[2].UID", "CPUs[1]"},
		{"UID of all", func(m *Machine) { m.CPUs[2].UID = math.MaxUint32 }, "CPUs[2].UID", "all processors"},
		{"same APIC id", func(m *Machine) { m.CPUs[3].APICID = 0 }, "CPUs[3].APICID", "CPUs[0]"},
		{"broadcast", func(m *Machine) { m.CPUs[3].APICID = math.MaxUint32 }, "CPUs[3].APICID", "broadcast"},
		{"CPU state", func(m *Machine) { m.CPUs[3].State = 2 }, "CPUs[3].State", "state 2"},
		{"boot CPU", func(m *Machine) { m.CPUs[0].State = OnlineCapable }, "CPUs[0].State", "Enabled"},

		{"no memory", func(m *Machine) { m.Memory = nil }, "Memory", "none is Present"},
		{"none at boot", func(m *Machine) { m.Memory[0].State = Removable }, "Memory", "none is Present"},
		{"memory base", func(m *Machine) { m.Memory[1].Base++ }, "Memory[1].Base", "multiple of 0x1000"},
		{"memory length", func(m *Machine) { m.Memory[1].Length = 0x1800 }, "Memory[1].Length", "multiple of 0x1000"},
		{"empty memory", func(m *Machine) { m.Memory[1].Length = 0 }, "Memory[1].Length", "multiple of 0x1000"},
		{"memory past the end", func(m *Machine) { m.Memory[1].Base = 1<<64 - 1<<30 }, "Memory[1].Length", "end of the address space"},
		{"memory state", func(m *Machine) { m.Memory[1].State = 3 }, "Memory[1].State", "state 3"},
		{"overlap", func(m *Machine) { m.Memory[1].Base = 1<<30 - pageSize }, "Memory[1].Base", "of Memory[0].Base"},
		{"within", func(m *Machine) { m.Memory[1].Base, m.Memory[1].Length = pageSize, pageSize }, "Memory[1].Base", "of Memory[0].Base"},

		{"domain of a CPU", func(m *Machine) { m.CPUs[3].Domain = 3 }, "CPUs[3].Domain", "dense from 0"},
		{"huge domain", func(m *Machine) { m.CPUs[3].Domain = math.MaxUint32 }, "CPUs[3].Domain", "dense from 0"},
		{"domain of memory", func(m *Machine) { m.Memory[1].Domain = 7 }, "Memory[1].Domain", "dense from 0"},

		{"rows", func(m *Machine) { m.Distances = m.Distances[:1] }, "Distances", "1 rows for 2 domains"},
		{"no rows", func(m *Machine) { m.Distances = [][]uint8{} }, "Distances", "0 rows for 2 domains"},
		{"columns", func(m *Machine) { m.Distances[1] = []uint8{20} }, "Distances[1]", "1 columns for 2 domains"},
		{"diagonal", func(m *Machine) { m.Distances[1][1] = 11 }, "Distances[1][1]", "must be 10"},
		{"off diagonal", func(m *Machine) { m.Distances[1][0] = 10 }, "Distances[1][0]", "must be 11..254"},
		{"unreachable", func(m *Machine) { m.Distances[1][0] = 255 }, "Distances[1][0]", "must be 11..254"},
		{
			"latencies", func(m *Machine) { m.Performance = &Performance{LatencyNS: [][]uint32{{1, 2}}} },
			"Performance.LatencyNS", "1 rows",
		},
		{
			"bandwidths", func(m *Machine) { m.Performance = &Performance{BandwidthMBps: [][]uint32{{1, 2}, {1}}} },
			"Performance.BandwidthMBps[1]", "1 columns",
		},

		{"many UARTs", func(m *Machine) { m.Serial = make([]Serial, 10) }, "Serial", "at most 9"},
		{"many virtio devices", func(m *Machine) { m.VirtioMMIO = make([]VirtioMMIO, maxVirtio+1) }, "VirtioMMIO", "at most 4096"},
		{
			"same UART", func(m *Machine) { m.Serial = append(m.Serial, Serial{Port: 0x2F8, Length: 8, GSI: 3}) },
			"Serial[1].UID", "Serial[0]",
		},
		{
			"same virtio device", func(m *Machine) {
				m.VirtioMMIO = []VirtioMMIO{{Base: 0xD000_0000, Length: 0x200, GSI: 6}, {Base: 0xD000_0200, Length: 0x200, GSI: 7}}
			},
			"VirtioMMIO[1].UID", "VirtioMMIO[0]",
		},
		{"hotplug without GED", func(m *Machine) { m.GED = nil }, "CPUHotplugPort", "needs a GED"},

		{"no control port", func(m *Machine) { m.Sleep.Control = 0 }, "Sleep.Control", "no port"},
		{"no status port", func(m *Machine) { m.Sleep.Status = 0 }, "Sleep.Status", "no port"},
		{"no reset port", func(m *Machine) { m.Sleep.Reset = 0 }, "Sleep.Reset", "no port"},
		{"same port", func(m *Machine) { m.Sleep.Reset = 0x601 }, "Sleep.Reset", "of Sleep.Status"},
		{"the clock's port", func(m *Machine) { m.PVPanicPort = 0x71 }, "PVPanicPort", "of the real-time clock"},
		{"a port of the block", func(m *Machine) { m.PVPanicPort = 0xCE3 }, "PVPanicPort", "of CPUHotplugPort"},
		{"a port of the selector", func(m *Machine) { m.PVPanicPort = 0x613 }, "PVPanicPort", "of GED.SelectorPort"},
		{"UART without ports", func(m *Machine) { m.Serial[0].Length = 0 }, "Serial[0].Port", "empty"},
		{"ports past the end", func(m *Machine) { m.CPUHotplugPort = 0xFFF8 }, "CPUHotplugPort", "pass 0xffff"},

		{
			"window in memory", func(m *Machine) { m.VirtioMMIO = []VirtioMMIO{{Base: 0x1000, Length: 0x200, GSI: 6}} },
			"VirtioMMIO[0].Base", "of Memory[0].Base",
		},
		{
			"empty window", func(m *Machine) { m.VirtioMMIO = []VirtioMMIO{{Base: 0xD000_0000, GSI: 6}} },
			"VirtioMMIO[0].Base", "empty",
		},
		{"I/O APIC in memory", func(m *Machine) { m.IOAPIC.Address = 0x2000 }, "IOAPIC.Address", "of Memory[0].Base"},
		{
			"local APICs in memory", func(m *Machine) { m.Memory[0].Length = 4 << 30 },
			"IOAPIC.Address", "of Memory[0].Base",
		},

		{"no I/O APIC", func(m *Machine) { m.IOAPIC = nil }, "IOAPIC", "Serial[0].GSI"},
		{"GSI too low", func(m *Machine) { m.IOAPIC.GSIBase = 5 }, "Serial[0].GSI", "below"},
		{"same GSI", func(m *Machine) { m.GED.GSI = 4 }, "GED.GSI", "of Serial[0].GSI"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := hotplug()
			c.change(m)
			err := m.Validate()
			var field *FieldError
			if !errors.As(err, &field) {
				t.Fatalf("error %v", err)
			}
			if field.Field != c.field || !strings.Contains(field.Problem, c.say) {
				t.Errorf("error %v, want one of %s that says %q", err, c.field, c.say)
			}
			if _, again := m.Build(0, 1<<20); again == nil || again.Error() != err.Error() {
				t.Errorf("Build says %v, Validate %v", again, err)
			}
			if _, again := m.Tables(); again == nil || again.Error() != err.Error() {
				t.Errorf("Tables says %v, Validate %v", again, err)
			}
		})
	}
}

// FuzzBuild: whatever a machine claims to be, Build gives an error or tables
// that hold together.
func FuzzBuild(f *testing.F) {
	for _, machine := range machines {
		text, err := json.Marshal(machine())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, uint64(0xE_0000), 0x2_0000)
	}
	f.Fuzz(func(t *testing.T, text []byte, base uint64, size int) {
		var m Machine
		if json.Unmarshal(text, &m) != nil {
			return
		}
		b, err := m.Build(base, size)
		if err != nil {
			return
		}
		checkBlob(t, &m, b, base, size)
	})
}
