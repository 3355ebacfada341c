package kvm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Device is the usual path for Open.
const Device = "/dev/kvm"

// System is an open /dev/kvm.
type System struct {
	file    *os.File
	runSize int // bytes of a vCPU's shared mapping
}

// Open opens the device at path. A machine without it (no such file, no
// hardware behind it) is an error that Is ErrNotSupported; one without
// permission Is fs.ErrPermission.
func Open(path string) (*System, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			return nil, &FeatureError{Feature: "KVM", Err: err}
		}
		return nil, err
	}
	s := &System{file: f}
	if err := s.init(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (s *System) init() error {
	v, errno := ioctl(s.fd(), KVM_GET_API_VERSION, 0)
	if errno != 0 {
		return unsupported("KVM_GET_API_VERSION", "", errno)
	}
	if v != apiVersion {
		return &FeatureError{Feature: fmt.Sprintf("KVM API version %d", apiVersion), Err: fmt.Errorf("this is %d", v)}
	}
	if s.runSize, errno = ioctl(s.fd(), KVM_GET_VCPU_MMAP_SIZE, 0); errno != 0 {
		return ioctlError("KVM_GET_VCPU_MMAP_SIZE", errno)
	}
	if s.runSize < runPageSize {
		return fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes cannot hold kvm_run", s.runSize)
	}
	return nil
}

func (s *System) fd() int { return int(s.file.Fd()) }

// Close closes the device. VMs created from it live on.
func (s *System) Close() error { return s.file.Close() }

// CheckExtension returns what KVM says about a capability: 0 when it is
// absent, otherwise 1 or a number that the capability defines.
func (s *System) CheckExtension(c Cap) (int, error) {
	v, errno := ioctl(s.fd(), KVM_CHECK_EXTENSION, uintptr(c))
	return v, ioctlError(fmt.Sprintf("KVM_CHECK_EXTENSION %d", c), errno)
}

// SupportedCPUID returns the CPUID leaves that KVM can give a guest here.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	e, err := getCPUID(s.fd(), KVM_GET_SUPPORTED_CPUID)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	return e, nil
}

// MSRIndexList returns the MSRs that make up a guest's state.
func (s *System) MSRIndexList() ([]uint32, error) {
	l, err := getMSRList(s.fd(), KVM_GET_MSR_INDEX_LIST)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_MSR_INDEX_LIST: %w", err)
	}
	return l, nil
}

// MSRFeatureIndexList returns the MSRs that describe what the host can do.
func (s *System) MSRFeatureIndexList() ([]uint32, error) {
	l, err := getMSRList(s.fd(), KVM_GET_MSR_FEATURE_INDEX_LIST)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_MSR_FEATURE_INDEX_LIST: %w", err)
	}
	return l, nil
}

// TSCKHz returns the frequency at which a guest's TSC runs here unless it is
// told otherwise.
func (s *System) TSCKHz() (khz uint32, err error) {
	err = s.withVCPU(func(v *VCPU) error {
		khz, err = v.TSCKHz()
		return err
	})
	return khz, err
}

// ProbeTSCOffset tries whether a guest's TSC can be set apart from the host's
// here (VCPU.SetTSCOffset). If the error Is ErrNotSupported it cannot: guests
// count the host's own.
func (s *System) ProbeTSCOffset() error {
	return s.withVCPU(func(v *VCPU) error { return v.SetTSCOffset(1 << 40) })
}

// withVCPU asks a vCPU of a throw-away VM what only a vCPU knows.
func (s *System) withVCPU(ask func(*VCPU) error) error {
	vm, err := s.CreateVM()
	if err != nil {
		return err
	}
	defer vm.Close()
	v, err := vm.CreateVCPU(0)
	if err != nil {
		return err
	}
	defer v.Close()
	return ask(v)
}

// CreateVM makes an empty VM without an in-kernel irqchip.
func (s *System) CreateVM() (*VM, error) {
	fd, errno := ioctl(s.fd(), KVM_CREATE_VM, 0)
	if errno != 0 {
		return nil, unsupported("KVM_CREATE_VM", "", errno)
	}
	unix.CloseOnExec(fd)
	// The XSAVE image grows with what the process has asked the kernel for
	// (AMX), which the VM's answer takes into account.
	n, errno := ioctl(fd, KVM_CHECK_EXTENSION, uintptr(KVM_CAP_XSAVE2))
	if errno != 0 {
		unix.Close(fd)
		return nil, ioctlError("KVM_CHECK_EXTENSION KVM_CAP_XSAVE2", errno)
	}
	return &VM{fd: fd, runSize: s.runSize, xsaveLen: max(n, legacyXSAVE)}, nil
}
