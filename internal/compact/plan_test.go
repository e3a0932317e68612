package compact

import (
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/segments"
)

func seg(id, rows, bytes int64) catalog.Segment {
	return catalog.Segment{ID: id, PartitionID: 1, Rows: rows, Bytes: bytes, MinTimestamp: uint64(id), MaxTimestamp: uint64(id)}
}

func TestThePolicy(t *testing.T) {
	small := func(ids ...int64) (list []catalog.Segment) {
		for _, id := range ids {
			list = append(list, seg(id, 10, 1000))
		}
		return list
	}
	other := seg(9, 10, 1000)
	other.PartitionID = 2
	young := seg(9, 10, 1000)
	young.MaxTimestamp = 101 // behind no checkpoint
	for _, c := range []struct {
		name    string
		segs    []catalog.Segment
		garbage map[int64]segments.Garbage
		all     bool
		want    []int64
		why     string
	}{
		{name: "nothing is there"},
		{name: "too few small ones", segs: small(1, 2, 3)},
		{name: "enough small ones", segs: small(1, 2, 3, 4), want: []int64{1, 2, 3, 4}, why: whySmall},
		{name: "two are enough for who asks", segs: small(1, 2), all: true, want: []int64{1, 2}, why: whySmall},
		{name: "of two partitions", segs: append(small(1, 2, 3), other)},
		{name: "of a partition that is gone", segs: []catalog.Segment{seg(1, 10, 1000), {ID: 5, PartitionID: 3}}, want: []int64{5}, why: whyDropped},
		{name: "not behind the checkpoint", segs: append(small(1, 2, 3), young)},
		{name: "of different sizes", segs: []catalog.Segment{seg(1, 10, 1<<10), seg(2, 10, 1<<21), seg(3, 10, 1<<21), seg(4, 10, 1<<24)}},
		{name: "the lower tier first", segs: []catalog.Segment{seg(1, 1, 1<<21), seg(2, 1, 1<<21), seg(3, 1, 1<<21), seg(4, 1, 1<<21), seg(5, 1, 1), seg(6, 1, 1), seg(7, 1, 1), seg(8, 1, 1)},
			want: []int64{5, 6, 7, 8}, why: whySmall},
		{name: "no more than the target", segs: []catalog.Segment{seg(1, 300, 1), seg(2, 300, 1), seg(3, 300, 1), seg(4, 300, 1)}, all: true, want: []int64{1, 2, 3}, why: whySmall},
		{name: "large ones are left alone", segs: []catalog.Segment{seg(1, 600, 1), seg(2, 600, 1), seg(3, 600, 1), seg(4, 600, 1)}, all: true},
		{name: "many deleted rows", segs: small(1, 2), garbage: map[int64]segments.Garbage{2: {Rows: 10, Gone: 2}}, want: []int64{2}, why: whyDeleted},
		{name: "few deleted rows", segs: small(1, 2), garbage: map[int64]segments.Garbage{2: {Rows: 10, Gone: 1}}},
		{name: "few are enough for who asks", segs: small(1), garbage: map[int64]segments.Garbage{1: {Rows: 10, Gone: 1}}, all: true, want: []int64{1}, why: whyDeleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Policy{TargetRows: 1000, TargetBytes: 1 << 26}
			p.EnsureDefaults()
			slices.SortFunc(c.segs, func(a, b catalog.Segment) int { return int(a.ID - b.ID) })
			j := p.plan(&situation{channel: &catalog.Channel{Segments: c.segs, CheckpointTimestamp: 100}, partitions: []int64{2, 1}, garbage: c.garbage, all: c.all})
			switch {
			case j == nil && c.want != nil:
				t.Fatalf("nothing is done, want %v", c.want)
			case j == nil:
			case !slices.Equal(j.ids(), c.want) || j.why != c.why || j.drop != (c.why == whyDropped):
				t.Fatalf("%v for %q, want %v for %q", j.ids(), j.why, c.want, c.why)
			}
		})
	}
}

func TestFilesOfDeletesThatNobodyNeeds(t *testing.T) {
	a, b, folded := seg(1, 1, 1), seg(2, 1, 1), seg(3, 1, 1)
	a.MinTimestamp, b.MinTimestamp, folded.MinTimestamp, folded.FoldedTimestamp = 40, 70, 5, 50
	deltas := []catalog.Delta{{Path: "a", MaxTimestamp: 30}, {Path: "b", MaxTimestamp: 40}, {Path: "c", MaxTimestamp: 50}, {Path: "d", MaxTimestamp: 90}}
	for _, c := range []struct {
		name string
		segs []catalog.Segment
		want []string
	}{
		{"no segments: what comes is newer than the checkpoint", nil, []string{"a", "b", "c", "d"}},
		{"older than every row", []catalog.Segment{a, b}, []string{"a", "b"}},
		{"folded, or older", []catalog.Segment{b, folded}, []string{"a", "b", "c"}},
		{"one segment has older rows and has not folded them", []catalog.Segment{seg(4, 1, 1), b, folded}, nil},
	} {
		if got := deadDeltas(&catalog.Channel{Segments: c.segs, Deltas: deltas, CheckpointTimestamp: 100}); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	o := Options{Policy: Policy{MinSmall: 1, DeletedShare: 2, MaxInputs: 1, MaxDeltas: 1, TargetRows: -1}, StepTimeout: -1}
	o.EnsureDefaults()
	err := o.Validate()
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("%v", err)
	}
	for _, word := range []string{"Catalog", "Bucket", "Dir", "Channels", "MinSmall", "DeletedShare", "MaxInputs", "MaxDeltas", "TargetRows", "StepTimeout"} {
		if !slices.Contains(wordsOf(err.Error()), word) {
			t.Errorf("the error does not name %s: %v", word, err)
		}
	}
}
