package compact

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/segments"
)

// Policy says what is worth a job.
type Policy struct {
	// TargetRows and TargetBytes bound what a merge makes. A segment of at most half
	// of both is small. 0 = 500,000 rows, 256 MiB.
	TargetRows  int64
	TargetBytes int64
	// MinSmall small segments of about the same size are merged. 0 = 4; at least 2.
	MinSmall int
	// MaxInputs is the most segments of one job. 0 = 16.
	MaxInputs int
	// DeletedShare of its rows that no read can see is when a segment is
	// rewritten. 0 = 0.2.
	DeletedShare float64
	// MaxDeltas files of deletes of a channel are made one. 0 = 16.
	MaxDeltas int
}

// EnsureDefaults fills what was left zero.
func (p *Policy) EnsureDefaults() {
	p.TargetRows = cmp.Or(p.TargetRows, 500_000)
	p.TargetBytes = cmp.Or(p.TargetBytes, 256<<20)
	p.MinSmall = cmp.Or(p.MinSmall, 4)
	p.MaxInputs = cmp.Or(p.MaxInputs, 16)
	p.DeletedShare = cmp.Or(p.DeletedShare, 0.2)
	p.MaxDeltas = cmp.Or(p.MaxDeltas, 16)
}

func (p *Policy) problems() (errs []error) {
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, errors.Newf("compact: "+format, args...))
		}
	}
	check(p.TargetRows > 0 && p.TargetBytes > 0, "TargetRows is %d, TargetBytes %d: want 0 (default) or more", p.TargetRows, p.TargetBytes)
	check(p.MinSmall >= 2, "MinSmall is %d, want 0 (default) or at least 2", p.MinSmall)
	check(p.MaxInputs >= 2, "MaxInputs is %d, want 0 (default) or at least 2", p.MaxInputs)
	check(p.DeletedShare > 0 && p.DeletedShare <= 1, "DeletedShare is %v, want 0 (default) to 1", p.DeletedShare)
	check(p.MaxDeltas >= 2, "MaxDeltas is %d, want 0 (default) or at least 2", p.MaxDeltas)
	return errs
}

// job is what is done with segments of one partition of a channel.
type job struct {
	partition int64
	inputs    []catalog.Segment // in order of their ids
	why       string
	drop      bool // their partition is gone: they only leave the catalog
}

// The reasons of jobs.
const (
	whyDropped = "dropped partition"
	whySmall   = "small segments"
	whyDeleted = "deleted rows"
	whyIndex   = "missing index"
)

// situation is what a plan is made from.
type situation struct {
	channel    *catalog.Channel
	partitions []int64                     // of the collection, now
	garbage    map[int64]segments.Garbage  // by segment, of those that are loaded here
	usable     func(*catalog.Segment) bool // nil = all segments
	all        bool                        // an operator asks: whatever gets better is worth it
	same       map[int64]bool              // segments of which a rewrite would drop nothing
	noRoom     map[int64]bool              // segments that are left out
}

// plan returns the next job, nil if nothing is worth one.
func (p *Policy) plan(s *situation) *job {
	byPartition := map[int64][]catalog.Segment{}
	for _, seg := range s.channel.Segments {
		if !slices.Contains(s.partitions, seg.PartitionID) {
			return &job{partition: seg.PartitionID, why: whyDropped, drop: true, inputs: slices.DeleteFunc(slices.Clone(s.channel.Segments),
				func(o catalog.Segment) bool { return o.PartitionID != seg.PartitionID })}
		}
		if seg.MaxTimestamp <= s.channel.CheckpointTimestamp && !s.noRoom[seg.ID] && (s.usable == nil || s.usable(&seg)) {
			byPartition[seg.PartitionID] = append(byPartition[seg.PartitionID], seg)
		}
	}
	parts := slices.Clone(s.partitions)
	slices.Sort(parts)
	for _, part := range parts {
		if j := p.rewrite(s, byPartition[part]); j != nil {
			return j
		}
		if j := p.merge(s, byPartition[part]); j != nil {
			return j
		}
		if i := slices.IndexFunc(byPartition[part], func(seg catalog.Segment) bool { return seg.Unindexed }); i >= 0 {
			return &job{partition: part, inputs: byPartition[part][i : i+1 : i+1], why: whyIndex}
		}
	}
	return nil
}

// rewrite finds a segment with many rows that no read can see.
func (p *Policy) rewrite(s *situation, segs []catalog.Segment) *job {
	for _, seg := range segs {
		g, ok := s.garbage[seg.ID]
		if !ok || g.Gone == 0 || s.same[seg.ID] {
			continue
		}
		if s.all || float64(g.Gone) >= p.DeletedShare*float64(g.Rows) {
			return &job{partition: seg.PartitionID, inputs: []catalog.Segment{seg}, why: whyDeleted}
		}
	}
	return nil
}

// merge finds small segments of one tier, the lowest that has enough.
func (p *Policy) merge(s *situation, segs []catalog.Segment) *job {
	tiers := map[int][]catalog.Segment{}
	for _, seg := range segs {
		if 2*seg.Rows <= p.TargetRows && 2*seg.Bytes <= p.TargetBytes {
			t := tier(seg.Bytes)
			if s.all {
				t = 0
			}
			tiers[t] = append(tiers[t], seg)
		}
	}
	enough := p.MinSmall
	if s.all {
		enough = 2
	}
	for t := range 64 {
		small := tiers[t]
		slices.SortFunc(small, func(a, b catalog.Segment) int { return cmp.Compare(a.Bytes, b.Bytes) })
		var rows, bytes int64
		n := 0
		for n < min(len(small), p.MaxInputs) && rows+small[n].Rows <= p.TargetRows && bytes+small[n].Bytes <= p.TargetBytes {
			rows, bytes = rows+small[n].Rows, bytes+small[n].Bytes
			n++
		}
		if n >= enough {
			in := small[:n]
			slices.SortFunc(in, func(a, b catalog.Segment) int { return cmp.Compare(a.ID, b.ID) })
			return &job{partition: in[0].PartitionID, inputs: in, why: whySmall}
		}
	}
	return nil
}

// tier is the power of four of a size: a merge of four segments is one higher, so
// a row is rewritten once a tier.
func tier(bytes int64) int { return bits.Len64(uint64(max(bytes, 1)>>16)) / 2 }

// deadDeltas lists the files of deletes that hide no row any more that is not
// hidden by its segment's own file.
func deadDeltas(c *catalog.Channel) (paths []string) {
	floor := deltaFloor(c)
	for _, d := range c.Deltas {
		if d.MaxTimestamp <= floor {
			paths = append(paths, d.Path)
		}
	}
	return paths
}

// deltaFloor is the timestamp up to which no delete in files matters: each segment
// has it folded, or no row that is older. Rows that are still to be flushed are
// newer than the checkpoint, and the files reach up to that at most.
func deltaFloor(c *catalog.Channel) uint64 {
	floor := c.CheckpointTimestamp
	for _, s := range c.Segments {
		floor = min(floor, max(s.FoldedTimestamp, s.MinTimestamp))
	}
	return floor
}
