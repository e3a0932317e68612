package flush

import (
	"context"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/wal"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// Flusher seals, builds, uploads and checkpoints for the logs this node owns.
// Open it with New; Close it before the logs and the segments it uses.
type Flusher struct {
	o        Options
	assigner *Assigner
	group    *lifecycle.Group
	kick     chan struct{} // capacity 1
	room     chan struct{} // a slot for each step that may be under way
	building chan struct{} // capacity 1: who has it builds a segment
	noRoom   bool          // the last build did not have room for all indexes; of who builds

	unindexed atomic.Int64 // fields of segments that were stored without their index

	mu struct {
		sync.Mutex
		ids     []int64              // reserved segment ids
		saved   map[string]saved     // by vchannel
		claimed map[string]claim     // by vchannel
		waiting map[*waiter]struct{} // who waits for a segment to be flushed
		failing map[string]*failure  // by vchannel, or what a trim is called
		retryAt map[string]time.Time
		steps   map[string]*step     // under way, by vchannel
		trims   map[string]*trimming // by pchannel

		unstored map[string]*unstored // by vchannel
	}
}

// saved is the checkpoint of a channel as the catalog has it.
type saved struct {
	timestamp uint64
	at        time.Time
}

// claim is what is known of a channel under one term of its log.
type claim struct {
	term uint64
	// end is the timestamp up to which earlier runs may have written: before it
	// has been applied, a growing segment whose seal is still to come looks open.
	end uint64
}

// New returns a running Flusher.
func New(o Options) (*Flusher, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, errors.Wrapf(err, "create flush folder %s", o.Dir)
	}
	f := &Flusher{o: o, kick: make(chan struct{}, 1), room: make(chan struct{}, o.Parallel), building: make(chan struct{}, 1)}
	f.mu.saved = map[string]saved{}
	f.mu.claimed = map[string]claim{}
	f.mu.waiting = map[*waiter]struct{}{}
	f.mu.failing = map[string]*failure{}
	f.mu.retryAt = map[string]time.Time{}
	f.mu.steps = map[string]*step{}
	f.mu.trims = map[string]*trimming{}
	f.mu.unstored = map[string]*unstored{}
	f.assigner = newAssigner(f.nextID, func(rows int, bytes int64) bool { return rows >= o.SealRows || bytes >= o.SealBytes })
	f.group = lifecycle.NewGroup(context.Background(), nil)
	return f, f.group.Go("flush loop", f.loop)
}

// nextID gives out segment ids, reserved from the catalog in blocks.
func (f *Flusher) nextID(ctx context.Context) (int64, error) {
	const block = 16
	f.mu.Lock()
	if n := len(f.mu.ids); n > 0 {
		id := f.mu.ids[0]
		f.mu.ids = f.mu.ids[1:]
		f.mu.Unlock()
		return id, nil
	}
	f.mu.Unlock()
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	first, err := f.o.Catalog.AllocateIDs(ctx, block)
	if err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := int64(1); i < block; i++ {
		f.mu.ids = append(f.mu.ids, first+i)
	}
	return first, nil
}

// Assign returns the growing segment for a batch of rows that is to be appended
// to the log of a term; see Assigner.Assign.
func (f *Flusher) Assign(ctx context.Context, log Log, term uint64, partition int64, rows int, bytes int64) (int64, func(), error) {
	return f.assigner.Assign(ctx, log, term, partition, rows, bytes)
}

