package segments

import (
	"cmp"
	"log/slog"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/pool"
)

// Options configure a Set.
type Options struct {
	// Dir is where segment files are kept while they are loaded; the Set owns
	// it, removes what an earlier run left in it, and removes it on Close. Required.
	Dir string
	// Pool runs searches; one task per segment. Required. The caller closes it after the Set.
	Pool *pool.Pool
	// Ledger accounts memory. Nil = one without a limit.
	Ledger *Ledger
	// Bucket is where sealed segments come from. Required for Load.
	Bucket objstore.Bucket
	// GrowingRows is the number of rows that a growing segment reserves address
	// space for. 0 = 1,000,000. More rows than that cost a copy.
	GrowingRows int
	// LoadConcurrency is how many segments are loaded at once. 0 = 2.
	LoadConcurrency int
	// LoadTimeout bounds the load of one segment, the wait for its turn not
	// counted. 0 = 10 minutes.
	LoadTimeout time.Duration
	// DiskBytes is what sealed segments may take on the local disk. Beyond it vectors
	// and indexes that were used the longest time ago leave, and are fetched again when
	// a read needs them. 0 = no limit.
	DiskBytes int64
	// QueueApart says that the queue that RoomInQueue and ObserveQueue are about is on a volume
	// of its own: DiskBytes does not bound it. False = it is where the segments are.
	QueueApart bool
	// QueueBytes is what it may take on that volume. 0 = no limit; without QueueApart it says nothing.
	QueueBytes int64
	// DeleteBytes is how many bytes of deletes a channel keeps in memory; see Channel.MaxDeletes. 0 = 64 MiB.
	DeleteBytes int64
	// FetchConcurrency is how many vector fields are fetched at once for reads and in the
	// background; loads are not counted. 0 = 4.
	FetchConcurrency int
	// Warmup says when vectors and indexes of a segment come to the local disk, unless
	// its collection or its load says so. "" = WarmupSync.
	Warmup Warmup
	// QuarantineAfter is the panic, faults in mapped memory included, that puts a
	// segment into quarantine. 0 = the third. Bytes that are proven wrong (class
	// Corrupt) and a delete that could not be applied do so at once.
	QuarantineAfter int
	// Logger gets what an operator should see. Nil = discard.
	Logger *slog.Logger
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.Ledger = cmp.Or(o.Ledger, NewLedger(0))
	o.GrowingRows = cmp.Or(o.GrowingRows, 1_000_000)
	o.LoadConcurrency = cmp.Or(o.LoadConcurrency, 2)
	o.LoadTimeout = cmp.Or(o.LoadTimeout, 10*time.Minute)
	o.DeleteBytes = cmp.Or(o.DeleteBytes, 64<<20)
	o.FetchConcurrency = cmp.Or(o.FetchConcurrency, 4)
	o.Warmup = cmp.Or(o.Warmup, WarmupSync)
	o.QuarantineAfter = cmp.Or(o.QuarantineAfter, 3)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	if o.Dir == "" {
		errs = append(errs, errors.New("segments: Dir is required"))
	}
	if o.Pool == nil {
		errs = append(errs, errors.New("segments: Pool is required"))
	}
	for _, v := range []struct {
		name string
		n    int64
	}{{"GrowingRows", int64(o.GrowingRows)}, {"LoadConcurrency", int64(o.LoadConcurrency)},
		{"LoadTimeout", int64(o.LoadTimeout)}, {"DiskBytes", o.DiskBytes}, {"QueueBytes", o.QueueBytes}, {"DeleteBytes", o.DeleteBytes},
		{"FetchConcurrency", int64(o.FetchConcurrency)}, {"QuarantineAfter", int64(o.QuarantineAfter)}} {
		if v.n < 0 {
			errs = append(errs, errors.Newf("segments: %s is %d, want 0 (default) or more", v.name, v.n))
		}
	}
	if _, err := ParseWarmup(string(o.Warmup)); err != nil {
		errs = append(errs, errors.Wrap(err, "segments: Warmup"))
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}
