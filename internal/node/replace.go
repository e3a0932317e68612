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

// mayReplace reports whether a segment of the catalog may hold rows of one of the old ones.
func mayReplace(seg catalog.Segment, part int64, olds []segments.Superseded) bool {
	return seg.PartitionID == part && seg.FoldedTimestamp > 0 && slices.ContainsFunc(olds, func(o segments.Superseded) bool {
		return seg.MinTimestamp <= o.MaxTimestamp && o.MinTimestamp <= seg.MaxTimestamp
	})
}
