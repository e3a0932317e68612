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
	Enough        uint64                       // Guarantee is never after it, so a channel that has applied it is not asked about; 0 = unknown
	ReadTimestamp uint64                       // read as of then; 0 = as of what has been applied
	Channels      []string                     // vchannels that must be watched for an answer; nil = whichever are
	// Ready is called once the channels have applied what is guaranteed and before
	// the snapshot is taken, again if the channels change meanwhile: it may wait for
	// segments that the answer needs. Its error ends the read. Nil = nothing to wait for.
	Ready func(ctx context.Context) error
	// MaxBytes is how much the values of a search's answer may have in all: it is refused
	// as Invalid as soon as it is sure to have more. 0 = unbounded.
	MaxBytes int64
	OneTime  bool // read all channels at the same timestamp, so that another read can repeat it
	Explain  bool // ReadStats tells what was done in each segment
}

// ReadStats says what an answer is made from.
type ReadStats struct {
	Sealed, Growing []int64 // segments that answered
	Channels        []string
	Failures        []Failure
	SearchedShare   float64       // of the rows, 0 to 1
	Pruned          int           // segments that could not have a match
	Wait            time.Duration // for the guarantee timestamp
	Search          time.Duration // summed over segments

	// Only with Read.Explain.
	Segments []SegmentTrace // in order of their ids
	Wall     time.Duration  // from the snapshot to the last segment's answer
	Merge    time.Duration  // of the segments' answers
	Output   time.Duration  // copying output fields
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
	ts   uint64
	dead bool // it failed: what it found does not count
}

// channelTime is a channel of a read and the timestamp at which it is read.
type channelTime struct {
	ch *Channel
	ts uint64
}

// reader is one read: the snapshot it holds and the segments it goes to.
type reader struct {
	coll     *Collection
	info     CollectionInfo
	read     *Read
	match    *match // nil = every row
	snap     *Snapshot
	channels []channelTime
	targets  []target
	stats    ReadStats
	at       uint64 // smallest timestamp over the channels
	opened   int64  // nanoseconds since 1970
	rows     int64  // in all targets
	missed   int64  // in those that failed
	nanos    atomic.Int64
	memory   *Reservation  // results on their way
	room     answerSize    // of a search's answer
	held     []int64       // fields whose files are claimed in all targets
	one      [1]int64      // memory of held
	claims   []*fieldFiles // further files that are claimed
	trace    *trace        // nil = nobody asked
	sub      int           // which search of a hybrid one
	left     bool          // tasks still run: they let go of the snapshot
	stop     atomic.Bool   // the indexes poll it: a read past its deadline is cut

	own      Reservation // what memory is, but of a read that is a part of another
	snapshot Snapshot    // the same of snap
	few      struct {    // memory of what is usually short
		listed   [2]*Channel
		channels [2]channelTime
		targets  [4]target
	}
}

// open waits until the channels have applied what is guaranteed, then takes a
// snapshot. The caller closes the reader.
func (c *Collection) open(ctx context.Context, r *Read) (*reader, error) {
	x := new(reader)
	if err := x.open(ctx, c, r); err != nil {
		return nil, err
	}
	return x, nil
}

// open is Collection.open for a reader that is there.
func (x *reader) open(ctx context.Context, c *Collection, r *Read) error {
	start := time.Now()
	*x = reader{coll: c, info: c.Info(), read: r, at: Latest, opened: start.UnixNano(), own: Reservation{ledger: c.set.o.Ledger, kind: KindScratch}}
	x.memory = &x.own
	x.match = newMatch(r.Plan, x.info.Schema)
	x.held = x.one[:0]
	if r.Explain {
		x.trace = newTrace()
	}
	for x.snap == nil {
		if err := x.wait(ctx); err != nil {
			return err
		}
		if r.Ready != nil {
			if err := r.Ready(ctx); err != nil {
				return err
			}
		}
		if c.acquire(x.channels, &x.snapshot) {
			x.snap = &x.snapshot
		}
	}
	if err := x.hasOutput(); err != nil {
		x.close()
		return err
	}
	x.stats.Wait = time.Since(start)
	x.stats.Channels = make([]string, 0, len(x.channels))
	for _, t := range x.channels {
		x.stats.Channels = append(x.stats.Channels, t.ch.name)
		x.at = min(x.at, t.ts)
	}
	x.targets = x.few.targets[:0]
	for _, h := range x.snap.view.segments {
		x.consider(h)
	}
	if err := x.partial(); err != nil {
		x.close()
		return err
	}
	return nil
}

// wait finds out the timestamp at which each channel is read. One that is watched
// anew meanwhile is waited for again.
func (x *reader) wait(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return errclass.Wrap(err, errclass.Retryable, "read")
		}
		if _, err := x.coll.settled(ctx); err != nil {
			return err
		}
		closed, err := x.times(ctx)
		if err == nil {
			return nil
		}
		waited, serr := x.coll.settled(ctx)
		if serr != nil {
			return serr
		}
		if closed != nil {
			again, ok := x.coll.Channel(closed.name)
			waited = ok && again != closed
		}
		if !waited {
			return err
		}
	}
}

