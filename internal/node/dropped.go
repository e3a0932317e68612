package node

import (
	"context"
	"slices"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// letGoOfDropped lets go of partitions that the catalog does not have any more: another
// node has dropped them, or this one and nobody could write it to the log, or the log is
// being replayed. The caller has the turn.
//
// What it knows of the collection may be older than a partition whose rows are here, so
// the catalog is asked again once they have been seen: a partition is there before its rows.
func (n *Node) letGoOfDropped(ctx context.Context, s *serving, coll *catalog.Collection) error {
	missing := n.missingPartitions(s, coll)
	if len(missing) == 0 {
		return nil
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	now, err := n.o.Catalog.CollectionByID(ctx, coll.ID)
	switch {
	case errclass.Is(err, errclass.NotFound):
		return nil // all of it goes soon
	case err != nil:
		return err
	}
	for _, id := range missing {
		if !slices.ContainsFunc(now.Partitions, func(p catalog.Partition) bool { return p.ID == id }) {
			s.coll.DropPartition(id)
			n.o.Logger.Info("node: let go of a partition that is not in the catalog any more", "collection", coll.Name, "partition", id)
		}
	}
	return nil
}

// missingPartitions returns those that segments are of that are here, or should be, and coll does not have.
func (n *Node) missingPartitions(s *serving, coll *catalog.Collection) (ids []int64) {
	add := func(id int64) {
		known := slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == id })
		if !known && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	for _, st := range s.coll.Segments() {
		add(st.PartitionID)
	}
	for _, b := range n.Broken(coll.ID) {
		add(b.PartitionID)
	}
	return ids
}
