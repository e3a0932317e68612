package flush

import (
	"cmp"
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// Options configure a Flusher.
type Options struct {
	// Catalog, Bucket and Dir (scratch space, owned by the Flusher) are required.
	Catalog *catalog.Catalog
	Bucket  objstore.Bucket
	Dir     string
	// WAL returns the log of a pchannel that this node owns. Required.
	WAL func(pchannel string) (*wal.WAL, error)
	// Channels returns the watched channels. Required.
	Channels func() []Channel
	// SealRows, SealBytes and SealAge say when a growing segment is full.
	// 0 = 500,000 rows, 256 MiB, 30 minutes.
	SealRows  int
	SealBytes int64
	SealAge   time.Duration
	// Pressed says that a growing segment of so many bytes is to be sealed because
	// memory is short. Nil = never.
	Pressed func(bytes int64) bool
	// MaxUnreadBytes bounds the rows of growing segments that are in a log and in no
	// memory here, because the channel is not watched or has not read so far: beyond
	// it the largest are sealed. Who loads the collection must have room for as much,
	// for each channel, besides a segment that is full. 0 = SealBytes.
	MaxUnreadBytes int64
	// Interval is how often the loop looks for work without being asked. 0 = 1 s.
	Interval time.Duration
	// CheckpointInterval is how often an idle channel's checkpoint is moved. 0 = 30 s.
	CheckpointInterval time.Duration
	// StepTimeout bounds the upload of one file and each call of the log and the
	// catalog. 0 = 2 minutes.
	StepTimeout time.Duration
	// RoomTimeout is how long a build waits for memory; then what there is none for is stored without its index. 0 = 5 s.
	RoomTimeout time.Duration
	// Parallel is the number of channels that are worked on at the same time: one
	// whose storage hangs does not hold up the others. Segments are built one after the
	// other, and each channel can have one in Dir that is being uploaded. 0 = 8.
	Parallel int
	// Workers build an index. 0 = GOMAXPROCS.
	Workers int
	// OnFlushed is called when a segment is in the catalog. Nil = ignored.
	OnFlushed func(f Flushed)
	// OnProgress is called while a segment is built and uploaded. Nil = ignored.
	OnProgress func(p Progress)
	// Logger gets what an operator should see. Nil = discard.
	Logger *slog.Logger
}

// Channel is a watched channel.
type Channel struct {
	*segments.Channel
	PChannel string
	// Unproven says that it is not known yet whether it reads all of its log: nothing is done with
	// it, or with its log, until it is.
	Unproven bool
}

func (ch Channel) log() Log {
	return Log{PChannel: ch.PChannel, VChannel: ch.Name(), CollectionID: ch.Collection().Info().ID}
}

// Flushed says that a segment is in the catalog.
type Flushed struct {
	CollectionID int64
	VChannel     string
	SegmentID    int64
	Rows         int64
	Bytes        int64
}

// Progress says how far a flush is.
type Progress struct {
	SegmentID int64
	Phase     string // "index" (rows) or "upload" (bytes)
	Done      int64
	Total     int64
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.SealRows = cmp.Or(o.SealRows, 500_000)
	o.SealBytes = cmp.Or(o.SealBytes, 256<<20)
	o.MaxUnreadBytes = cmp.Or(o.MaxUnreadBytes, o.SealBytes)
	o.SealAge = cmp.Or(o.SealAge, 30*time.Minute)
	o.Interval = cmp.Or(o.Interval, time.Second)
	o.CheckpointInterval = cmp.Or(o.CheckpointInterval, 30*time.Second)
	o.StepTimeout = cmp.Or(o.StepTimeout, 2*time.Minute)
	o.RoomTimeout = cmp.Or(o.RoomTimeout, 5*time.Second)
	o.Parallel = cmp.Or(o.Parallel, 8)
	o.Workers = cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	if o.Pressed == nil {
		o.Pressed = func(int64) bool { return false }
	}
	if o.OnFlushed == nil {
		o.OnFlushed = func(Flushed) {}
	}
	if o.OnProgress == nil {
		o.OnProgress = func(Progress) {}
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	need := func(ok bool, name string) {
		if !ok {
			errs = append(errs, errors.Newf("flush: %s is required", name))
		}
	}
	need(o.Catalog != nil, "Catalog")
	need(o.Bucket != nil, "Bucket")
	need(o.Dir != "", "Dir")
	need(o.WAL != nil, "WAL")
	need(o.Channels != nil, "Channels")
	for _, v := range []struct {
		name string
		n    int64
	}{{"SealRows", int64(o.SealRows)}, {"SealBytes", o.SealBytes}, {"SealAge", int64(o.SealAge)}, {"MaxUnreadBytes", o.MaxUnreadBytes},
		{"Interval", int64(o.Interval)}, {"CheckpointInterval", int64(o.CheckpointInterval)},
		{"StepTimeout", int64(o.StepTimeout)}, {"RoomTimeout", int64(o.RoomTimeout)}, {"Parallel", int64(o.Parallel)}, {"Workers", int64(o.Workers)}} {
		if v.n < 0 {
			errs = append(errs, errors.Newf("flush: %s is %d, want 0 (default) or more", v.name, v.n))
		}
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// step returns a context for one remote call.
func (o *Options) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, o.StepTimeout)
}
