package mq

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Message is one entry of a pchannel.
type Message struct {
	// Position is set by the backend; ignored in Append.
	Position Position
	// Timestamp is hybrid (physical ms << 18 | logical) and strictly increasing
	// within a pchannel; the owner of the pchannel assigns it.
	Timestamp uint64
	// Key is the vchannel the message is for; empty = for every vchannel on the
	// pchannel (timeticks). At most MaxKeyBytes.
	Key string
	// Payload is at most the backend's MaxPayloadBytes. A Message given out by a
	// Reader owns its Payload: the backend never changes it afterwards.
	Payload []byte
}

// MaxKeyBytes bounds Message.Key.
const MaxKeyBytes = 512

// Sentinels that callers branch on. Backends return them wrapped.
var (
	// ErrFenced: a producer of a higher term has taken the topic.
	ErrFenced = errclass.Mark(errors.New("mq: fenced by a newer owner"), errclass.Fenced)
	// ErrClosed: the queue, producer or reader is closed.
	ErrClosed = errclass.Mark(errors.New("mq: closed"), errclass.Closed)
	// ErrTrimmed: the position to read from has been trimmed away. The reader
	// was not opened; Bounds tells where the topic begins now.
	ErrTrimmed = errclass.Mark(errors.New("mq: position has been trimmed"), errclass.Position)
	// ErrAhead: the position to read from is after the end of the topic.
	ErrAhead = errclass.Mark(errors.New("mq: position is ahead of the end"), errclass.Position)
	// ErrTooLarge: a payload or key is over the backend's limit.
	ErrTooLarge = errclass.Mark(errors.New("mq: message too large"), errclass.Invalid)
	// ErrCorrupt: a stored message fails its checksum. Use errors.As with *CorruptError.
	ErrCorrupt = errclass.Mark(errors.New("mq: corrupt message"), errclass.Corrupt)
	// ErrUnknownOutcome: an append failed so that nobody knows whether it is
	// stored. The producer refuses further appends; close it and open a new one.
	ErrUnknownOutcome = errclass.Mark(errors.New("mq: append outcome unknown"), errclass.Retryable)
)

// CorruptError names the stored message that fails its checksum. A reader that
// returned it has moved past the message: the next Next gives the one after.
type CorruptError struct {
	Topic    string
	Position Position // Timestamp 0 when it cannot be read
	Detail   string   // file and offset, or ledger and entry
}

// Error names topic, position and place.
func (e *CorruptError) Error() string {
	return "mq: corrupt message in " + e.Topic + " at " + e.Position.String() + ": " + e.Detail
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// Bounds is what a topic holds at the moment: First and Last are the positions
// of the oldest and newest readable message; both zero when it holds none.
type Bounds struct{ First, Last Position }

// Queue is a connection to a message queue. All methods are safe for concurrent
// use, create a topic on first use, and honour their context's deadline.
type Queue interface {
	// OpenProducer makes the caller the only writer of topic. A producer opened
	// with a lower Term is fenced at once: its appends fail with ErrFenced. A
	// Term lower than the topic's fails with ErrFenced; an equal Term is the
	// same owner coming back and fences its own earlier producer. The term is durable.
	OpenProducer(ctx context.Context, topic string, o ProducerOptions) (Producer, error)
	// OpenReader opens a reader; see ReaderOptions. It leaves nothing behind at
	// the broker once closed or once its process has died.
	OpenReader(ctx context.Context, topic string, o ReaderOptions) (Reader, error)
	// Bounds says what the topic holds.
	Bounds(ctx context.Context, topic string) (Bounds, error)
	// Trim allows the backend to drop every message before pos (pos itself stays
	// readable). It may keep more. Trimming backwards or twice is no error.
	Trim(ctx context.Context, topic string, pos Position) error
	// Close closes what is still open through this connection, waits until ctx
	// ends, and returns the names of producers and readers that did not close.
	Close(ctx context.Context) error
}

// Limited is a Queue that knows how large a message it takes. All backends are.
type Limited interface {
	// MaxPayloadBytes bounds Message.Payload.
	MaxPayloadBytes() int
}

// Private is a Queue that one process has for itself, as others like it have theirs: the
// same position means another message in each.
type Private interface {
	// Identity tells the queue from all others. It stays the same for as long as the
	// queue does, over all processes that open it.
	Identity() string
	// End is the position of the newest message that the topic ever had, kept or not;
	// zero if it never had one.
	End(ctx context.Context, topic string) (Position, error)
	// Begin makes a topic that never had a message begin behind after, a position of the
	// queue that it takes the place of. One that has messages is of class Conflict.
	// To repeat it is no error.
	Begin(ctx context.Context, topic string, after Position) error
}

// Syncer is a Queue that may show and acknowledge messages before they are safe from a
// power failure. Who remembers elsewhere how far a topic was read syncs it first: what is
// remembered would be of messages that are gone, and of others later.
type Syncer interface {
	// Sync returns once all that was acknowledged or shown of the topic before the call
	// is safe. After an error that is not known, of some or of all.
	Sync(ctx context.Context, topic string) error
}

// ProducerOptions configure OpenProducer.
type ProducerOptions struct {
	// Term is the owner's fencing number; it only grows. 0 is the lowest.
	Term uint64
	// Name tells who writes, for logs and the broker's lists. Empty = "producer".
	Name string
}

// Producer appends to one topic. Append may be called concurrently; calls are
// stored in some order, each batch contiguous and in the order given.
type Producer interface {
	// Append stores msgs and returns their positions once all are durable. On an
	// error either none of them is stored (ErrFenced, ErrTooLarge, ErrClosed, an
	// Exhausted error such as a full disk), or it is ErrUnknownOutcome.
	Append(ctx context.Context, msgs ...Message) ([]Position, error)
	// Close waits for running appends until ctx ends, then lets go of the topic.
	Close(ctx context.Context) error
}

// ReaderOptions say where to start. The zero value starts at the oldest message.
type ReaderOptions struct {
	// From starts at this position; ErrTrimmed if messages after it are gone,
	// ErrAhead if it is after the end. Zero = the oldest message there is.
	From Position
	// Exclusive starts right after From instead of at it. With a zero From it has no effect.
	Exclusive bool
	// FromTimestamp, when not 0, starts at the first message with a timestamp >=
	// it and From must be zero.
	FromTimestamp uint64
	// Latest starts after the newest message; From and FromTimestamp must be zero.
	Latest bool
	// Name tells who reads, for logs and the broker's lists. Empty = "reader".
	Name string
}

// Reader reads one topic in order. It is used by one goroutine at a time,
// except Close, which may be called from any and wakes a blocked Next.
type Reader interface {
	// Next returns the next message; it waits for one until ctx ends. After
	// Close it returns ErrClosed; on a corrupt message a *CorruptError.
	Next(ctx context.Context) (Message, error)
	// Close lets go of the broker's resources; it is idempotent and bounded by ctx.
	Close(ctx context.Context) error
}
