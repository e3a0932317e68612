package node

import (
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/segments"
)

// LoadCollection watches all channels of a collection and loads all its
// segments; those that are flushed later are loaded as they come.
func (n *Node) LoadCollection(ctx context.Context, collection string) ([]int64, error) {
	return n.LoadSegments(ctx, collection, nil)
}

// LoadSegments makes sealed segments of the catalog searchable, and follows
// their channels; no ids = all, and those to come. It returns the ids.
func (n *Node) LoadSegments(ctx context.Context, collection string, ids []int64) ([]int64, error) {
	return n.LoadSegmentsWarm(ctx, collection, ids, "")
}

// LoadSegmentsWarm is LoadSegments with a policy of when vectors and indexes of the
// segments that it loads come to the local disk; "" = as collection or node are
// configured, as it is for those that are loaded later.
func (n *Node) LoadSegmentsWarm(ctx context.Context, collection string, ids []int64, how segments.Warmup) ([]int64, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	s, leave, err := n.enter(ctx, coll, true)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := n.finishRelease(ctx, s); err != nil {
		return nil, err
	}
	if len(ids) == 0 {
		s.whole.Store(true)
		if err := n.watch(ctx, s, coll, nil); err != nil {
			return nil, err
		}
	}
	n.askAgain(s, ids...)
	n.ask(s, ids...)
	loaded, err := n.loadWarm(ctx, s, coll, ids, how)
	if err != nil {
		n.unask(s, ids...)
		return nil, err
	}
	for _, id := range ids {
		if !slices.Contains(loaded, id) {
			return nil, errclass.With(errclass.New(errclass.NotFound, "collection %q has no segment %d", coll.Name, id), errclass.Segment)
		}
	}
	return loaded, nil
}

// load loads what the catalog has of the collection and is not loaded yet, ids
// of it if any are given, and lets go of what a compaction has replaced. One
// segment that cannot be loaded does not keep the others from it. The caller has
// the turn.
func (n *Node) load(ctx context.Context, s *serving, coll *catalog.Collection, ids []int64) (loaded []int64, err error) {
	return n.loadWarm(ctx, s, coll, ids, "")
}

// loadWarm is load with a policy of warm-up. A channel whose subscription fails
// meanwhile begins anew before the loads go on: they may take long, and reads wait.
func (n *Node) loadWarm(ctx context.Context, s *serving, coll *catalog.Collection, ids []int64, how segments.Warmup) (loaded []int64, err error) {
	const most = 3 // then others have their turn first
	anew := false
	for tries := 0; ; tries++ {
		loaded, err = n.loadWatched(ctx, s, coll, ids, how)
		switch {
		case tries == most:
			return loaded, err
		case errors.Is(err, errChannelFailed):
		case err != nil && anew && ctx.Err() == nil:
			anew = false // a load that was under way was of the channel as it was before
			continue
		default:
			return loaded, err
		}
		anew = true
		if err := n.watch(ctx, s, coll, n.wantedOf(s)); err != nil {
			return loaded, err
		}
	}
}

// errChannelFailed ends loads, to be begun again.
var errChannelFailed = errclass.New(errclass.Retryable, "a channel has to begin anew first")

// failedLook is how often loads look whether a channel has failed.
const failedLook = 100 * time.Millisecond

// failed reports whether the subscription of a channel has ended for good, or lacks messages.
func (n *Node) failed(s *serving) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, w := range s.channels {
		if w.handle.State() == dispatcher.Failed || w.lost.Load() {
			return true
		}
	}
	return false
}

// begun are the loads of one call: those under way, and what was there already.
type begun struct {
	loaded  []int64
	unpin   []func()
	running int
	results chan loadResult
	over    chan struct{} // closed once nobody takes results any more
}

type loadResult struct {
	change
	err error
}

