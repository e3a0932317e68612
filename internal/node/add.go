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
	"github.com/querynode/querynode/segments"
)

// AddSegments loads segments that were built elsewhere, folders in the bucket,
// and puts them into the catalog. Their ids come from their manifests. What
// cannot be loaded is not added; those before it stay added.
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
	known, err := isKnown(c, ch, m.SegmentID, folder)
	if err != nil {
		return 0, err
	}
	// Loading reads and checks every byte: the catalog gets only what can be served.
	n.askAgain(s, m.SegmentID)
	if err := s.coll.Load(ctx, segments.LoadRequest{SegmentID: m.SegmentID, VChannel: m.VChannel, Path: folder, Deltas: deltasOf(c, 0),
		DeltasUpTo: c.CheckpointTimestamp}); err != nil {
		return 0, err
	}
	if !known {
		if err := n.commitSegment(ctx, c.Term, m, folder); err != nil {
			s.coll.Release(m.SegmentID)
			return 0, err
		}
	}
	// Its rows are as old as its build: a read that comes next is to see them.
	if _, err := ch.WaitTsafe(call, m.MaxTimestamp); err != nil {
		n.o.Logger.Warn("node: rows of an added segment are seen once the channel has reached their time",
			"segment", m.SegmentID, "channel", m.VChannel, "error", err)
	}
	return m.SegmentID, nil
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
// whose id another segment has: it would take that one's place.
func isKnown(c *catalog.Channel, ch *segments.Channel, id int64, folder string) (bool, error) {
	for _, have := range c.Segments {
		if have.ID == id && have.Path != folder {
			return false, errclass.New(errclass.Conflict, "the catalog has a segment %d already, in %s: build it with another id", id, have.Path)
		}
		if have.ID == id {
			return true, nil
		}
	}
	growing, release := ch.Growing()
	defer release()
	for _, g := range growing {
		if g.Meta().ID == id {
			return false, errclass.New(errclass.Conflict, "a growing segment has the id %d: build it with another one, above 2^52", id)
		}
	}
	return false, nil
}

// commitSegment enters the segment in the catalog. It speaks for no owner of the
// log, and so follows the term when an owner commits for the first time meanwhile.
func (n *Node) commitSegment(ctx context.Context, term uint64, m *segfile.Manifest, folder string) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	for try := 1; ; try++ {
		_, err := n.o.Catalog.CommitFlush(ctx, m.VChannel, catalog.FlushCommit{Term: term, AddSegments: []catalog.Segment{{
			ID: m.SegmentID, CollectionID: m.CollectionID, PartitionID: m.PartitionID, VChannel: m.VChannel, Path: folder,
			Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: m.MinTimestamp, MaxTimestamp: m.MaxTimestamp,
		}}})
		if !errclass.Is(err, errclass.Fenced) || try == commitTries {
			return err
		}
		c, err := n.o.Catalog.Channel(ctx, m.VChannel)
		if err != nil {
			return err
		}
		term = c.Term
	}
}

// commitTries is how often a segment is committed while owners of its log change.
const commitTries = 5
