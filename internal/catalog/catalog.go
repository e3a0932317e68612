package catalog

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Options configures a Catalog.
type Options struct {
	// Bucket holds the manifests and the segments they name. Required. The catalog
	// uses it and does not close it.
	Bucket objstore.Bucket
	// Prefix of all keys of the catalog. "" = "catalog".
	Prefix string
	// CallTimeout bounds each call as a whole, retries included; of Sweep and the
	// lists, each step. 0 = 30 s.
	CallTimeout time.Duration
	// MaxTries is how often a change is tried while others are faster or the
	// storage fails. 0 = 50.
	MaxTries int
	// IDBlock is how many ids are taken from the bucket at once; those not handed
	// out are lost when the process ends. 0 = 1000.
	IDBlock int
	// SweepAge is how old something must be before Sweep takes it for left behind.
	// At least 10 times CallTimeout. 0 = that, or 15 minutes if longer.
	SweepAge time.Duration
	// DropGrace is how long the files of a dropped collection stay for those that
	// still read them. 0 = 15 minutes.
	DropGrace time.Duration
	// FileGrace is how old files must be that no manifest names before Sweep
	// condemns them, and how long they stay after that for those that read the
	// manifest before. At least twice CallTimeout. 0 = that, or 1 hour if longer.
	FileGrace time.Duration
	// Logger; nil = silent.
	Logger *slog.Logger
}

// EnsureDefaults replaces zero values by the defaults.
func (o *Options) EnsureDefaults() {
	o.Prefix = cmp.Or(o.Prefix, "catalog")
	o.CallTimeout = cmp.Or(o.CallTimeout, 30*time.Second)
	o.MaxTries = cmp.Or(o.MaxTries, 50)
	o.IDBlock = cmp.Or(o.IDBlock, 1000)
	o.SweepAge = cmp.Or(o.SweepAge, max(15*time.Minute, 10*o.CallTimeout))
	o.DropGrace = cmp.Or(o.DropGrace, 15*time.Minute)
	o.FileGrace = cmp.Or(o.FileGrace, max(time.Hour, 2*o.CallTimeout))
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports all problems in one error of class Invalid.
func (o *Options) Validate() error {
	var p problems
	p.check(o.Bucket != nil, "catalog: a bucket is required")
	p.check(objstore.CheckKey(o.Prefix) == nil && len(o.Prefix) <= 200, "catalog: prefix %q, want an object key of at most 200 bytes", o.Prefix)
	p.check(o.CallTimeout > 0, "catalog: call timeout %v, want > 0", o.CallTimeout)
	p.check(o.MaxTries > 0, "catalog: %d tries, want > 0", o.MaxTries)
	p.check(o.IDBlock > 0 && o.IDBlock <= MaxIDs, "catalog: id block %d, want 1 to %d", o.IDBlock, MaxIDs)
	p.check(o.SweepAge >= 10*o.CallTimeout, "catalog: sweep age %v, want at least 10 times the call timeout of %v", o.SweepAge, o.CallTimeout)
	p.check(o.FileGrace >= 2*o.CallTimeout, "catalog: file grace %v, want at least twice the call timeout of %v", o.FileGrace, o.CallTimeout)
	p.check(o.DropGrace >= 0, "catalog: drop grace %v, want >= 0", o.DropGrace)
	return p.join(errclass.Invalid)
}

// Catalog is the view of one process on a catalog. It is safe for concurrent
// use, holds nothing but a block of ids and manifests that it has read, and runs
// nothing in the background: there is no Close.
type Catalog struct {
	o         Options
	conflicts atomic.Int64
	retries   atomic.Int64
	kept      kept

	refill chan struct{} // one slot: who holds it fetches ids
	mu     struct {
		sync.Mutex
		next, end int64 // ids [next, end) are ours
	}
}

// Stats counts since Open.
type Stats struct {
	Conflicts int64 // changes tried again because another process was faster
	Retries   int64 // calls tried again because the storage failed
}

// Open returns a catalog over the bucket; an empty bucket is an empty catalog.
// It reads once, so that storage that is absent, closed to us or of a newer
// format is an error here and not at the first request.
func Open(ctx context.Context, o Options) (*Catalog, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Catalog{o: o, refill: make(chan struct{}, 1)}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if _, _, err := load[idCounter](ctx, c, c.idsKey(), maxSmallManifest); err != nil && !errclass.Is(err, errclass.NotFound) {
		return nil, errors.Wrap(err, "open catalog")
	}
	return c, nil
}

// Stats returns the counters.
func (c *Catalog) Stats() Stats {
	return Stats{Conflicts: c.conflicts.Load(), Retries: c.retries.Load()}
}

// errTimeout is the cause of a context that CallTimeout ended.
var errTimeout = errclass.Mark(errors.Wrap(context.DeadlineExceeded, "the catalog's storage did not answer in time"), errclass.Retryable)

func (c *Catalog) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.o.CallTimeout, errTimeout)
}

func (c *Catalog) idsKey() string { return c.o.Prefix + "/ids.json" }

// clockKey is written to learn the storage's time.
func (c *Catalog) clockKey() string { return c.o.Prefix + "/clock" }

func (c *Catalog) collectionKey(id int64) string {
	return fmt.Sprintf("%s/collections/%d.json", c.o.Prefix, id)
}

func (c *Catalog) channelKey(vchannel string) string {
	return c.o.Prefix + "/channels/" + vchannel + ".json"
}

func (c *Catalog) pchannelKey(pchannel string) string {
	return c.o.Prefix + "/pchannels/" + pchannel + ".json"
}

// list returns what is under a folder of the catalog, page by page so that
// nothing but a page is bounded by the deadline.
func (c *Catalog) list(ctx context.Context, folder string) ([]objstore.Info, error) {
	prefix := c.o.Prefix + "/" + folder
	var all []objstore.Info
	for {
		n := len(all)
		last := ""
		if n > 0 {
			last = all[n-1].Key
		}
		err := func() error {
			ctx, cancel := c.deadline(ctx)
			defer cancel()
			return c.o.Bucket.List(ctx, prefix, last, func(i objstore.Info) error {
				if len(all) == n+listPage {
					return errPageFull
				}
				if strings.HasSuffix(i.Key, ".json") {
					all = append(all, i)
				}
				return nil
			})
		}()
		switch {
		case err == nil:
			return all, nil
		case !errors.Is(err, errPageFull):
			return nil, errors.Wrapf(err, "list %s", prefix)
		}
	}
}

const listPage = 5000

var errPageFull = errors.New("catalog: the page is full")
