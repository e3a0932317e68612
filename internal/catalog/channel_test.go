package catalog

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

func segment(col *Collection, shard int, id int64) Segment {
	return Segment{
		ID: id, CollectionID: col.ID, PartitionID: col.Partitions[0].ID, VChannel: col.VChannels[shard].Name, Path: fmt.Sprint("segments/", id),
		Rows: 10, Bytes: 1000, MinTimestamp: 1, MaxTimestamp: 5, StartPosition: "p1", EndPosition: "p5",
	}
}

func delta(n int) Delta {
	return Delta{Path: fmt.Sprintf("deltas/%03d.parquet", n), Rows: 1, Bytes: 10, MinTimestamp: 1, MaxTimestamp: 2}
}

func segmentIDs(ch *Channel) (ids []int64) {
	for _, s := range ch.Segments {
		ids = append(ids, s.ID)
	}
	return ids
}

func TestAFlushMovesSegmentsDeltasAndCheckpointTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		c := open(t, b)
		col := create(t, c, "movies")
		v := col.VChannels[1].Name
		first := FlushCommit{
			Term: 3, AddSegments: []Segment{segment(col, 1, 70), segment(col, 1, 50)}, AddDeltas: []Delta{delta(2), delta(1)},
			Checkpoint: "p5", CheckpointTimestamp: 5,
		}
		ch, err := c.CommitFlush(t.Context(), v, first)
		must(t, err)
		stored, err := open(t, b).Channel(t.Context(), v)
		must(t, err)
		for _, got := range []*Channel{ch, stored} {
			if !slices.Equal(segmentIDs(got), []int64{50, 70}) || len(got.Deltas) != 2 || got.Deltas[0].Path != delta(1).Path ||
				got.Checkpoint != "p5" || got.CheckpointTimestamp != 5 || got.Term != 3 || got.Version != 2 {
				t.Errorf("got %+v", got)
			}
		}

		again, err := c.CommitFlush(t.Context(), v, first)
		must(t, err)
		if again.Version != 2 {
			t.Error("a commit that was done already was written again")
		}

		ch, err = c.CommitFlush(t.Context(), v, FlushCommit{
			Term: 3, AddSegments: []Segment{segment(col, 1, 60)}, RemoveSegments: []int64{50, 12345}, RemoveDeltas: []string{delta(1).Path, "none"},
			Checkpoint: "p4", CheckpointTimestamp: 4, // below the stored one: ignored
		})
		must(t, err)
		if !slices.Equal(segmentIDs(ch), []int64{60, 70}) || len(ch.Deltas) != 1 || ch.Checkpoint != "p5" || ch.CheckpointTimestamp != 5 {
			t.Errorf("got %+v", ch)
		}
		other, err := c.Channel(t.Context(), col.VChannels[0].Name)
		must(t, err)
		if other.Version != 1 || len(other.Segments) != 0 {
			t.Errorf("another channel changed: %+v", other)
		}
	})
}

// TestBuildsThatDoNotKnowOfMissingIndexesAreTold that a channel has a format which is newer than they are, as long as it has one.
func TestBuildsThatDoNotKnowOfMissingIndexesAreTold(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	col := create(t, c, "movies")
	v := col.VChannels[0].Name
	bare := segment(col, 0, 9)
	bare.Unindexed = true
	for _, step := range []struct {
		FlushCommit
		format int
	}{
		{FlushCommit{AddSegments: []Segment{segment(col, 0, 8)}}, 1},
		{FlushCommit{AddSegments: []Segment{bare}}, 5},
		{FlushCommit{AddSegments: []Segment{segment(col, 0, 10)}, RemoveSegments: []int64{9}}, 1},
	} {
		step.Term = 1
		_, err := c.CommitFlush(t.Context(), v, step.FlushCommit)
		must(t, err)
		if ch, err := c.Channel(t.Context(), v); err != nil || ch.Format != step.format {
			t.Errorf("%v have format %d, %v", segmentIDs(ch), ch.Format, err)
		}
	}
}

func TestAnOwnerOfALowerTermIsFenced(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	col := create(t, c, "movies")
	v := col.VChannels[0].Name
	_, err := c.CommitFlush(t.Context(), v, FlushCommit{Term: 5})
	must(t, err)
	_, err = c.CommitFlush(t.Context(), v, FlushCommit{Term: 4, AddSegments: []Segment{segment(col, 0, 9)}})
	wantClass(t, err, errclass.Fenced, "term 4", "term 5")
	ch, err := c.Channel(t.Context(), v)
	must(t, err)
	if len(ch.Segments) != 0 || ch.Term != 5 {
		t.Errorf("the fenced commit got through: %+v", ch)
	}
}

