package compact

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/segments"
)

// Options configure a Compactor.
type Options struct {
	// Catalog, Bucket and Dir (scratch space, owned by the Compactor) are required.
	Catalog *catalog.Catalog
	Bucket  objstore.Bucket
	Dir     string
	// Channels returns the channels whose logs this node owns. Required.
	Channels func() []Channel
	// Policy says what is worth a job.
	Policy Policy
	// Retention is how long reads in the past are answered, for collections that
	// do not say so themselves. 0 = 1 hour, < 0 = not at all.
	Retention time.Duration
	// ReadSlack is how much longer than that rows are kept, for reads under way and
	// clocks that differ. 0 = 1 minute, < 0 = none.
	ReadSlack time.Duration
	// Interval is how often the catalog is looked at without being asked. 0 = 10 s,
	// < 0 = never: only when asked.
	Interval time.Duration
	// StepTimeout bounds the transfer of one file and each call of the catalog. 0 = 2 minutes.
	StepTimeout time.Duration
	// Workers build an index. 0 = 1: a compaction can wait, searches cannot.
	Workers int
	// OnCompacted is called when the catalog has changed. Nil = ignored.
	OnCompacted func(Done)
	// Now is the clock. Nil = time.Now.
	Now func() time.Time
	// Logger gets what an operator should see. Nil = discard.
	Logger *slog.Logger
}

// Channel is a channel that may be compacted.
type Channel struct {
	*segments.Channel
	Term uint64 // of the log, which this node owns
}

// Done tells of a job that has changed the catalog.
type Done struct {
	CollectionID int64         `json:"collection_id"`
	VChannel     string        `json:"vchannel"`
	PartitionID  int64         `json:"partition_id"`
	Why          string        `json:"why"`
	Inputs       []int64       `json:"inputs"`
	Output       int64         `json:"output"` // 0 = no row was left
	RowsIn       int64         `json:"rows_in"`
	RowsOut      int64         `json:"rows_out"`
	BytesIn      int64         `json:"bytes_in"`
	BytesOut     int64         `json:"bytes_out"`
	Took         time.Duration `json:"took_nanos"`
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.Retention = cmp.Or(o.Retention, time.Hour)
	o.ReadSlack = cmp.Or(o.ReadSlack, time.Minute)
	o.Interval = cmp.Or(o.Interval, 10*time.Second)
	o.StepTimeout = cmp.Or(o.StepTimeout, 2*time.Minute)
	o.Retention, o.ReadSlack = max(0, o.Retention), max(0, o.ReadSlack)
	o.Policy.EnsureDefaults()
	o.Workers = cmp.Or(o.Workers, 1)
	if o.OnCompacted == nil {
		o.OnCompacted = func(Done) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	need := func(ok bool, name string) {
		if !ok {
			errs = append(errs, errors.Newf("compact: %s is required", name))
		}
	}
	need(o.Catalog != nil, "Catalog")
	need(o.Bucket != nil, "Bucket")
	need(o.Dir != "", "Dir")
	need(o.Channels != nil, "Channels")
	if o.StepTimeout < 0 || o.Workers < 0 {
		errs = append(errs, errors.Newf("compact: StepTimeout is %v, Workers %d: want 0 (default) or more", o.StepTimeout, o.Workers))
	}
	errs = append(errs, o.Policy.problems()...)
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

func (o *Options) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, o.StepTimeout)
}
