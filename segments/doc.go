// Package segments holds what is searchable now on this node.
//
// A Set owns the collections of the node. A Collection publishes immutable
// views; a reader acquires a Snapshot of the current one and releases it once.
// A Channel is one vchannel: it takes rows and deletes in queue order, keeps
// tsafe, and owns the growing segments and the delete buffer. Sealed segments
// are opened by the Loader and replace the growing segment of the same id in
// one atomic swap.
//
// # Visibility
//
// A read at timestamp T sees a row (pk, t0) iff t0 <= T and there is no delete
// (pk, t) with t0 < t <= T. Rows of a segment are stored in timestamp order, so
// the rows that a read may see are a prefix; deletes are kept per segment as the
// first timestamp that hides each row.
//
// # A segment's life
//
//	           Load                     Publish
//	Absent ────────────▶ Loading ─────────────────▶ Loaded ──────────┐
//	   ▲                    │ error                    │ Release      │ panics or
//	   │                    ▼                          ▼              │ corrupt bytes
//	   └──────────────── (Absent)   Gone ◀──────── Releasing          ▼
//	                                 ▲   last reader                Quarantined
//	                                 └───────────── Release ──────────┘
//
// # Locks
//
// Channel.mu is taken before Collection.mu, Collection.mu before a segment's
// delete lock. None is held across I/O or a wait.
package segments
