package wal

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Options configure Open. Queue and PChannel are needed; what is 0 gets the
// default named with the field.
type Options struct {
	// Queue holds the topic. The caller owns and closes it, after the WAL.
	Queue mq.Queue
	// PChannel is the topic's name.
	PChannel string
	// Term is the owner's fencing number: opening fences every lower term, and
	// an earlier WAL of the same term. 0 is the lowest.
	Term uint64
	// Owner names this node in the broker's lists. "" = "wal".
	Owner string

	// Checkpoint is the last entry that needs no replay. Zero = replay from the
	// oldest message.
	Checkpoint mq.Position
	// AllowGap goes on at the oldest message when entries after Checkpoint have
	// been trimmed away, instead of failing with mq.ErrTrimmed: the rows in
	// between are lost. Events.Gap tells.
	AllowGap bool
	// TailOnly replays nothing: the newest message alone is read, and only if the
	// queue does not tell its timestamp. For owners whose rows are rebuilt by others,
	// who read the topic themselves.
	TailOnly bool
	// Replay is called in order for each entry after Checkpoint, timeticks and
	// unknown types included, from one goroutine and with the WAL's context. An
	// error of class Corrupt, Invalid or NotFound, or a panic, quarantines the
	// entry; any other error fails the WAL. nil = nothing to rebuild: so it is in a node,
	// which opens with TailOnly. It is for an owner that has nobody else to read its log.
	Replay func(ctx context.Context, e Entry) error
	// SaveCheckpoint, when set, is called during the replay after every
	// CheckpointEvery messages with the position of the last one replayed, so that a
	// recovery that is cut short goes on from there. Its error is counted and logged only.
	SaveCheckpoint func(ctx context.Context, at mq.Position) error
	// CheckpointEvery is in messages. 0 = 1000.
	CheckpointEvery int

	// TimeTickInterval is how often a timetick is written. 0 = 200 ms, < 0 = never.
	TimeTickInterval time.Duration
	// AppendTimeout bounds one batch in the queue, and one SaveCheckpoint. 0 = 10 s.
	AppendTimeout time.Duration
	// OpenTimeout bounds each call while opening, and the wait for the next
	// message during the replay; not the replay as a whole. 0 = 30 s.
	OpenTimeout time.Duration
	// CloseTimeout bounds Close. 0 = 10 s.
	CloseTimeout time.Duration

	// MaxPendingEntries and MaxPendingBytes bound the appends that are queued or
	// being written. More than that wait for room. 0 = 8192 and 64 MiB.
	MaxPendingEntries int
	MaxPendingBytes   int64
	// MaxWaiting bounds the appends that wait for room, and their bytes are
	// bounded by MaxPendingBytes again; more are refused at once with class
	// Exhausted. Deletes may go a quarter beyond both. 0 = 8192, < 0 = nobody waits.
	MaxWaiting int
	// MaxBatchEntries and MaxBatchBytes bound what is written with one call. An
	// entry larger than MaxBatchBytes goes alone. 0 = 1024 and 4 MiB.
	MaxBatchEntries int
	MaxBatchBytes   int64

	// Clock gives out the timestamps; logs that share one give out none twice. nil =
	// one of its own.
	Clock *Clock
	// Now is the wall clock. nil = time.Now.
	Now func() time.Time
	// Logger gets state changes, quarantined messages and failures. nil = discard.
	Logger *slog.Logger
	// Events are called when something happens; see there.
	Events Events
}

// Events are callbacks for metrics and logs. Each may be nil and must neither
// block nor call Close. They come from several goroutines; a state change may be
// told after a later one. A panic in one is swallowed.
type Events struct {
	StateChanged func(pchannel string, from, to State, cause error)
	Quarantined  func(Quarantine)
	// Gap tells that the entries after from and before first are lost (AllowGap).
	Gap func(pchannel string, from, first mq.Position)
	// TickFailed tells that a timetick was not stored; the next one is tried in time.
	TickFailed func(pchannel string, err error)
	// CheckpointFailed tells that SaveCheckpoint returned an error.
	CheckpointFailed func(pchannel string, at mq.Position, err error)
}

// Quarantine names a message that the replay has passed over.
type Quarantine struct {
	PChannel string
	Position mq.Position
	VChannel string // "" when not known
	Type     Type   // 0 when not decoded
	Reason   error
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	o.Owner = cmp.Or(o.Owner, "wal")
	o.CheckpointEvery = cmp.Or(o.CheckpointEvery, 1000)
	o.TimeTickInterval = cmp.Or(o.TimeTickInterval, 200*time.Millisecond)
	o.AppendTimeout = cmp.Or(o.AppendTimeout, 10*time.Second)
	o.OpenTimeout = cmp.Or(o.OpenTimeout, 30*time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 10*time.Second)
	o.MaxPendingEntries = cmp.Or(o.MaxPendingEntries, 8192)
	o.MaxPendingBytes = cmp.Or(o.MaxPendingBytes, 64<<20)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 8192)
	o.MaxBatchEntries = cmp.Or(o.MaxBatchEntries, 1024)
	o.MaxBatchBytes = cmp.Or(o.MaxBatchBytes, 4<<20)
	o.Clock = cmp.Or(o.Clock, &Clock{})
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports all problems at once, with class Invalid. Call it after EnsureDefaults.
func (o *Options) Validate() error {
	var problems []error
	need := func(ok bool, what string) {
		if !ok {
			problems = append(problems, errors.New(what))
		}
	}
	need(o.Queue != nil, "Queue is not set")
	need(o.PChannel != "", "PChannel is not set")
	need(o.CheckpointEvery > 0, "CheckpointEvery must be > 0")
	need(o.AppendTimeout > 0, "AppendTimeout must be > 0")
	need(o.OpenTimeout > 0, "OpenTimeout must be > 0")
	need(o.CloseTimeout > 0, "CloseTimeout must be > 0")
	need(o.MaxPendingEntries > 0, "MaxPendingEntries must be > 0")
	need(o.MaxPendingBytes > 0, "MaxPendingBytes must be > 0")
	need(o.MaxBatchEntries > 0, "MaxBatchEntries must be > 0")
	need(o.MaxBatchBytes > 0, "MaxBatchBytes must be > 0")
	return errclass.Wrap(errors.Join(problems...), errclass.Invalid, "wal options of %q", o.PChannel)
}
