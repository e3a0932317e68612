// Package wal is the write-ahead log over one topic (pchannel) of an mq.Queue.
// Its owner appends entries; each gets a timestamp that is unique and strictly
// increasing in the pchannel, and is durable once Append has returned.
//
// # States
//
//	              producer taken            replayed to
//	              and bounds read           the end found
//	Open ──> Opening ──────────> Recovering ──────────> Ready
//	            │                     │                   │
//	            ├─────────────────────┼───────────────────┤
//	            │ Close               │ a newer owner     │ anything else
//	            v                     v                   v
//	         Closing <─── Close ─── Fenced              Failed
//	          │   ^                                       │
//	          │   └──────────────────── Close ────────────┘
//	          v
//	        Closed
//
// Closed is final. Fenced and Failed never serve again: both let go of producer
// and readers by themselves, Close then only waits for that. WAL.transition is
// the one place where the state changes.
//
// # Close
//
// Close is legal in every state, from any goroutine, any number of times, and
// is bounded by its context and by Options.CloseTimeout. The order is: refuse
// new work; close the closing channel; cancel the WAL's own context; wait, with
// a deadline, for the workers; close producer and readers; report by name what
// did not stop. Recovery runs on the WAL's context and never on a caller's, so
// that no caller's wait can keep it alive nor cut it short.
//
// # Calls that hang
//
// Each call into the queue runs in a goroutine of its own with a deadline of
// its own; see calls. A call that ignores its context is abandoned: for the WAL
// it has failed, what it may still bring (a producer, a reader) is closed when
// it comes, and Close names it until it ends.
//
// # Who owns the pchannel
//
// An owner learns that it has been replaced with its next write only. What must
// not be answered by a replaced one, such as a read that is to see all that was
// acknowledged, waits for a Barrier: a write that began after it, shared by all
// that wait at the time. The price is one write to the queue.
//
// # Who waits for whom
//
//	Append   -> its context, its answer. An entry that is queued or waits for
//	            room is answered by whoever ends the service (transition); one
//	            that was taken is answered by the writer, which waits for
//	            nothing but a call bounded as above.
//	Barrier  -> its context, the answer to its round, which comes like that of an entry
//	writer   -> WAL context, entries, timer, one bounded call
//	recovery -> WAL context, bounded calls, Replay
//	reaper   -> closing; then the end of everything the WAL started
//	Close    -> its context, the reaper
//
// Locks (mu of WAL, pending, resources, progress, Manager, slot) are leaves: none is
// held while another is taken, nor across a wait, a channel operation that can
// block, a callback or I/O.
package wal