func TestCommitsThatCannotBeAreRefused(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	col := create(t, c, "movies")
	v := col.VChannels[0].Name
	_, err := c.CommitFlush(t.Context(), v, FlushCommit{AddSegments: []Segment{segment(col, 0, 9)}, AddDeltas: []Delta{delta(1)}})
	must(t, err)
	changed, foreign, wrong := segment(col, 0, 9), segment(col, 1, 10), segment(col, 0, 11)
	changed.Rows++
	wrong.Path, wrong.MinTimestamp, wrong.Rows = "../x", 9, -1
	otherDelta := delta(1)
	otherDelta.Bytes++
	for name, x := range map[string]struct {
		f     FlushCommit
		class errclass.Class
		word  string
	}{
		"another segment of the same id":  {FlushCommit{AddSegments: []Segment{changed}}, errclass.Conflict, "Rows:11"},
		"another delta of the same path":  {FlushCommit{AddDeltas: []Delta{otherDelta}}, errclass.Conflict, "Bytes:11"},
		"a segment of another channel":    {FlushCommit{AddSegments: []Segment{foreign}}, errclass.Invalid, "segment 10"},
		"a segment that cannot be":        {FlushCommit{AddSegments: []Segment{wrong}}, errclass.Invalid, "../x"},
		"the same segment twice":          {FlushCommit{AddSegments: []Segment{segment(col, 0, 12), segment(col, 0, 12)}}, errclass.Invalid, "twice"},
		"a segment added and removed":     {FlushCommit{AddSegments: []Segment{segment(col, 0, 12)}, RemoveSegments: []int64{12}}, errclass.Invalid, "12"},
		"a checkpoint of great length":    {FlushCommit{Checkpoint: string(make([]byte, MaxPosition+1))}, errclass.Invalid, "checkpoint"},
		"a delta whose path is no object": {FlushCommit{AddDeltas: []Delta{{Path: "/x"}}}, errclass.Invalid, "/x"},
	} {
		_, err := c.CommitFlush(t.Context(), v, x.f)
		if !errclass.Is(err, x.class) {
			t.Errorf("%s: %v (%v), want class %v", name, err, errclass.Of(err), x.class)
			continue
		}
		wantClass(t, err, x.class, x.word)
	}
	_, err = c.CommitFlush(t.Context(), "dml-0_999v0", FlushCommit{})
	wantClass(t, err, errclass.NotFound, "dml-0_999v0")
	_, err = c.Channel(t.Context(), "../x")
	wantClass(t, err, errclass.Invalid)
}

func TestConcurrentFlushesAllCount(t *testing.T) {
	onBoth(t, func(t *testing.T, b objstore.Bucket) {
		col := create(t, open(t, b), "movies")
		v := col.VChannels[0].Name
		var wg sync.WaitGroup
		for p := range int64(4) {
			c := open(t, b)
			wg.Go(func() {
				for i := range int64(5) {
					id := 1000 + p*100 + i
					if _, err := c.CommitFlush(context.Background(), v, FlushCommit{
						Term: 1, AddSegments: []Segment{segment(col, 0, id)}, Checkpoint: fmt.Sprint(id), CheckpointTimestamp: uint64(id),
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		ch, err := open(t, b).Channel(t.Context(), v)
		must(t, err)
		if len(ch.Segments) != 20 || ch.CheckpointTimestamp != 1304 || ch.Checkpoint != "1304" {
			t.Errorf("%d segments, checkpoint %s at %d", len(ch.Segments), ch.Checkpoint, ch.CheckpointTimestamp)
		}
		if ch.Version > 21 {
			t.Errorf("version %d after 20 commits", ch.Version)
		}
	})
}

// TestASegmentFromOutsideComesBeforeTheCheckpointDoes: one whose rows are as old as its
// arrival is refused if deletes after that may have been forgotten, but not twice.
func TestASegmentFromOutsideComesBeforeTheCheckpointDoes(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	col := create(t, c, "movies")
	v := col.VChannels[0].Name
	checkpoint := func(ts uint64) {
		_, err := c.CommitFlush(t.Context(), v, FlushCommit{Checkpoint: fmt.Sprint("p", ts), CheckpointTimestamp: ts})
		must(t, err)
	}
	add := func(id int64, at uint64) error {
		_, err := c.CommitFlush(t.Context(), v, FlushCommit{CheckpointAtMost: at, AddSegments: []Segment{segment(col, 0, id)}})
		return err
	}
	checkpoint(7)
	must(t, add(1, 7))
	checkpoint(8)
	must(t, add(1, 7)) // it is there
	if err := add(2, 7); !errclass.Is(err, errclass.Conflict) {
		t.Errorf("behind the checkpoint: %v", err)
	}
	must(t, add(2, 9))
	ch, err := c.Channel(t.Context(), v)
	must(t, err)
	if !slices.Equal(segmentIDs(ch), []int64{1, 2}) {
		t.Errorf("segments %v", segmentIDs(ch))
	}
}
