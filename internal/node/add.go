package node

import (
	"context"
	"path"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/segments"
)

// AddSegments loads segments that were built elsewhere, folders in the bucket,
// and puts them into the catalog. Their ids come from their manifests. What
// cannot be loaded is not added; those before it stay added.
//
// Rows that are older count as written when their segment was added: deletes and
// upserts that were acknowledged before the call do not hide them, wherever these are
// by now and whether they are still kept; those that are sent after it do.
func (n *Node) AddSegments(ctx context.Context, collection string, paths []string) ([]int64, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	var ids []int64
	for _, p := range paths {
		id, err := n.addSegment(ctx, coll, path.Clean(p))
		if err != nil {
			return nil, errors.Wrapf(err, "add segment %s", p)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (n *Node) addSegment(ctx context.Context, coll *catalog.Collection, folder string) (int64, error) {
	m, err := n.manifest(ctx, folder)
	if err != nil {
		return 0, err
	}
	switch {
	case m.CollectionID != coll.ID:
		return 0, errclass.New(errclass.Invalid, "the segment is of collection %d, %q is %d: build it with the collection's id", m.CollectionID, coll.Name, coll.ID)
	case !slices.ContainsFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == m.VChannel }):
		return 0, errclass.New(errclass.Invalid, "the segment is of channel %q, which %q does not have", m.VChannel, coll.Name)
	case !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == m.PartitionID }):
		return 0, errclass.New(errclass.Invalid, "the segment is of partition %d, which %q does not have", m.PartitionID, coll.Name)
	}
	s, leave, err := n.enter(ctx, coll, true)
	if err != nil {
		return 0, err
	}
	defer leave()
	if err := n.watch(ctx, s, coll, []string{m.VChannel}); err != nil {
		return 0, err
	}
	ch, _ := s.coll.Channel(m.VChannel)
	defer ch.PinDeletes()()
	call, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(call, m.VChannel)
	if err != nil {
		return 0, err
	}
	known, err := isKnown(c, m.SegmentID, folder)
	if err != nil {
		return 0, err
	}
	// Loading reads and checks every byte: the catalog gets only what can be served. Of
	// deletes, those from its entry there on count, which are in the buffer.
	r := segments.LoadRequest{SegmentID: m.SegmentID, VChannel: m.VChannel, Path: folder, Admit: func(ctx context.Context) (uint64, error) {
		added, err := n.commitSegment(ctx, coll, m, folder)
		return added.MinTimestamp, err
	}}
	if known {
		i := slices.IndexFunc(c.Segments, func(seg catalog.Segment) bool { return seg.ID == m.SegmentID })
		r.Admit, r.MinTimestamp = nil, c.Segments[i].MinTimestamp
		r.Deltas, r.DeltasUpTo = deltasOf(c, c.Segments[i].FoldedTimestamp), c.CheckpointTimestamp
	}
	n.askAgain(s, m.SegmentID)
	if err := s.coll.Load(ctx, r); err != nil {
		return 0, err
	}
	return m.SegmentID, n.seeAdded(ctx, ch, m.SegmentID, folder)
}

// seeAdded waits until reads see the rows of a segment that was added.
func (n *Node) seeAdded(ctx context.Context, ch *segments.Channel, id int64, folder string) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(ctx, ch.Name())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(c.Segments, func(seg catalog.Segment) bool { return seg.ID == id && seg.Path == folder })
	if i < 0 {
		return errclass.New(errclass.Conflict, "segment %d was replaced, or taken out of the catalog, while it was added", id)
	}
	if _, err := ch.WaitTsafe(ctx, c.Segments[i].MaxTimestamp); err != nil {
		n.o.Logger.Warn("node: rows of an added segment are seen once the channel has reached their time",
			"segment", id, "channel", ch.Name(), "error", err)
	}
	return nil
}

