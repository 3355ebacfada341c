// Package explore searches every schedule of small models of the protocol for
// one that breaks it.
//
// # What runs
//
// The protocol is the production code: [dsm.Step] for the pages and their
// directory entries, [dsm.Streak] and [dsm.TokenQueue] for the progress token,
// [dsm.Lineage] for what of a page travels. Around it the model has, as actors of their own,
//
//   - the links: an ordered channel for each direction between two nodes, as
//     package link gives it (loss and duplication end a session there);
//   - on each node and page the page table entry (none, read-only, writable),
//     the content in the alias, and the hold queue's entry;
//   - the vCPU threads: an instruction needs one or more pages at once, faults
//     on the first that it lacks, sleeps, and starts anew when it is woken;
//   - the userfaults that were not yet read; a wake removes its thread's;
//   - devices that pin a page and copy to or from the alias;
//   - the engine: what stepLocked, perform, fault, release and streaks.go do for
//     a page is done here in the same order. Its locks make a step of the engine
//     indivisible to the engine. They do not to other nodes and to the vCPUs: a
//     step whose first part has left the node and whose next part changes the
//     page table stops in between.
//
// Time is not modelled. A hold lasts as long as it likes ([HoldFree]), so what
// is true here is true for all its durations. Regions are registered from the
// start. The protocol has no eviction, no leave and no re-homing yet, and so the
// model has none.
//
// # Reductions
//
// A copy's content is the last write or it is not; more is never asked of it, so
// all contents that agree in this are one. (With [Profile.Contents], contents
// are told apart, and versions by their order.) The alias's content counts while
// the copy is valid, as Install overwrites it. States that differ in the names of
// nodes, pages and threads only are one, where homes and programs allow it
// (Profile.symmetries); the client, node 0, keeps its name where the token is
// in play.
//
// States are told apart by 64-bit fingerprints under a key drawn for each run.
// [Result.Odds] bounds the probability that two shared one.
//
// # What is checked
//
// In every state: one writer or readers, judged by page tables and pins; what is
// mapped or pinned holds the last write; no mapping exceeds the protocol's
// state; the directory covers the copies, and the copies the directory; the
// token has one holder and no request for it is lost; the holder's request is at
// its queue's head. In every step: Step reports no violation; a place in a
// queue only improves, except by the token; the holder's streak keeps its pages.
// Where nothing has to happen any more, all is at rest: nobody was forgotten.
// Over the whole graph: from every state, without new accesses and without
// disturbances, a state at rest can be reached; and in profiles with
// [Profile.Starvation] no weakly fair cycle leaves an access pending for ever.
package explore
