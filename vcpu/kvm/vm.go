package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// VM is a KVM virtual machine. Its methods may be called from any goroutine;
// Close must be the last.
type VM struct {
	fd       int
	runSize  int
	xsaveLen int // bytes of a vCPU's XSAVE image, at least legacyXSAVE
}

// Close drops this reference to the VM. The kernel keeps it until its vCPUs
// are closed too.
func (m *VM) Close() error { return unix.Close(m.fd) }

// CheckExtension is System.CheckExtension asked of this VM, which may differ.
func (m *VM) CheckExtension(c Cap) (int, error) {
	v, errno := ioctl(m.fd, KVM_CHECK_EXTENSION, uintptr(c))
	return v, ioctlError(fmt.Sprintf("KVM_CHECK_EXTENSION %d", c), errno)
}

// EnableCap switches a VM-wide capability on.
func (m *VM) EnableCap(c Cap, args ...uint64) error {
	return enableCap(m.fd, c, args)
}

// SetTSSAddr gives KVM three guest-physical pages below 4 GiB that it may
// write on Intel hosts without unrestricted guest mode. Required there before
// the first KVM_RUN, harmless elsewhere.
func (m *VM) SetTSSAddr(gpa uint32) error {
	_, errno := ioctl(m.fd, KVM_SET_TSS_ADDR, uintptr(gpa))
	return ioctlError("KVM_SET_TSS_ADDR", errno)
}

// SetIdentityMapAddr gives KVM one guest-physical page below 4 GiB for the
// same hosts as SetTSSAddr; to be called before the first vCPU is created.
func (m *VM) SetIdentityMapAddr(gpa uint64) error {
	_, errno := ioctlPtr(m.fd, KVM_SET_IDENTITY_MAP_ADDR, &gpa)
	return ioctlError("KVM_SET_IDENTITY_MAP_ADDR", errno)
}

// SetUserMemoryRegion makes [gpa, gpa+size) of the guest the memory at hva of
// this process. All three are multiples of the page size; size 0 removes the
// slot. The address is a number on purpose: Go code must not touch a mapping
// that is registered with userfaultfd.
func (m *VM) SetUserMemoryRegion(slot uint32, gpa, size uint64, hva uintptr, flags uint32) error {
	r := userspaceMemoryRegion{slot: slot, flags: flags, guestPhysAddr: gpa, memorySize: size, userspaceAddr: uint64(hva)}
	if _, errno := ioctlPtr(m.fd, KVM_SET_USER_MEMORY_REGION, &r); errno != 0 {
		return fmt.Errorf("KVM_SET_USER_MEMORY_REGION slot %d gpa %#x size %#x: %w", slot, gpa, size, errno)
	}
	return nil
}

// CreateVCPU adds the vCPU with the given id and maps its kvm_run.
func (m *VM) CreateVCPU(id uint32) (*VCPU, error) {
	fd, errno := ioctl(m.fd, KVM_CREATE_VCPU, uintptr(id))
	if errno != 0 {
		return nil, fmt.Errorf("KVM_CREATE_VCPU %d: %w", id, errno)
	}
	unix.CloseOnExec(fd)
	mem, err := unix.Mmap(fd, 0, m.runSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("mapping kvm_run of vCPU %d: %w", id, err)
	}
	return &VCPU{Run: newRun(mem), fd: fd, xsaveLen: m.xsaveLen}, nil
}

func enableCap(fd int, c Cap, args []uint64) error {
	a := enableCapArg{cap: uint32(c)}
	copy(a.args[:], args)
	_, errno := ioctlPtr(fd, KVM_ENABLE_CAP, &a)
	return unsupported(fmt.Sprintf("KVM_ENABLE_CAP %d", c), "", errno)
}