func (n *Node) manifest(ctx context.Context, folder string) (*segfile.Manifest, error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	raw, err := objstore.ReadAll(ctx, n.o.Bucket, path.Join(folder, segfile.ManifestName), segfile.MaxManifestBytes)
	if errclass.Is(err, errclass.NotFound) {
		return nil, errclass.Wrap(err, errclass.NotFound, "no segment there: its folder in object storage holds a %s, written last", segfile.ManifestName)
	}
	if err != nil {
		return nil, err
	}
	return segfile.ParseManifest(raw)
}

// isKnown reports whether the catalog has the segment already. It refuses one
// whose id another segment has, or may get: it would take that one's place.
func isKnown(c *catalog.Channel, id int64, folder string) (bool, error) {
	for _, have := range c.Segments {
		if have.ID == id && have.Path != folder {
			return false, errclass.New(errclass.Conflict, "the catalog has a segment %d already, in %s: build it with another id", id, have.Path)
		}
		if have.ID == id {
			return true, nil
		}
	}
	if id < catalog.FirstForeignID {
		return false, errclass.New(errclass.Invalid, "segment %d: ids below 2^52 are given to rows that are written, which would be lost if the segment had it first: build it with another one", id)
	}
	return false, nil
}

// commitSegment enters the segment in the catalog, once, and returns its entry. Its rows
// count as written no earlier than now: of deletes before, some may be forgotten. It speaks
// for no owner of the log, and so follows the term when an owner commits for the first time
// meanwhile, and the checkpoint.
func (n *Node) commitSegment(ctx context.Context, coll *catalog.Collection, m *segfile.Manifest, folder string) (added catalog.Segment, err error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	if q, ok := n.o.Queue.(mq.Syncer); ok {
		if i := slices.IndexFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == m.VChannel }); i >= 0 {
			// Else a log could end before the entry, after a power failure.
			if err := q.Sync(ctx, coll.VChannels[i].PChannel); err != nil {
				return added, errors.Wrap(err, "sync the log")
			}
		}
	}
	for try := 1; ; try++ {
		c, err := n.o.Catalog.Channel(ctx, m.VChannel)
		if err != nil {
			return added, err
		}
		if i := slices.IndexFunc(c.Segments, func(seg catalog.Segment) bool { return seg.ID == m.SegmentID && seg.Path == folder }); i >= 0 {
			return c.Segments[i], nil // by a try before
		}
		now, err := n.moment(ctx, coll, c, m.MinTimestamp)
		if err != nil {
			return added, err
		}
		added = catalog.Segment{ID: m.SegmentID, CollectionID: m.CollectionID, PartitionID: m.PartitionID, VChannel: m.VChannel, Path: folder,
			Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: max(now, m.MinTimestamp), MaxTimestamp: max(now, m.MaxTimestamp)}
		_, err = n.o.Catalog.CommitFlush(ctx, m.VChannel, catalog.FlushCommit{Term: c.Term, CheckpointAtMost: now, AddSegments: []catalog.Segment{added}})
		if !errclass.Is(err, errclass.Fenced) && !errclass.Is(err, errclass.Conflict) || try == commitTries {
			return added, err
		}
	}
}

// moment returns a timestamp for rows that are added to a channel outside its log, of which
// the oldest was built at built: at or above all that was acknowledged before, by anybody,
// below what is written once tsafe is there, and above the rows of segments that were added
// before, so that of two with one key the later is the newer. A clock that is ahead
// where segments are built does not move it.
func (n *Node) moment(ctx context.Context, coll *catalog.Collection, c *catalog.Channel, built uint64) (uint64, error) {
	acknowledged, err := n.strong(ctx, coll)
	if err != nil {
		return 0, err
	}
	now := max(acknowledged(c.VChannel), c.CheckpointTimestamp)
	end := max(now, n.endOfNow())
	at := max(now, min(built, end))
	for _, seg := range c.Segments {
		if seg.MaxTimestamp < end {
			at = max(at, seg.MaxTimestamp+1)
		}
	}
	return at, nil
}

// commitTries is how often a segment is committed while owners of its log change, or
// its checkpoint moves.
const commitTries = 5
