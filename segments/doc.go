// Package segments holds what is searchable now on this node.
//
// A Set owns the collections of the node. A Collection publishes immutable
// views; a reader acquires a Snapshot of the current one and releases it once.
// A Channel is one vchannel: it takes rows and deletes in queue order, keeps
// tsafe, and owns the growing segments and the delete buffer. Sealed segments
// are opened by Collection.Load and replace the growing segment of the same id in
// one atomic swap.
//
// # Visibility
//
// A read at timestamp T sees a row (pk, t0) iff t0 <= T and there is no delete
// (pk, t) with t0 < t <= T. Rows of a segment are stored in timestamp order, so
// the rows that a read may see are a prefix; deletes are kept per segment as the
// first timestamp that hides each row.
//
// A key that is inserted twice without a delete has two rows. In one segment the
// newer hides the older from its own timestamp on, as a delete would, so that a
// segment never shows two rows of one key. Rows of different segments meet when
// results are merged, where the newest of them stays.
//
// # A segment's life
//
//	           Load                     publish
//	Absent ────────────▶ Loading ─────────────────▶ Loaded ──────────┐
//	   ▲                    │ error                    │ Release      │ corrupt bytes,
//	   │                    ▼                          ▼              │ a lost delete,
//	   └──────────────── (Absent)   Gone ◀──────── Releasing          │ or N panics
//	                                 ▲   last reader                  ▼
//	                                 └───────────── Release ──── Quarantined
//
// A quarantined segment stays in the view: reads fail, or say what they lack if
// they allow a partial answer. Release and then Load read it afresh; a growing one
// is replaced by its flush. A delete that a segment could not take quarantines it
// at once: it would show rows that are gone.
//
// # Deletes and loads
//
// A load finds each delete of its channel in one of three places: in the segment's
// own file, in files named by the catalog, or in the channel's buffer. The buffer is
// pinned from before the catalog is read until the segment is published, and
// publishing and deleting exclude each other, so that none is lost between them.
//
// # Memory
//
// All that grows with data is in the Ledger: rows, vectors and lists of growing
// segments, scalars, keys and delete bitmaps of sealed ones, delete buffers, files
// of deletes while they are read, and results of reads on their way. Loads are refused
// at the limit; deletes always pass. Rows are in the log already when they come here,
// and what makes room for them, a seal, is behind them: they may go a quarter beyond.
//
// While memory is short, the sealed segments that were read the longest time ago
// become cold: their scalars are then in a mapped file, as vectors, graphs and key
// filters always are. A segment that is loaded while memory is short is
// cold at once.
//
// # Locks
//
// Channel.mu is taken before Collection.mu, Collection.mu before Set.mu and before a
// segment's delete lock; the ledger's lock is the innermost. None is held across I/O
// or a wait. Closing a segment, which is I/O, has goroutines of its own.
package segments