// times asks every channel, and returns the one that failed, if one did.
func (x *reader) times(ctx context.Context) (failed *Channel, err error) {
	channels := x.coll.appendChannels(x.few.listed[:0])
	if len(channels) == 0 {
		return nil, errclass.With(errclass.New(errclass.Conflict, "collection %q is not loaded on this node: call LoadSegments", x.info.Name), errclass.NotLoaded)
	}
	for _, name := range x.read.Channels {
		if !slices.ContainsFunc(channels, func(ch *Channel) bool { return ch.name == name }) {
			return nil, errclass.New(errclass.Retryable, "channel %s of collection %q is not watched on this node now: its rows would be missing", name, x.info.Name)
		}
	}
	most := uint64(0)
	x.channels = x.few.channels[:0]
	for _, ch := range channels {
		want := x.read.ReadTimestamp
		now, enough := x.enough(ch)
		if !enough {
			if want == 0 && x.read.Guarantee != nil {
				want = x.read.Guarantee(ch.name)
			}
			var err error
			if now, err = ch.WaitTsafe(ctx, want); err != nil {
				return ch, errors.Wrapf(err, "channel %s", ch.name)
			}
		}
		if x.read.ReadTimestamp != 0 {
			now = x.read.ReadTimestamp
		}
		most = max(most, want)
		x.channels = append(x.channels, channelTime{ch, now})
	}
	if x.read.OneTime && x.read.ReadTimestamp == 0 {
		return x.align(ctx, most)
	}
	return nil, nil
}

// enough reports whether a channel has applied all that can be guaranteed, and up to where
// it has. Reads of all channels at one time want to know what is guaranteed all the same.
func (x *reader) enough(ch *Channel) (now uint64, ok bool) {
	if x.read.Enough == 0 || x.read.OneTime || x.read.ReadTimestamp != 0 {
		return 0, false
	}
	now = ch.Tsafe()
	return now, now >= x.read.Enough
}

// align moves all channels to one timestamp that none of them has still to reach
// and that none of the guarantees, the largest being most, is after.
func (x *reader) align(ctx context.Context, most uint64) (failed *Channel, err error) {
	at := Latest
	for _, t := range x.channels {
		at = min(at, t.ts)
	}
	if at < most {
		at = most
		for _, t := range x.channels {
			if _, err := t.ch.WaitTsafe(ctx, at); err != nil {
				return t.ch, errors.Wrapf(err, "channel %s", t.ch.name)
			}
		}
	}
	for i := range x.channels {
		x.channels[i].ts = at
	}
	return nil, nil
}

// acquire takes a snapshot if these are still the channels of the collection: the
// growing segments of a channel leave with it, and a read that has waited for it must
// not take them for empty.
func (c *Collection) acquire(channels []channelTime, s *Snapshot) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(channels) != len(c.mu.channels) || c.mu.anew != nil {
		return false
	}
	for _, t := range channels {
		if c.mu.channels[t.ch.name] != t.ch {
			return false
		}
	}
	c.acquireLocked(s)
	return true
}

// consider adds the segment to the targets unless the read does not need it.
func (x *reader) consider(h *holder) {
	m := h.Meta()
	if h.growing && x.read.IgnoreGrowing {
		return
	}
	if len(x.read.Partitions) > 0 && !slices.Contains(x.read.Partitions, m.PartitionID) {
		x.prune(h, 0, "partition")
		return
	}
	i := slices.IndexFunc(x.channels, func(t channelTime) bool { return t.ch.name == m.VChannel })
	if i < 0 {
		// Sealed segments stay when their channel is unwatched.
		rows := int64(h.visible(Latest))
		x.rows += rows
		x.fail(h, rows, errclass.New(errclass.Conflict, "segment %d: its channel %s is not watched", m.ID, m.VChannel))
		return
	}
	ts := x.channels[i].ts
	rows := int64(h.visible(ts))
	x.rows += rows
	why, out := h.quarantined(), ""
	if x.match != nil && rows > 0 && why == "" {
		out = h.rulesOut(x.match)
	}
	switch {
	case rows == 0:
		x.prune(h, rows, "no rows yet")
	case rows == int64(h.visible(x.expired(ts))):
		x.prune(h, rows, "all rows expired")
	case why != "":
		x.fail(h, rows, errclass.New(errclass.Corrupt, "segment %d is quarantined: %s", m.ID, why))
	case out != "":
		x.prune(h, rows, out)
	default:
		h.used.Store(x.opened)
		x.targets = append(x.targets, target{holder: h, ts: ts})
	}
}

// prune says that the segment need not be read, and why.
func (x *reader) prune(h *holder, rows int64, why string) {
	x.stats.Pruned++
	if x.trace != nil {
		x.trace.pruned(h, x.sub, rows, why)
	}
}

func (x *reader) fail(h *holder, rows int64, err error) {
	if x.trace != nil {
		x.trace.pruned(h, x.sub, rows, "failed")
	}
	x.missed += rows
	x.stats.Failures = append(x.stats.Failures, Failure{SegmentID: h.Meta().ID, VChannel: h.Meta().VChannel, Err: err})
}

