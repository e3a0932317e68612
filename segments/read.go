package segments

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/pool"
)

// Latest as a read timestamp means now.
const Latest = ^uint64(0)

// Read is what searches and queries have in common.
type Read struct {
	Partitions    []int64                      // empty = all
	Plan          *expr.Plan                   // nil = all rows
	OutputFields  []int64                      // fields to return
	IgnoreGrowing bool                         // leave growing segments out
	AllowPartial  bool                         // an answer without failed segments is better than none
	Guarantee     func(vchannel string) uint64 // timestamp that must have been applied; nil = whatever there is
	ReadTimestamp uint64                       // read as of then; 0 = as of what has been applied
}

// ReadStats says what an answer is made from.
type ReadStats struct {
	Sealed, Growing []int64
	Channels        []string
	Failures        []Failure
	SearchedShare   float64 // of the rows, 0 to 1
	Pruned          int
	Wait            time.Duration // for the guarantee timestamp
	Search          time.Duration // summed over segments
}

// Failure is a segment that could not answer.
type Failure struct {
	SegmentID int64
	VChannel  string
	Err       error
}

// target is one segment of a read, with the timestamp it is read at.
type target struct {
	*holder
	ts uint64
}

// reader is one read: the snapshot it holds and the segments it goes to.
type reader struct {
	coll    *Collection
	snap    *Snapshot
	read    *Read
	targets []target
	stats   ReadStats
	at      uint64 // smallest timestamp over the channels
	rows    int64  // in all targets
	missed  int64  // in those that failed
	nanos   atomic.Int64
}

// open waits until the channels have applied what is guaranteed, then takes a
// snapshot. The caller releases it.
func (c *Collection) open(ctx context.Context, r *Read) (*reader, error) {
	start := time.Now()
	times, err := c.readTimes(ctx, r)
	if err != nil {
		return nil, err
	}
	x := &reader{coll: c, read: r, at: Latest}
	x.stats.Wait = time.Since(start)
	for name, ts := range times {
		x.stats.Channels = append(x.stats.Channels, name)
		x.at = min(x.at, ts)
	}
	slices.Sort(x.stats.Channels)
	x.snap = c.Acquire()
	for _, h := range x.snap.view.segments {
		x.consider(h, times)
	}
	return x, x.partial()
}

// readTimes returns the timestamp at which each channel is read.
func (c *Collection) readTimes(ctx context.Context, r *Read) (map[string]uint64, error) {
	channels := c.Channels()
	if len(channels) == 0 {
		return nil, errclass.New(errclass.Conflict, "collection %q is not loaded on this node: call LoadSegments", c.Info().Name)
	}
	times := make(map[string]uint64, len(channels))
	for _, ch := range channels {
		want := r.ReadTimestamp
		if want == 0 && r.Guarantee != nil {
			want = r.Guarantee(ch.name)
		}
		now, err := ch.WaitTsafe(ctx, want)
		if err != nil {
			return nil, errors.Wrapf(err, "channel %s", ch.name)
		}
		if r.ReadTimestamp != 0 {
			now = r.ReadTimestamp
		}
		times[ch.name] = now
	}
	return times, nil
}

// consider adds the segment to the targets unless the read does not need it.
func (x *reader) consider(h *holder, times map[string]uint64) {
	m := h.Meta()
	if h.growing && x.read.IgnoreGrowing {
		return
	}
	if len(x.read.Partitions) > 0 && !slices.Contains(x.read.Partitions, m.PartitionID) {
		x.stats.Pruned++
		return
	}
	ts, watched := times[m.VChannel]
	rows := int64(h.visible(ts))
	x.rows += rows
	switch why := h.quarantined(); {
	case why != "":
		x.fail(h, rows, errclass.New(errclass.Corrupt, "segment %d is quarantined: %s", m.ID, why))
	case !watched:
		x.fail(h, rows, errclass.New(errclass.Conflict, "segment %d: its channel %s is not watched", m.ID, m.VChannel))
	case rows == 0 || x.prunes(h):
		x.stats.Pruned++
	default:
		x.targets = append(x.targets, target{h, ts})
		if h.growing {
			x.stats.Growing = append(x.stats.Growing, m.ID)
		} else {
			x.stats.Sealed = append(x.stats.Sealed, m.ID)
		}
	}
}