// end lets go of the deletes. Loads that go on all the same end by themselves.
func (b *begun) end() {
	for _, unpin := range b.unpin {
		unpin()
	}
	close(b.over)
}

// loadWatched is loadWarm for as long as no channel fails.
func (n *Node) loadWatched(ctx context.Context, s *serving, coll *catalog.Collection, ids []int64, how segments.Warmup) (loaded []int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &begun{results: make(chan loadResult), over: make(chan struct{})}
	defer b.end()
	for _, v := range coll.VChannels {
		list, c, unpin, err := n.wanted(ctx, s, coll, v, ids)
		if err != nil {
			return nil, err
		}
		b.unpin = append(b.unpin, unpin)
		list = slices.DeleteFunc(list, func(r wanted) bool {
			there := s.coll.Loaded(r.SegmentID)
			if there {
				n.arrived(s, r.SegmentID)
				b.loaded = append(b.loaded, r.SegmentID)
			}
			return there
		})
		for i := range list {
			list[i].Warmup = how
		}
		if err := n.beginChanges(ctx, s.coll, v.Name, changes(s.coll, c, v.Name, list), b); err != nil {
			return nil, err
		}
	}
	return n.gather(s, b)
}

// beginChanges makes the changes of one channel, each in a goroutine.
func (n *Node) beginChanges(ctx context.Context, coll *segments.Collection, vchannel string, list []change, b *begun) error {
	for _, x := range list {
		err := n.group.Go("load "+x.name(), func(context.Context) error {
			// A panic is an answer too: somebody waits for it with the turn in hand.
			res := loadResult{x, lifecycle.Call("load "+x.name(), func() error { return x.make(ctx, coll, vchannel) })}
			select {
			case b.results <- res:
			case <-b.over:
			}
			return nil
		})
		if err != nil {
			return err
		}
		b.running++
	}
	return nil
}

// gather waits for all that has begun, or until a channel fails. It does not leave when
// the caller's time is over: changes return then, and one that is about to publish needs
// the deletes that are pinned, and the turn.
func (n *Node) gather(s *serving, b *begun) (loaded []int64, err error) {
	var errs []error
	look := time.NewTicker(failedLook)
	defer look.Stop()
	for left := b.running; left > 0; {
		select {
		case r := <-b.results:
			left--
			b.loaded = append(b.loaded, n.noteLoads(s, &r)...)
			if r.err != nil {
				errs = append(errs, r.err)
			}
		case <-look.C:
			if n.failed(s) {
				return b.loaded, errChannelFailed
			}
		}
	}
	slices.Sort(b.loaded)
	return b.loaded, joined(errs)
}

// noteLoads notes how a change went, and returns what is loaded by it.
func (n *Node) noteLoads(s *serving, r *loadResult) (loaded []int64) {
	for _, w := range r.load {
		if len(r.drop) == 0 || r.err == nil {
			n.noteLoad(s, w.LoadRequest, w.segment, r.err)
		}
		if r.err == nil {
			loaded = append(loaded, w.SegmentID)
		}
	}
	return loaded
}

// joined is the errors as one, with a class for the caller to branch on: that of
// one that may pass, if there is one, else that of the first.
func joined(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	of := slices.IndexFunc(errs, func(err error) bool { return !forGood(err) })
	return errclass.Mark(errors.Join(errs...), errclass.Of(errs[max(of, 0)]))
}

// wanted is a segment to be loaded.
type wanted struct {
	segments.LoadRequest
	segment catalog.Segment
}

