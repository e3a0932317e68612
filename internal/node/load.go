package node

import (
	"context"
	"path"
	"slices"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/segfile"
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
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	s, leave, err := n.enter(ctx, coll, true)
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(ids) == 0 {
		s.whole = true
		if err := n.watch(ctx, s, coll, nil); err != nil {
			return nil, err
		}
	}
	loaded, err := n.load(ctx, s, coll, ids)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		if !slices.Contains(loaded, id) {
			return nil, errclass.New(errclass.NotFound, "collection %q has no segment %d", coll.Name, id)
		}
	}
	return loaded, nil
}

// load loads what the catalog has of the collection and is not loaded yet, ids
// of it if any are given. The caller has the turn.
func (n *Node) load(ctx context.Context, s *serving, coll *catalog.Collection, ids []int64) (loaded []int64, err error) {
	type result struct {
		id  int64
		err error
	}
	var started int
	results := make(chan result)
	done := make(chan struct{})
	defer close(done) // loads that nobody waits for any more end by themselves
	for _, v := range coll.VChannels {
		reqs, unpin, err := n.loadRequests(ctx, s, coll, v, ids)
		if err != nil {
			return nil, err
		}
		defer unpin()
		for _, r := range reqs {
			if s.coll.Loaded(r.SegmentID) {
				loaded = append(loaded, r.SegmentID)
				continue
			}
			err := n.group.Go("load segment "+strconv.FormatInt(r.SegmentID, 10), func(context.Context) error {
				res := result{r.SegmentID, s.coll.Load(ctx, r)}
				select {
				case results <- res:
				case <-done:
				}
				return nil
			})
			if err != nil {
				return nil, err
			}
			started++
		}
	}
	var errs []error
	for range started {
		r := <-results // Load returns when ctx ends
		if r.err != nil {
			errs = append(errs, r.err)
			continue
		}
		loaded = append(loaded, r.id)
	}
	slices.Sort(loaded)
	if len(errs) > 0 {
		// One class for the caller to branch on: that of the first.
		return loaded, errclass.Mark(errors.Join(errs...), errclass.Of(errs[0]))
	}
	return loaded, nil
}

// loadRequests lists the segments of one channel to load. The channel's deletes
// are pinned before the catalog is read, until unpin.
func (n *Node) loadRequests(ctx context.Context, s *serving, coll *catalog.Collection, v catalog.VChannel, ids []int64) (reqs []segments.LoadRequest, unpin func(), err error) {
	if len(ids) > 0 {
		// Only the channels of these segments need to be followed.
		call, cancel := n.call(ctx)
		c, err := n.o.Catalog.Channel(call, v.Name)
		cancel()
		if err != nil {
			return nil, nil, err
		}
		if !slices.ContainsFunc(c.Segments, func(seg catalog.Segment) bool { return slices.Contains(ids, seg.ID) }) {
			return nil, func() {}, nil
		}
		if err := n.watch(ctx, s, coll, []string{v.Name}); err != nil {
			return nil, nil, err
		}
	}
	ch, ok := s.coll.Channel(v.Name)
	if !ok {
		return nil, func() {}, nil
	}
	unpin = ch.PinDeletes()
	call, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(call, v.Name)
	if err != nil {
		unpin()
		return nil, nil, err
	}
	var deltas []segments.Delta
	for _, d := range c.Deltas {
		deltas = append(deltas, segments.Delta{Path: d.Path, PartitionID: d.PartitionID, MaxTimestamp: d.MaxTimestamp})
	}
	for _, seg := range c.Segments {
		if len(ids) > 0 && !slices.Contains(ids, seg.ID) {
			continue
		}
		if !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == seg.PartitionID }) {
			continue // of a partition that was dropped
		}
		reqs = append(reqs, segments.LoadRequest{SegmentID: seg.ID, VChannel: v.Name, Path: seg.Path, Deltas: deltas})
	}
	return reqs, unpin, nil
}

// ReleaseSegments stops searching segments; no ids = all, and the channels are
// not watched any more.
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
	s.whole = false
	if s.coll == nil {
		return nil, nil
	}
	if len(ids) > 0 {
		return s.coll.Release(ids...), nil
	}
	released := s.coll.Release(sealedOf(s.coll, "")...)
	var errs []error
	for _, name := range n.watchedOf(s) {
		errs = append(errs, n.unwatch(ctx, s, name))
	}
	return released, errors.Join(errs...)
}

// AddSegments puts segments that were built elsewhere, folders in the bucket,
// into the catalog. Their ids come from their manifests.
func (n *Node) AddSegments(ctx context.Context, collection string, paths []string) ([]int64, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, p := range paths {
		id, err := n.addSegment(ctx, coll, p)
		if err != nil {
			return nil, errors.Wrapf(err, "add segment %s", p)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (n *Node) addSegment(ctx context.Context, coll *catalog.Collection, folder string) (int64, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	raw, err := objstore.ReadAll(ctx, n.o.Bucket, path.Join(folder, segfile.ManifestName), segfile.MaxManifestBytes)
	if err != nil {
		return 0, err
	}
	m, err := segfile.ParseManifest(raw)
	if err != nil {
		return 0, err
	}
	if m.CollectionID != coll.ID {
		return 0, errclass.New(errclass.Invalid, "the segment is of collection %d, %q is %d: build it with the collection's id", m.CollectionID, coll.Name, coll.ID)
	}
	if !slices.ContainsFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == m.VChannel }) {
		return 0, errclass.New(errclass.Invalid, "the segment is of channel %q, which %q does not have", m.VChannel, coll.Name)
	}
	if !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == m.PartitionID }) {
		return 0, errclass.New(errclass.Invalid, "the segment is of partition %d, which %q does not have", m.PartitionID, coll.Name)
	}
	c, err := n.o.Catalog.Channel(ctx, m.VChannel)
	if err != nil {
		return 0, err
	}
	_, err = n.o.Catalog.CommitFlush(ctx, m.VChannel, catalog.FlushCommit{Term: c.Term, AddSegments: []catalog.Segment{{
		ID: m.SegmentID, CollectionID: m.CollectionID, PartitionID: m.PartitionID, VChannel: m.VChannel, Path: folder,
		Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: m.MinTimestamp, MaxTimestamp: m.MaxTimestamp,
	}}})
	return m.SegmentID, err
}