// prunes reports whether statistics rule out that the filter matches a row.
func (x *reader) prunes(h *holder) bool {
	s, sealed := h.segment.(*Sealed)
	return sealed && x.read.Plan != nil && !x.read.Plan.All() && !x.read.Plan.MayMatch(s.stats)
}

func (x *reader) fail(h *holder, rows int64, err error) {
	x.missed += rows
	x.stats.Failures = append(x.stats.Failures, Failure{SegmentID: h.Meta().ID, VChannel: h.Meta().VChannel, Err: err})
}

// partial returns the first failure unless the read allows a partial answer.
func (x *reader) partial() error {
	x.stats.SearchedShare = 1
	if x.rows > 0 {
		x.stats.SearchedShare = 1 - float64(x.missed)/float64(x.rows)
	}
	if len(x.stats.Failures) == 0 || x.read.AllowPartial {
		return nil
	}
	x.snap.Release()
	return x.stats.Failures[0].Err
}

// allowed returns the rows of t that the read may see, nil = all of the first n.
func (x *reader) allowed(t target, set *bitset.Set) (n int, rows *bitset.Set, err error) {
	n = t.visible(t.ts)
	hidden := t.hidden()
	filtered := x.read.Plan != nil && !x.read.Plan.All()
	if !filtered && !hidden.any(t.ts) {
		return n, nil, nil
	}
	if filtered {
		if err := t.filter(x.read.Plan, n, set); err != nil {
			return 0, nil, err
		}
	} else {
		set.Reset(n)
		set.Fill()
	}
	hidden.hide(set, t.ts)
	return n, set, nil
}

// run executes the tasks, one group per target, on the pool and waits. Targets
// whose task failed are returned as dead. If ctx ends first the snapshot is
// released by whoever finishes last, and the error says so.
func (x *reader) run(ctx context.Context, tasks []pool.Task, of []int) (dead map[int]bool, err error) {
	batch, err := x.coll.set.o.Pool.SubmitAll(ctx, tasks...)
	if err != nil {
		x.snap.Release()
		return nil, err
	}
	if err := batch.Wait(ctx); err != nil {
		x.releaseAfter(batch)
		return nil, err
	}
	for i, err := range batch.Errs() {
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			x.snap.Release()
			return nil, errors.Wrap(ctx.Err(), "search")
		}
		t := x.targets[of[i]]
		x.coll.set.fault(t.holder, err)
		if dead == nil {
			dead = map[int]bool{}
		}
		if !dead[of[i]] {
			dead[of[i]] = true
			x.fail(t.holder, int64(t.visible(t.ts)), errors.Wrapf(err, "segment %d", t.Meta().ID))
		}
	}
	return dead, x.partial()
}

// releaseAfter keeps the snapshot until the last task that may use it has ended.
func (x *reader) releaseAfter(b *pool.Batch) {
	err := x.coll.set.group.Go("release snapshot of an abandoned read", func(context.Context) error {
		<-b.Done() // the pool answers every task, at the latest when it is closed
		x.snap.Release()
		return nil
	})
	if err != nil {
		// The set is closing. The tasks have been cancelled; their segments must
		// outlive them, so this snapshot is left to the process' end.
		x.coll.set.o.Logger.Warn("segments: snapshot of an abandoned read not released", "error", err)
	}
}

// fault counts a panic or corrupt read of a segment, and quarantines it at the limit.
func (s *Set) fault(h *holder, err error) {
	c := errclass.Of(err)
	if c != errclass.Panicked && c != errclass.Corrupt {
		return
	}
	if h.faults.Add(1) < int64(s.o.QuarantineAfter) && c != errclass.Corrupt {
		return
	}
	why := err.Error()
	if h.poison.CompareAndSwap(nil, &why) {
		s.o.Logger.Error("segments: quarantined", "segment", h.Meta().ID, "error", err)
		s.changed()
	}
}

// output copies the fields of hits, given as runs of rows of targets.
func (x *reader) output(fields []int64, hits []hit) (cols columns, err error) {
	err = guard("copy output fields", func() error {
		cols, err = x.gather(fields, hits)
		return err
	})
	return cols, err
}
