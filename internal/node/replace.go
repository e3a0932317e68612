package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/segments"
)

// change is segments to load together, and segments that they replace in the same step.
type change struct {
	load []wanted
	drop []int64
}

func (x change) name() string {
	if len(x.load) == 0 {
		return fmt.Sprintf("nothing instead of segments %v", x.drop)
	}
	return fmt.Sprintf("segment %d", x.load[0].SegmentID)
}

func (x change) make(ctx context.Context, c *segments.Collection, vchannel string) error {
	if len(x.drop) == 0 {
		return c.Load(ctx, x.load[0].LoadRequest)
	}
	reqs := make([]segments.LoadRequest, 0, len(x.load))
	for _, w := range x.load {
		reqs = append(reqs, w.LoadRequest)
	}
	return c.Replace(ctx, vchannel, reqs, x.drop)
}

// changes says how to get to load what is wanted of a channel. What was flushed is
// loaded by itself. What a compaction made takes the place of what is served and
// not in the catalog any more, partition by partition, in one step: a row is in
// one of the two at any time. While one of the new ones is not to be loaded now,
// the old ones stay.
func changes(coll *segments.Collection, c *catalog.Channel, vchannel string, list []wanted) (out []change) {
	if c == nil {
		return nil
	}
	var listed []int64
	for _, seg := range c.Segments {
		listed = append(listed, seg.ID)
	}
	old := map[int64][]segments.Superseded{}
	if ch, ok := coll.Channel(vchannel); ok {
		for _, o := range ch.Superseded(listed, c.CheckpointTimestamp) {
			old[o.PartitionID] = append(old[o.PartitionID], o)
		}
	}
	held := map[int64]bool{} // not by itself
	for part, olds := range old {
		var x change
		blocked := false
		for _, seg := range c.Segments {
			if !mayReplace(seg, part, olds) || coll.Loaded(seg.ID) {
				continue
			}
			held[seg.ID] = true
			i := slices.IndexFunc(list, func(w wanted) bool { return w.SegmentID == seg.ID })
			if i < 0 {
				blocked = true
				continue
			}
			x.load = append(x.load, list[i])
		}
		if blocked {
			continue
		}
		for _, o := range olds {
			x.drop = append(x.drop, o.ID)
		}
		out = append(out, x)
	}
	for _, w := range list {
		if !held[w.SegmentID] {
			out = append(out, change{load: []wanted{w}})
		}
	}
	return out
}

// replaceGrowing lets go of growing segments of a channel whose rows others have stored
// and compacted, and serves what was made of them instead: nobody could name them to
// load or release them. The caller has the turn.
func (n *Node) replaceGrowing(ctx context.Context, s *serving, coll *catalog.Collection, ch *segments.Channel, c *catalog.Channel) error {
	var listed []int64
	for _, seg := range c.Segments {
		listed = append(listed, seg.ID)
	}
	old := map[int64][]segments.Superseded{} // growing, by partition
	for _, o := range ch.Superseded(listed, c.CheckpointTimestamp) {
		if o.Growing {
			old[o.PartitionID] = append(old[o.PartitionID], o)
		}
	}
	var by []int64
	for part, olds := range old {
		nothing := true
		for _, seg := range c.Segments {
			if mayReplace(seg, part, olds) && !s.coll.Loaded(seg.ID) {
				by, nothing = append(by, seg.ID), false
			}
		}
		if !nothing {
			continue
		}
		var ids []int64
		for _, o := range olds {
			ids = append(ids, o.ID)
		}
		if err := s.coll.Replace(ctx, ch.Name(), nil, ids); err != nil {
			return err
		}
	}
	if len(by) == 0 {
		return nil
	}
	_, err := n.load(ctx, s, coll, by) // which drops them in the same step
	return err
}

// mayReplace reports whether a segment of the catalog may hold rows of one of the old ones.
func mayReplace(seg catalog.Segment, part int64, olds []segments.Superseded) bool {
	return seg.PartitionID == part && seg.FoldedTimestamp > 0 && slices.ContainsFunc(olds, func(o segments.Superseded) bool {
		return seg.MinTimestamp <= o.MaxTimestamp && o.MinTimestamp <= seg.MaxTimestamp
	})
}
