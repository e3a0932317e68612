// Package pulsar is a message queue on Apache Pulsar: what package mq promises,
// over github.com/apache/pulsar-client-go, which no other package imports.
// mq/mqtest checks it, on a real broker and on a log in memory.
//
// # A topic is one log of entries
//
// A topic of mq is one persistent topic of Pulsar without partitions. Each batch
// that is appended, or several that wait together, is one message of Pulsar, an
// entry: so a batch is stored as a whole or not at all, in one place, and the
// client's own batching, whose sequence ids name only the first message of a
// batch, is off. A position is (ledger, entry, number in the entry), big-endian,
// 20 bytes. Ledger ids of a topic only grow, so that bytes compare as order.
//
// An entry is big-endian, and the body holds count messages of timestamp 8, key
// length 2, payload length 4, key, payload:
//
//	offset  bytes  what
//	     0      4  magic "QNPE"
//	     4      1  version
//	     5      1  kind: 1 data, 2 claim, 3 trim
//	     6      2  zero
//	     8      4  crc32c of the other bytes of the header
//	    12      4  crc32c of the body
//	    16      8  term of the writer
//	    24      8  nonce of the writer: random, one for each claim
//	    32     16  prev: ledger and entry of the entry before, as the writer knows it
//	    48     72  base: the state of the topic right after prev
//	              (term 8, owner's nonce 8, index 8, trim 20, newest message 20, its timestamp 8)
//	   120     20  target, of a trim
//	   140      4  count
//	   144      8  timestamp of the last message
//	   152         body
//
// # Who owns the topic is decided in the log
//
// The client offers no producer that fences: its exclusive mode refuses who
// comes second, dead or alive, and knows no terms. So all producers are shared,
// and who owns the topic is a function of the log, state.fold, that owner,
// readers and later owners all compute alike:
//
//   - OpenProducer appends a claim (term, nonce) and reads what is before it. A
//     claim counts if its term is higher than the owner's; with an equal term, if
//     its base names that owner. A claim that does not count is void.
//   - Data count if they are the owner's, and directly follow what counted last.
//     Others are void (a fenced owner's) or duplicates (sent again by the client
//     after a lost acknowledgement). Readers never show either.
//   - A trim counts from anybody, and moves the beginning forward only.
//
// Pulsar orders all appends to a topic, so that no two can differ about it. Of
// two that open at once with different terms, the lower one's claim comes first,
// and it owns the topic until the higher one's, or it comes second and is void.
// A claim whose caller has given up may arrive late: with a lower term it is
// void; with an equal one too, because its base names an owner that is past. What
// a fenced owner has on its way arrives before the claim, and the new owner has
// read it, or after, and counts for nobody. None of this needs a clock, a lock,
// an admin right or that a dead connection is noticed. The term is as durable as
// the entries: each carries it.
//
// An owner learns that it is fenced by its next append, for the price of a
// comparison: it sends one entry at a time, and entries of a ledger are numbered
// without holes. When its entry is right behind its last one nothing can be
// between. Otherwise, and that is at a new ledger, after somebody's claim, trim
// or an entry sent twice, it reads what is between, and then knows whether its
// own entry counts and where. Concurrent appends share entries meanwhile.
//
// # Finding the state
//
// The newest entry carries the true state at its prev, mostly the entry before
// it; reading from there gives the state now. So every open and Bounds costs a
// handful of requests however long the topic is. If the newest cannot be decoded
// (damaged, or of somebody else), older ones are looked at.
//
// # Reading
//
// Readers of the client are not durable, under random names: nothing is left at
// the broker, and where they are is known here only. The client's own idea of a
// position is not trusted. Pulsar begins with the next entry when the one asked
// for is gone, and whether it includes the one asked for depends on the batch
// index and the version: so reading begins at the entry itself, must meet it
// (ErrTrimmed if not), and drops it if it is not wanted. Every entry tells how
// many had to count before it. Whatever the client leaves out when it
// reconnects is fetched by a new reader; what is then still missing is
// ErrTrimmed, or a *mq.CorruptError when nobody has trimmed and the topic still
// begins before it: entries are gone from its middle. A topic that was deleted
// and made again, by whoever writes, is ErrTrimmed to who had read of the one before.
//
// FromTimestamp is a binary search over ids: each entry tells the newest timestamp
// before it. The client's seeks are not used, see search.go.
//
// # What the broker keeps
//
// A stock broker deletes ledgers that no subscription needs and topics that
// nobody is connected to. OpenProducer creates one durable subscription,
// "querynode", which nobody consumes: its cursor keeps all that is behind it.
// Trim appends a trim entry, from which on no reader begins before it, and moves
// the cursor; the broker drops whole ledgers then, in its own time. A message
// TTL on the namespace would move the cursor as well and must not be set.
//
// # Exactly once, and unknown outcomes
//
// While the broker is away the client keeps the one entry that is on its way and
// sends it again; stored twice it counts once, at its first place, also when the
// broker deduplicates and acknowledges the second with -1:-1, which is never
// taken for a position. An append whose context ends, or that takes longer than
// Options.AppendTimeout, is ErrUnknownOutcome, and so is all that follows from
// that producer: the next OpenProducer settles it, as its claim ends the log of
// the one before.
//
// # Calls that hang
//
// The client's calls do not keep deadlines: readers and consumers take
// OperationTimeout each to close on a broker that is frozen, one after the other,
// and sends wait for room beyond their context. Each runs in a goroutine that is
// waited for as long as the caller's context lasts, is named in Stats.Calls while
// it lasts, and whose product is closed if it comes too late. Close is bounded by
// its context and names what has not ended. SendTimeout of the client is off,
// since with it each closed producer leaves a goroutine until it has passed.
//
// # Limits
//
// A batch is at most Options.MaxEntryBytes, or mq.ErrTooLarge. Reading from a
// timestamp costs some thirty opens of a reader. An append after a
// trim, or at a new ledger, waits for one read. The client v0.21.0 has data races
// of its own when it reconnects (its producer's name and encryptor, its
// consumer's last message), so that the race detector is of use without a broker
// only; entries that such a race has sent or delivered twice are dropped as above.
package pulsar
