package vmm

import (
	"fmt"
	"math/bits"

	"coalesce/acpi"
	"coalesce/boot"
	"coalesce/dsm"
	"coalesce/dsm/uffd"
	"coalesce/link"
	"coalesce/vcpu"
	"coalesce/vmm/platform"
)

// The guest physical map. RAM below the hole belongs to the client; the rest of
// the client's RAM starts at 4 GiB, and each lender's window follows at the
// next multiple of windowAlign.
const (
	holeBase    = 3 << 30
	highBase    = 4 << 30
	windowAlign = 2 << 30
	// granule is the unit of memory sizes: what shares a home.
	granule = dsm.RegionPages * dsm.PageSize

	// The tables, and behind them the reset vector, in memory that is reserved
	// up to 1 MiB.
	acpiBase = 0xe_0000
	acpiSize = platform.ResetVectorGPA - acpiBase

	ioapicBase = 0xfec0_0000
	ioapicSize = 0x1000
)

// I/O ports and global system interrupts of the client's devices.
const (
	portRTC  = 0x70
	portCOM1 = 0x3f8

	gsiCOM1 = 4
	gsiGED  = 5
)

// MaxCPUs bounds the guest's vCPUs: ids below 255 need no remapping of
// interrupts anywhere.
const MaxCPUs = 64

// maxMemory bounds the guest's memory, in bytes: what a node needs to keep track
// of it grows with it.
const maxMemory = 1 << 40

// Share is what one node brings into the guest.
type Share struct {
	CPUs     int
	Memory   uint64 // bytes, a multiple of 2 MiB
	Distance uint8  // SLIT distance to the client; 0 on the client
}

// CPU is the place of one vCPU.
type CPU struct {
	ID     int // guest-wide
	APICID uint32
	Node   link.NodeID
}

// Layout is the guest's hardware as it follows from what each node brings.
// Every node computes the same layout from the same shares.
type Layout struct {
	Shares  []Share // by node id
	CPUs    []CPU
	Windows []uffd.Window
	// Homes of the regions, in the order of the windows.
	Homes []link.NodeID
	// owners of the windows
	owners []link.NodeID
	// PackageShift is how far an APIC id is shifted right to give the package:
	// each node is one.
	PackageShift uint
}

// NewLayout lays out a guest whose node 0 is the client.
func NewLayout(shares []Share) (*Layout, error) {
	if len(shares) == 0 || len(shares) > dsm.MaxNodes {
		return nil, fmt.Errorf("a guest spans 1 to %d hosts, not %d", dsm.MaxNodes, len(shares))
	}
	l := &Layout{Shares: shares}
	most, total, memory := 0, 0, uint64(0)
	for n, s := range shares {
		if s.CPUs < 1 || s.CPUs > MaxCPUs {
			return nil, fmt.Errorf("node %d brings %d CPUs: it can be 1 to %d", n, s.CPUs, MaxCPUs)
		}
		if s.Memory%granule != 0 || s.Memory > maxMemory || n == 0 && s.Memory == 0 {
			return nil, fmt.Errorf("node %d brings %d bytes of memory: whole multiples of %d MiB, at most 1 TiB, are possible", n, s.Memory, granule>>20)
		}
		most = max(most, s.CPUs)
		total += s.CPUs
		memory += s.Memory
	}
	if memory > maxMemory {
		return nil, fmt.Errorf("%d GiB of memory in all, at most %d are possible", memory>>30, maxMemory>>30)
	}
	if total > MaxCPUs {
		return nil, fmt.Errorf("%d CPUs in all, at most %d are possible", total, MaxCPUs)
	}
	l.PackageShift = uint(bits.Len(uint(most - 1)))
	if last := uint32(len(shares)-1)<<l.PackageShift + uint32(most); last > 254 {
		return nil, fmt.Errorf("%d hosts with up to %d CPUs each need APIC ids up to %d, 254 is the limit", len(shares), most, last)
	}
	end := uint64(highBase)
	for n, s := range shares {
		node := link.NodeID(n)
		for i := range s.CPUs {
			l.CPUs = append(l.CPUs, CPU{ID: len(l.CPUs), APICID: uint32(n)<<l.PackageShift | uint32(i), Node: node})
		}
		if n == 0 {
			low := min(s.Memory, holeBase)
			l.addWindow(node, 0, low)
			l.addWindow(node, highBase, s.Memory-low)
			end += s.Memory - low
			continue
		}
		base := (end + windowAlign - 1) &^ (windowAlign - 1)
		l.addWindow(node, base, s.Memory)
		end = base + s.Memory
	}
	return l, nil
}

