package dispatcher

import (
	"cmp"
	"log/slog"
	"strings"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// PositionPolicy says what becomes of a subscription whose place the queue no
// longer has (mq.ErrTrimmed) or never had (mq.ErrAhead).
type PositionPolicy uint8

const (
	// FailSubscription ends it as Failed with the queue's error. The default, and
	// what a node does: whoever owns the data must decide how to rebuild it (there,
	// by "querynode queue begin-anew"), for rows may be missing that nobody has stored.
	FailSubscription PositionPolicy = iota
	// SkipToOldest goes on at the oldest readable message; counted, and reported
	// by Events.PositionLost. After mq.ErrAhead that is a step backwards. For
	// subscribers that can do without what is lost, such as caches; no key of the
	// node's configuration sets it.
	SkipToOldest
)

// Options configure a Manager. Queue is required; for all else zero means the default.
type Options struct {
	// Queue is where the readers are opened. The Manager does not close it.
	Queue mq.Queue
	// Name begins the name of every reader at the broker. Default "querynode".
	Name string
	// Logger receives what operators must know. nil = discard.
	Logger *slog.Logger
	// Events are called for what happens; see Events. A node sets none: it reads Stats
	// and the states of subscriptions, and what an operator must know is logged.
	Events Events
	// OnPositionGone is the policy for lost positions. Default FailSubscription.
	OnPositionGone PositionPolicy

	// MaxCatchUpPerPChannel bounds the consumers of a pchannel besides its first. Default 10.
	MaxCatchUpPerPChannel int
	// MaxCatchUp bounds the same over all pchannels. Default 64.
	MaxCatchUp int
	// ShareWindow: subscriptions whose places are at most this far apart (by
	// their timestamps) may share a catch-up consumer. Default 1 min; negative =
	// only those at the same place.
	ShareWindow time.Duration
	// SharePatience is how long a subscription with a full buffer may hold up
	// those it shares a catch-up consumer with, or those who wait for a slot. Default 1 s.
	SharePatience time.Duration

	// BufferMessages and BufferBytes bound what one subscription has been
	// given and not yet applied. A larger single message is let through alone.
	// Defaults 1024 and 8 MiB.
	BufferMessages int
	BufferBytes    int64
	// MaxBufferedBytes bounds the sum over all subscriptions; each may still
	// hold one message. A payload given to n subscriptions counts n times. Default 256 MiB.
	MaxBufferedBytes int64
	// BatchMessages and BatchBytes bound one Apply; a larger single message is
	// a batch of its own. Defaults 256 and 1 MiB.
	BatchMessages int
	BatchBytes    int64
	// InboxMessages and InboxBytes bound what one consumer reads ahead. Defaults 256 and 4 MiB.
	InboxMessages int
	InboxBytes    int64

	// OpenTimeout is the deadline of each Bounds and OpenReader. Default 10 s.
	OpenTimeout time.Duration
	// PollTimeout is the deadline of the calls of Next. Default 1 s.
	PollTimeout time.Duration
	// CloseTimeout is the deadline of each Reader.Close. Default 5 s.
	CloseTimeout time.Duration
	// HangGrace is how long a call may overrun its deadline before its consumer
	// counts as hung: it is reported, kept in the register as leaked, and
	// replaced. Default 2 s.
	HangGrace time.Duration
	// DrainTimeout is how long a running Apply may go on after Unsubscribe or
	// Close before its context is cancelled. Default 2 s.
	DrainTimeout time.Duration
	// BackoffMin and BackoffMax bound the waits before a consumer is rebuilt or
	// a batch applied again; they double, with jitter. Defaults 100 ms and 10 s.
	BackoffMin, BackoffMax time.Duration
}

// EnsureDefaults fills in what is zero.
func (o *Options) EnsureDefaults() {
	o.Name = cmp.Or(o.Name, "querynode")
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	o.Events.EnsureDefaults()
	o.MaxCatchUpPerPChannel = cmp.Or(o.MaxCatchUpPerPChannel, 10)
	o.MaxCatchUp = cmp.Or(o.MaxCatchUp, 64)
	o.ShareWindow = cmp.Or(o.ShareWindow, time.Minute)
	o.SharePatience = cmp.Or(o.SharePatience, time.Second)
	o.BufferMessages = cmp.Or(o.BufferMessages, 1024)
	o.BufferBytes = cmp.Or(o.BufferBytes, 8<<20)
	o.MaxBufferedBytes = cmp.Or(o.MaxBufferedBytes, 256<<20)
	o.BatchMessages = cmp.Or(o.BatchMessages, 256)
	o.BatchBytes = cmp.Or(o.BatchBytes, 1<<20)
	o.InboxMessages = cmp.Or(o.InboxMessages, 256)
	o.InboxBytes = cmp.Or(o.InboxBytes, 4<<20)
	o.OpenTimeout = cmp.Or(o.OpenTimeout, 10*time.Second)
	o.PollTimeout = cmp.Or(o.PollTimeout, time.Second)
	o.CloseTimeout = cmp.Or(o.CloseTimeout, 5*time.Second)
	o.HangGrace = cmp.Or(o.HangGrace, 2*time.Second)
	o.DrainTimeout = cmp.Or(o.DrainTimeout, 2*time.Second)
	o.BackoffMin = cmp.Or(o.BackoffMin, 100*time.Millisecond)
	o.BackoffMax = cmp.Or(o.BackoffMax, 10*time.Second)
}

// Validate lists everything that is wrong, after EnsureDefaults; class Invalid.
func (o *Options) Validate() error {
	var bad []string
	need := func(ok bool, what string) {
		if !ok {
			bad = append(bad, what)
		}
	}
	need(o.Queue != nil, "Queue is required")
	need(o.OnPositionGone <= SkipToOldest, "OnPositionGone is not a known policy")
	for name, v := range map[string]int64{
		"MaxCatchUpPerPChannel": int64(o.MaxCatchUpPerPChannel), "MaxCatchUp": int64(o.MaxCatchUp),
		"SharePatience": int64(o.SharePatience), "BufferMessages": int64(o.BufferMessages),
		"BufferBytes": o.BufferBytes, "MaxBufferedBytes": o.MaxBufferedBytes,
		"BatchMessages": int64(o.BatchMessages), "BatchBytes": o.BatchBytes,
		"InboxMessages": int64(o.InboxMessages), "InboxBytes": o.InboxBytes,
		"OpenTimeout": int64(o.OpenTimeout), "PollTimeout": int64(o.PollTimeout),
		"CloseTimeout": int64(o.CloseTimeout), "HangGrace": int64(o.HangGrace),
		"DrainTimeout": int64(o.DrainTimeout), "BackoffMin": int64(o.BackoffMin),
	} {
		need(v > 0, name+" must be positive")
	}
	need(o.BackoffMax >= o.BackoffMin, "BackoffMax must be at least BackoffMin")
	if len(bad) == 0 {
		return nil
	}
	return errclass.New(errclass.Invalid, "dispatcher options: %s", strings.Join(sorted(bad), "; "))
}

// stopBudget is what Close waits at most, whatever its context says: a sink
// that is told to stop, then a reader that overruns its deadline.
func (o *Options) stopBudget() time.Duration {
	return o.DrainTimeout + o.CloseTimeout + 2*o.HangGrace
}
