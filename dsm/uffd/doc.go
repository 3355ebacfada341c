// Package uffd holds guest memory in two views and resolves its page faults.
//
// A node keeps guest RAM in one memfd that is mapped twice:
//
//	          memfd (page cache)
//	         /                  \
//	guest view                  alias
//	given to KVM                never registered
//	registered with userfaultfd read and written by the DSM
//	MISSING | MINOR | WP        engine and the devices
//	in Go only an address       in Go a []byte
//
// What the guest may do to a page is what the guest view's page table says of
// it; what the page holds is the page cache's and is reached through the alias
// whatever the guest may do. So the three states a page has at a node are
//
//	invalid    not mapped in the guest view: any access faults
//	shared     mapped, userfaultfd write protection set: a write faults
//	modified   mapped, no write protection: no fault
//
// and the steps between them are
//
//	to       from      how
//	shared   invalid   fill the alias, Continue(wp)
//	modified invalid   fill the alias, Continue(no wp)
//	modified shared    Unprotect
//	shared   modified  WriteProtect, then read the alias
//	invalid  any       Zap, then read the alias
//
// # Rules
//
// Each is shown by a test of the same number in rules_test.go.
//
//  1. To invalid is one Zap and then the alias is read; no write protection
//     comes first. To shared is WriteProtect and then the alias is read.
//  2. Continue on a present page is ErrPresent and wakes nobody: call Wake. A
//     range that stops midway is ErrPartial with the count that was done.
//  3. Never drop a Fault. One whose page is fine by now still needs a Wake.
//  4. Decide from the page's directory state and Fault.Write. A write fault on
//     write protection (Fault.WP) is common on pages that are invalid by then.
//  5. Zap of a write-protected page leaves a marker in the page table: the next
//     touch is still a fault, and Continue overwrites the marker.
//  6. Reading a hole through the alias allocates the page.
//  7. The kernel may unmap a valid page when it reclaims memory: the fault that
//     follows is Minor and is answered by Continue in the page's mode.
//     MemoryOptions.Lock keeps pages that were touched through the alias.
//  8. No uffd event but faults is asked for: with EVENT_REMOVE an madvise would
//     wait for the reader.
//  9. No I/O by pinned pages (O_DIRECT, vmsplice, vfio) into the guest view: it
//     passes by without a fault. Devices use the alias.
//  10. One WriteProtect or Zap inside a huge mapping unmaps all 512 pages, and
//     Continue on a mapping that is still huge is ErrPresent: Zap the whole
//     2 MiB region first. A range Continue without wp makes every shared page
//     inside it that is not mapped writable.
//
// # Which thread may do what
//
// The guest view must never be dereferenced by Go code: a Go load that faults
// holds up the runtime's stop-the-world, and the goroutine that would resolve
// the fault may be among the stopped. A fault inside a system call made through
// unix.Syscall (KVM_RUN, process_vm_readv) is fine. Package uffdtest touches the
// guest view in that way.
//
// Methods of Uffd may be called from any number of goroutines; none allocates.
// A reader in Read should be locked to its thread: its latency is the guest's.
package uffd
