// Package acpi writes the ACPI tables of the guest from a description of the
// machine. It opens no file and asks nobody: a [Machine] goes in, bytes come out.
//
// The machine is a hardware-reduced ACPI platform (ACPI 6.5, 4.1): no fixed
// hardware, no 8259, no PM timer, no SCI. Its tables lie one behind the other:
//
//	base  RSDP ──► XSDT ──► FADT ──► DSDT    devices, in AML (package acpi/aml)
//	                 ├────► MADT             x2APIC ids, I/O APIC
//	                 ├────► SRAT             domain of every CPU and memory window
//	                 ├────► SLIT             distances between domains
//	                 └────► HMAT             latencies and bandwidths, if known
//
// Every CPU and every memory window that may appear while the guest runs is
// named from the start: Linux makes NUMA nodes only of the proximity domains in
// the SRAT it finds at boot, and never reads SRAT or SLIT again.
//
// Section numbers in comments are those of the ACPI specification, release 6.5.
package acpi
