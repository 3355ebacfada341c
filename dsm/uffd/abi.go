package uffd

// Numbers of linux/userfaultfd.h. Names are the header's.
const (
	uffdAPI = 0xAA // UFFD_API

	ioctlNew          = 0x0000AA00 // USERFAULTFD_IOC_NEW, on /dev/userfaultfd
	ioctlRegister     = 0xC020AA00 // UFFDIO_REGISTER
	ioctlUnregister   = 0x8010AA01 // UFFDIO_UNREGISTER
	ioctlWake         = 0x8010AA02 // UFFDIO_WAKE
	ioctlWriteProtect = 0xC018AA06 // UFFDIO_WRITEPROTECT
	ioctlContinue     = 0xC020AA07 // UFFDIO_CONTINUE
	ioctlPoison       = 0xC020AA08 // UFFDIO_POISON
	ioctlAPI          = 0xC018AA3F // UFFDIO_API

	registerMissing = 1 << 0 // UFFDIO_REGISTER_MODE_MISSING
	registerWP      = 1 << 1 // UFFDIO_REGISTER_MODE_WP
	registerMinor   = 1 << 2 // UFFDIO_REGISTER_MODE_MINOR

	continueDontWake = 1 << 0 // UFFDIO_CONTINUE_MODE_DONTWAKE
	continueWP       = 1 << 1 // UFFDIO_CONTINUE_MODE_WP

	writeProtectWP = 1 << 0 // UFFDIO_WRITEPROTECT_MODE_WP

	eventPagefault = 0x12 // UFFD_EVENT_PAGEFAULT

	faultWrite = 1 << 0 // UFFD_PAGEFAULT_FLAG_WRITE
	faultWP    = 1 << 1 // UFFD_PAGEFAULT_FLAG_WP
	faultMinor = 1 << 2 // UFFD_PAGEFAULT_FLAG_MINOR
)

// Features of linux/userfaultfd.h, as in Support.Features.
const (
	FeaturePagefaultWP   = 1 << 0  // UFFD_FEATURE_PAGEFAULT_FLAG_WP
	FeatureEventRemove   = 1 << 3  // UFFD_FEATURE_EVENT_REMOVE
	FeatureMissingShmem  = 1 << 5  // UFFD_FEATURE_MISSING_SHMEM
	FeatureThreadID      = 1 << 8  // UFFD_FEATURE_THREAD_ID
	FeatureMinorShmem    = 1 << 10 // UFFD_FEATURE_MINOR_SHMEM
	FeatureWPShmem       = 1 << 12 // UFFD_FEATURE_WP_HUGETLBFS_SHMEM
	FeatureWPUnpopulated = 1 << 13 // UFFD_FEATURE_WP_UNPOPULATED
	FeaturePoison        = 1 << 14 // UFFD_FEATURE_POISON
)

// Bits of the ioctl masks that UFFDIO_REGISTER returns: 1 << the ioctl's number.
const (
	canWake         = 1 << 0x02 // _UFFDIO_WAKE
	canWriteProtect = 1 << 0x06 // _UFFDIO_WRITEPROTECT
	canContinue     = 1 << 0x07 // _UFFDIO_CONTINUE
)

// uffdioRange is struct uffdio_range.
type uffdioRange struct {
	start, len uint64
}

// uffdioAPI is struct uffdio_api.
type uffdioAPI struct {
	api, features, ioctls uint64
}

// uffdioRegister is struct uffdio_register.
type uffdioRegister struct {
	uffdioRange
	mode, ioctls uint64
}

// uffdioWriteProtect is struct uffdio_writeprotect.
type uffdioWriteProtect struct {
	uffdioRange
	mode uint64
}

// uffdioContinue is struct uffdio_continue, and struct uffdio_poison with done
// for its field updated. done is bytes, or an errno below zero.
type uffdioContinue struct {
	uffdioRange
	mode uint64
	done int64
}

// A struct uffd_msg is 32 bytes. Of a page fault:
//
//	0 event u8 | 8 flags u64 | 16 address u64 | 24 thread id u32
const (
	msgSize     = 32
	msgEvent    = 0
	msgFlags    = 8
	msgAddress  = 16
	msgThreadID = 24
	msgBatch    = 16 // most messages taken by one read(2)
)
