// Package dsm keeps the memory of one guest coherent over several hosts.
//
// # Model
//
// Memory is sequentially consistent at page granularity: a page has one
// writer or many readers, and an invalidation is acknowledged before a write
// is granted, so x86-TSO follows from what each host's own processor does.
// Every page has a home, the node that serialises all transactions on it; the
// home's directory entry names the owner and the copyset.
//
// # A page's life
//
//	                     read request            write request
//	requester   I ───────────► S          I,S,O ───────────► M
//	supplier    M ───────────► O          S,O,M ───────────► I
//
//	I  invalid   no mapping in the guest view
//	S  shared    mapped read-only; somebody else is the owner
//	O  owned     mapped read-only; this node answers for the content
//	M  modified  mapped writable; the only copy
//
// A read miss, the home being a third node:
//
//	requester            home              owner
//	    │── Req(read) ────►│                 │
//	    │                  │── FwdRead ─────►│ M→O: write-protect, then read
//	    │◄────────────── Data(S) ────────────│      the alias
//	 install               │                 │
//	    │── Done ─────────►│ next in queue   │
//
// A write by a node that holds a copy:
//
//	requester            home            other copies
//	    │── Req(write) ───►│── Inv ─────────►│ zap the mapping
//	    │                  │◄──────── InvAck │
//	    │◄──────── Grant ──│                 │
//	 unprotect
//
// Where the home itself supplies the data or grants the upgrade it completes
// the transaction at once: whatever it sends next about this page to the
// requester follows on the same ordered connection. Only a transfer between
// two other nodes needs Done.
//
// # Pure core
//
// [Step] and the token's and streak's methods have no I/O, no clock and no
// goroutines. The [Engine] runs them against userfaultfd and links; the tests
// run the same code against a model of both.
package dsm
