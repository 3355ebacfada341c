package platform

// ResetVectorGPA is where an x86 CPU finds its first instruction after a reset
// in the first MiB, f000:fff0.
const ResetVectorGPA = 0xffff0

// ResetVector returns the real-mode code to put at ResetVectorGPA, in the place
// of a firmware: it resets the machine through PortReset.
//
// Linux on a hardware-reduced machine restarts through EFI unless it is told
// otherwise, and without EFI it jumps to the reset vector (reboot_init and
// native_machine_emergency_restart): with nothing there it would run through
// empty memory for ever.
func ResetVector() []byte {
	return []byte{
		0xb0, ResetValue, // mov al, ResetValue
		0xba, PortReset & 0xff, PortReset >> 8, // mov dx, PortReset
		0xee,       // out dx, al
		0xf4,       // hlt
		0xeb, 0xfd, // jmp to the hlt
	}
}