// wanted lists the segments of one channel to load; no ids = all but those that
// rest. The channel's deletes are pinned before the catalog is read, until unpin.
func (n *Node) wanted(ctx context.Context, s *serving, coll *catalog.Collection, v catalog.VChannel, ids []int64) (list []wanted, c *catalog.Channel, unpin func(), err error) {
	if len(ids) > 0 {
		// Only the channels of these segments need to be followed.
		call, cancel := n.call(ctx)
		c, err := n.o.Catalog.Channel(call, v.Name)
		cancel()
		if err != nil {
			return nil, nil, nil, err
		}
		if !slices.ContainsFunc(c.Segments, func(seg catalog.Segment) bool { return slices.Contains(ids, seg.ID) }) {
			return nil, nil, func() {}, nil
		}
		if err := n.watch(ctx, s, coll, []string{v.Name}); err != nil {
			return nil, nil, nil, err
		}
	}
	ch, ok := s.coll.Channel(v.Name)
	if !ok {
		return nil, nil, func() {}, nil
	}
	unpin = ch.PinDeletes()
	call, cancel := n.call(ctx)
	defer cancel()
	c, err = n.o.Catalog.Channel(call, v.Name)
	if err != nil {
		unpin()
		return nil, nil, nil, err
	}
	n.prune(s, c)
	// Put off until the load has let go of its pin: what is trimmed is in files then
	// that every later load reads.
	ch.TrimDeletes(c.CheckpointTimestamp)
	for _, seg := range c.Segments {
		if (len(ids) > 0 && !slices.Contains(ids, seg.ID)) || (len(ids) == 0 && n.resting(s, seg.ID)) {
			continue
		}
		if !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == seg.PartitionID }) {
			continue // of a partition that was dropped
		}
		list = append(list, wanted{segments.LoadRequest{SegmentID: seg.ID, VChannel: v.Name, Path: seg.Path,
			Deltas: deltasOf(c, seg.FoldedTimestamp), DeltasUpTo: c.CheckpointTimestamp, MinTimestamp: seg.MinTimestamp}, seg})
	}
	return list, c, unpin, nil
}

// deltasOf lists the files of deletes that a segment needs that has those up to
// folded in itself.
func deltasOf(c *catalog.Channel, folded uint64) []segments.Delta {
	out := make([]segments.Delta, 0, len(c.Deltas))
	for _, d := range c.Deltas {
		if d.MaxTimestamp <= folded {
			continue
		}
		out = append(out, segments.Delta{Path: d.Path, PartitionID: d.PartitionID, MaxTimestamp: d.MaxTimestamp})
	}
	return out
}

// ReleaseSegments stops searching segments; no ids = all, and the channels are
// not watched any more. Segments that are released by id stay so until they are
// asked for; others that are flushed later are still loaded.
func (n *Node) ReleaseSegments(ctx context.Context, collection string, ids []int64) ([]int64, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	s, leave, err := n.enter(ctx, coll, false)
	if err != nil {
		return nil, err
	}
	defer leave()
	if s.coll == nil {
		return nil, nil
	}
	if len(ids) > 0 {
		n.letGo(s, ids...)
		return s.coll.Release(ids...), nil
	}
	return n.release(ctx, s)
}

// release lets go of all that is served of a collection. If that fails half way, reads are
// refused until the keeper, or the next who changes what is served, has done the rest:
// they would find a part, and not know. The caller has the turn.
func (n *Node) release(ctx context.Context, s *serving) ([]int64, error) {
	was := s.leaving.Swap(true)
	gone, released, err := n.leaveChannels(ctx, s, n.wantedOf(s))
	if err != nil && len(n.wantedOf(s)) > 0 {
		s.leaving.Store(was || len(gone) > 0)
		return released, err
	}
	n.letGo(s) // even if a subscription has not ended as it should: its channel is gone
	released = append(released, s.coll.Release(s.coll.SealedIDs("")...)...)
	s.leaving.Store(false) // no channel is left, which says the same
	return released, err
}

// finishRelease does what is left to do of a release that failed half way.
func (n *Node) finishRelease(ctx context.Context, s *serving) error {
	if !s.leaving.Load() || s.coll == nil {
		return nil
	}
	_, err := n.release(ctx, s)
	return errors.Wrapf(err, "release collection %q, as was asked for", s.coll.Info().Name)
}