// partial returns the first failure unless the read allows a partial answer.
func (x *reader) partial() error {
	if len(x.stats.Failures) == 0 || x.read.AllowPartial {
		return nil
	}
	return x.stats.Failures[0].Err
}

// allowed returns the rows of t that the read may see, nil = all of the first n.
func (x *reader) allowed(ctx context.Context, t *target, set *bitset.Set) (n int, rows *bitset.Set, err error) {
	n = t.visible(t.ts)
	hidden := t.hidden()
	old := t.visible(x.expired(t.ts))
	if x.match == nil && !hidden.any(t.ts) && old == 0 {
		return n, nil, nil
	}
	if x.match != nil {
		known, err := t.filter(ctx, x.match, n, set)
		if err != nil {
			return 0, nil, err
		}
		if !known {
			x.coll.set.wish(t.holder, x.match, n)
		}
	} else {
		set.Reset(n)
		set.Fill()
	}
	hidden.hide(set, t.ts)
	dropFirst(set, old)
	return n, set, nil
}

// freeBytes is what a read may take even when the ledger is full: a node that has
// no room for more rows still answers for those it has.
const freeBytes = 1 << 20

// takes accounts n more bytes of results on their way.
func (x *reader) takes(n int64) error { return x.memory.growBeyond(n, freeBytes) }

// run executes the tasks on the pool and waits; failed is called for each that
// failed, and says what that means. If ctx ends first, the reader is left to the
// tasks that still run.
func (x *reader) run(ctx context.Context, tasks []pool.Task, failed func(task int, err error)) error {
	if len(tasks) == 0 {
		return nil
	}
	batch, err := x.coll.set.o.Pool.SubmitAll(ctx, tasks...)
	if err != nil {
		return err
	}
	if err := batch.Wait(ctx); err != nil {
		x.stop.Store(true)
		x.leave(batch)
		return err
	}
	for i := range batch.Len() {
		err := batch.Err(i)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return errors.Wrap(ctx.Err(), "search")
		}
		failed(i, err)
	}
	return x.partial()
}

// eachTarget runs fn as a task for each target that is alive, and takes those out
// of the answer for which it fails.
func (x *reader) eachTarget(ctx context.Context, fn func(ctx context.Context, i int, t *target) error) error {
	return x.eachOf(ctx, nil, fn)
}

// eachOf is eachTarget without the targets of skip; nil = with all.
func (x *reader) eachOf(ctx context.Context, skip []bool, fn func(ctx context.Context, i int, t *target) error) error {
	tasks := make([]pool.Task, 0, len(x.targets))
	of := make([]int, 0, len(x.targets))
	for i := range x.targets {
		t := &x.targets[i]
		if t.dead || skip != nil && skip[i] {
			continue
		}
		of = append(of, i)
		tasks = append(tasks, pool.Task{Name: t.task, Cost: 1 + int64(t.visible(t.ts))/8, Run: func(ctx context.Context) error {
			start := time.Now()
			defer func() { x.nanos.Add(int64(time.Since(start))) }()
			return fn(ctx, i, t)
		}})
	}
	return x.run(ctx, tasks, func(task int, err error) { x.kill(of[task], err) })
}

// kill takes a target that failed out of the answer.
func (x *reader) kill(i int, err error) {
	t := &x.targets[i]
	x.coll.set.fault(t.holder, err)
	if !t.dead {
		t.dead = true
		x.fail(t.holder, int64(t.visible(t.ts)), errors.Wrapf(err, "segment %d", t.Meta().ID))
	}
}

// finish completes the stats.
func (x *reader) finish() ReadStats {
	st := &x.stats
	st.Search = time.Duration(x.nanos.Load())
	st.SearchedShare = 1
	if x.rows > 0 {
		st.SearchedShare = 1 - float64(x.missed)/float64(x.rows)
	}
	for i := range x.targets {
		switch t := &x.targets[i]; {
		case t.dead:
		case t.growing:
			st.Growing = append(st.Growing, t.Meta().ID)
		default:
			st.Sealed = append(st.Sealed, t.Meta().ID)
		}
	}
	if x.trace != nil {
		x.trace.finish(x)
	}
	return *st
}

// close lets go of the segments, unless tasks still use them.
func (x *reader) close() {
	if !x.left {
		x.letGo()
	}
}

func (x *reader) letGo() {
	x.unhold()
	x.snap.Release()
	x.memory.Release()
}

// leave keeps what the read holds until the last of its tasks has ended.
func (x *reader) leave(b *pool.Batch) {
	x.left = true
	err := x.coll.set.late.Go("release snapshot of an abandoned read", func(context.Context) error {
		<-b.Done() // the pool answers every task, at the latest when it is closed
		x.letGo()
		return nil
	})
	if err != nil {
		// Set.Close has given up waiting for this very read, and said so. Its tasks
		// may still run, so their segments are left to the process' end.
		x.coll.set.o.Logger.Warn("segments: snapshot of an abandoned read not released", "error", err)
	}
}