func (l *Layout) addWindow(node link.NodeID, base, size uint64) {
	if size == 0 {
		return
	}
	l.Windows = append(l.Windows, uffd.Window{GPA: base, Size: size})
	l.owners = append(l.owners, node)
	for range size / granule {
		l.Homes = append(l.Homes, node)
	}
}

// Local returns the vCPUs of one node.
func (l *Layout) Local(node link.NodeID) []CPU {
	var cpus []CPU
	for _, c := range l.CPUs {
		if c.Node == node {
			cpus = append(cpus, c)
		}
	}
	return cpus
}

// E820 is the memory map the kernel is booted with.
func (l *Layout) E820() []boot.Region {
	var regions []boot.Region
	for _, w := range l.Windows {
		if w.GPA != 0 {
			regions = append(regions, boot.Region{Base: w.GPA, Length: w.Size, Kind: boot.RAM})
			continue
		}
		regions = append(regions,
			boot.Region{Base: 0, Length: boot.LowEnd, Kind: boot.RAM},
			boot.Region{Base: acpiBase, Length: 1<<20 - acpiBase, Kind: boot.Reserved},
			boot.Region{Base: 1 << 20, Length: w.Size - 1<<20, Kind: boot.RAM})
	}
	return regions
}

// ACPI describes the machine to the guest: each node is a proximity domain.
func (l *Layout) ACPI() *acpi.Machine {
	m := &acpi.Machine{
		IOAPIC:      &acpi.IOAPIC{ID: 0, Address: ioapicBase},
		Serial:      []acpi.Serial{{Port: portCOM1, Length: 8, GSI: gsiCOM1}},
		Sleep:       acpi.SleepPorts{Control: platform.PortSleepControl, Status: platform.PortSleepStatus, Reset: platform.PortReset, ResetValue: platform.ResetValue},
		GED:         &acpi.GED{GSI: gsiGED, SelectorPort: platform.PortGED},
		PVPanicPort: platform.PortPVPanic,
	}
	for _, c := range l.CPUs {
		m.CPUs = append(m.CPUs, acpi.CPU{UID: uint32(c.ID), APICID: c.APICID, Domain: uint32(c.Node), State: acpi.Enabled})
	}
	for i, w := range l.Windows {
		state := acpi.Present
		if l.owners[i] != 0 {
			// It may leave again. The kernel's random placement of itself
			// and, with movable_node, its own data keep out of it.
			state = acpi.Removable
		}
		m.Memory = append(m.Memory, acpi.Memory{Base: w.GPA, Length: w.Size, Domain: uint32(l.owners[i]), State: state})
	}
	for i := range l.Shares {
		row := make([]uint8, len(l.Shares))
		for j := range l.Shares {
			// Lenders reach each other by way of the same network, no nearer
			// than the farther of the two is to the client.
			row[j] = max(l.Shares[i].Distance, l.Shares[j].Distance)
			if i == j {
				row[j] = 10
			}
		}
		m.Distances = append(m.Distances, row)
	}
	return m
}

// topology is what CPUID tells a vCPU about its place.
func (l *Layout) topology(c CPU) vcpu.Topology {
	return vcpu.Topology{APICID: c.APICID, PackageShift: uint8(l.PackageShift), CoresPerPackage: uint32(l.Shares[c.Node].CPUs)}
}