// Seal seals every growing segment of the channel in the log and returns their
// ids and the timestamp of the seal. Their rows are searchable throughout. The
// caller has waited until what was acknowledged before has been applied here.
func (f *Flusher) Seal(ctx context.Context, ch Channel) ([]int64, uint64, error) {
	w, err := f.o.WAL(ch.PChannel)
	if err != nil {
		return nil, 0, errors.Wrapf(err, "seal segments of %s", ch.Name())
	}
	if !f.assigner.Enter(ch.log(), w.Term()) {
		return nil, 0, errclass.New(errclass.Fenced, "term %d of the log of %s is over", w.Term(), ch.Name())
	}
	ids := f.assigner.Close(ch.Name(), time.Time{})
	// Segments that the assigner does not know yet: those of an earlier run.
	growing, release := ch.Growing()
	for _, g := range growing {
		m := g.Meta()
		if _, sealed := g.Sealed(); !sealed && !slices.Contains(ids, m.ID) && f.assigner.CloseOne(ch.Name(), m.PartitionID, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	release()
	at, err := f.seal(ctx, ch.log(), ids)
	if err != nil {
		return nil, 0, err
	}
	// Who asks does not wait for the end of a back-off.
	f.mu.Lock()
	delete(f.mu.retryAt, ch.Name())
	f.mu.Unlock()
	f.Kick()
	return ids, at, nil
}

// seal writes one seal for ids, after every append that was given one of them has returned.
func (f *Flusher) seal(ctx context.Context, log Log, ids []int64) (at uint64, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	for _, id := range ids {
		if err := f.assigner.Idle(ctx, id); err != nil {
			return 0, err
		}
	}
	w, err := f.o.WAL(log.PChannel)
	if err != nil {
		return 0, errors.Wrapf(err, "seal segments %v of %s", ids, log.VChannel)
	}
	body, err := proto.Marshal(&qnpb.WalSeal{CollectionId: log.CollectionID, SegmentIds: ids})
	if err != nil {
		return 0, errors.Wrap(err, "encode seal")
	}
	r, err := w.Append(ctx, wal.Entry{Type: wal.Seal, VChannel: log.VChannel, Body: body})
	if err != nil {
		return 0, errors.Wrapf(err, "seal segments %v of %s", ids, log.VChannel)
	}
	f.assigner.Sealed(log.VChannel, r.Timestamp, ids...)
	f.o.Logger.Info("flush: sealed", "vchannel", log.VChannel, "segments", ids)
	return r.Timestamp, nil
}

// Forget is called once a channel is not among Channels any more and before it is
// closed: it ends the step that is under way on it and waits for that, so that nothing
// is decided by a channel that has lost its rows. An error means that ctx ended
// first; then the channel must not be closed yet.
//
// Which segments are open stays known: appends go on.
func (f *Flusher) Forget(ctx context.Context, vchannel string) error {
	f.mu.Lock()
	delete(f.mu.saved, vchannel)
	delete(f.mu.claimed, vchannel)
	delete(f.mu.failing, vchannel)
	delete(f.mu.retryAt, vchannel)
	s := f.mu.steps[vchannel]
	f.mu.Unlock()
	if s == nil {
		return nil
	}
	s.cancel()
	select {
	case <-s.done:
		return f.Forget(ctx, vchannel) // of what it has noted
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for the step of the flush of %s", vchannel)
	}
}

// Drop forgets all about a vchannel whose collection is gone.
func (f *Flusher) Drop(vchannel string) {
	f.assigner.Forget(vchannel)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.failing, vchannel)
	delete(f.mu.retryAt, vchannel)
	delete(f.mu.unstored, vchannel)
}

// Unindexed is how many fields of segments have been stored without their index so far, since there was no room for it.
func (f *Flusher) Unindexed() int64 { return f.unindexed.Load() }

// Workers is Options.Workers.
func (f *Flusher) Workers() int { return f.o.Workers }

// SealAge is Options.SealAge.
func (f *Flusher) SealAge() time.Duration { return f.o.SealAge }

// Kick makes the loop look for work now.
func (f *Flusher) Kick() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// due seals what is full or old, flushes what is sealed, and moves the checkpoint.
func (f *Flusher) due(ctx context.Context, ch Channel) error {
	w, err := f.o.WAL(ch.PChannel)
	if err != nil || w.State() != wal.Ready {
		ch.ToBuild(0)
		return nil // not the owner, or not yet: nothing is due here
	}
	ch.ToBuild(f.o.Workers)
	c, err := f.claim(ctx, ch, w)
	if err != nil {
		return err
	}
	if !f.assigner.Enter(ch.log(), c.term) {
		return nil // over; the next step is of the new term
	}
	// While what earlier runs wrote is still being replayed, the seal of a segment
	// may be yet to come. What is sealed already is stored all the same, and the
	// checkpoint follows: a recovery that is cut short goes on from there.
	var sealing error
	if at := ch.Tsafe(); at < c.end {
		_, _, sealing = f.sealUnread(ctx, ch.log())
	} else {
		f.assigner.Applied(ch.Name(), at)
		sealing = f.sealDue(ctx, ch)
	}
	if errclass.Is(sealing, errclass.Fenced) {
		return sealing
	}
	// Also if a seal cannot be written: storing what is sealed makes room, in memory and in a queue whose disk is full.
	flushed, err := f.flushSealed(ctx, ch, w)
	if err == nil {
		err = f.checkpoint(ctx, ch, w, flushed)
	}
	return errors.CombineErrors(err, sealing)
}

func (f *Flusher) sealDue(ctx context.Context, ch Channel) error {
	ids := f.assigner.Close(ch.Name(), time.Now().Add(-f.o.SealAge))
	growing, release := ch.Growing()
	// Once: while the last ones are being flushed, more seals would help nothing.
	tooMany := tooManyDeletes(ch) && !slices.ContainsFunc(growing, func(g *segments.Growing) bool {
		_, sealed := g.Sealed()
		return sealed && !ch.IsFlushed(g.Meta().ID)
	})
	for _, g := range growing {
		m := g.Meta()
		if _, sealed := g.Sealed(); sealed || slices.Contains(ids, m.ID) {
			continue
		}
		if (tooMany || f.o.Pressed(g.Bytes())) && f.assigner.CloseOne(ch.Name(), m.PartitionID, m.ID) {
			ids = append(ids, m.ID)
			continue
		}
		if !f.assigner.Adopt(ch.Name(), m.PartitionID, m.ID, g.Rows(), g.Bytes()) && f.assigner.CloseOne(ch.Name(), m.PartitionID, m.ID) {
			ids = append(ids, m.ID)
		}
	}
	release()
	_, err := f.seal(ctx, ch.log(), ids)
	return err
}

// sealUnread seals segments of this term whose rows are in the log and in no memory here.
// It must not wait until they are: who replays the log would have to hold the rows
// of all of them at once, as they can be stored only once their seal has been read.
func (f *Flusher) sealUnread(ctx context.Context, log Log) (ids []int64, at uint64, err error) {
	ids = f.assigner.Overdue(log.VChannel, time.Now().Add(-f.o.SealAge), f.o.MaxUnreadBytes)
	at, err = f.seal(ctx, log, ids)
	return ids, at, err
}

// unwatched does what is due on a log of which nobody here watches the vchannel.
func (f *Flusher) unwatched(ctx context.Context, log Log) error {
	w, err := f.o.WAL(log.PChannel)
	if err != nil {
		f.assigner.Forget(log.VChannel) // of an earlier term by the time it is owned again
		return nil
	}
	if w.State() != wal.Ready || !f.assigner.Enter(log, w.Term()) {
		return nil
	}
	sealed, at, err := f.sealUnread(ctx, log)
	if err == nil && len(sealed) > 0 {
		f.notStored(log, at, sealed...)
	}
	// There are no growing copies here, and who watches the vchannel later replays
	// these seals before anything is decided.
	f.assigner.Applied(log.VChannel, math.MaxUint64)
	return err
}

// tooManyDeletes reports whether the channel has more deletes that are not in object storage than it may.
func tooManyDeletes(ch Channel) bool { return ch.DeleteBytes() > ch.MaxDeletes() }

// Close ends the steps that are under way and waits for them until ctx ends; its error
// names the channels whose step has not ended. What is not flushed stays in the log.
func (f *Flusher) Close(ctx context.Context) error {
	err := f.group.Close(ctx)
	if err != nil {
		return errors.Wrap(err, "flush")
	}
	return errors.Wrap(os.RemoveAll(f.o.Dir), "remove flush folder")
}
