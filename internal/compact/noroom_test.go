package compact

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// span is n keys from a first one on.
func span(from, n int64) (keys []int64) {
	for k := from; k < from+n; k++ {
		keys = append(keys, k)
	}
	return keys
}

// TestAJobWithoutRoomDoesNotHoldUpSmallerOnes: a large segment would be rewritten first, for which there is no memory.
func TestAJobWithoutRoomDoesNotHoldUpSmallerOnes(t *testing.T) {
	r := newRig(t, 1<<20)
	for i := range int64(4) {
		r.segment(11+i, span(10*i, 8)...)
	}
	r.segment(1, span(10_000, 6000)...)
	r.deletes(span(10_000, 1300)...)
	r.now = r.now.Add(100 * time.Hour)
	r.commit(catalog.FlushCommit{})
	r.see(r.tick())
	var fetched atomic.Int64
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if strings.HasPrefix(c.Key, fmt.Sprintf("segments/%d/1/", r.coll.ID)) {
			fetched.Add(1)
		}
		return objstore.Fault{}
	})
	r.c.round(t.Context())
	e, st := r.entry(), r.c.Status()
	if len(e.Segments) != 2 || st.Stats.Jobs != 1 || !slices.Equal(st.Recent[0].Inputs, []int64{11, 12, 13, 14}) {
		t.Fatalf("%d segments are left, %+v", len(e.Segments), st)
	}
	if st.Stats.Failed != 1 || !strings.Contains(st.Failing[r.vchannel()], "rewrite segments [1]") {
		t.Errorf("nobody is told what had no room: %+v", st)
	}
	if fetched.Load() != 0 {
		t.Errorf("%d files were asked for, of a segment that there is no room for", fetched.Load())
	}
	r.bucket.SetHook(nil)
	// It is looked at again sooner than after a round that did nothing.
	for _, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
		if got := r.c.mu.failing[r.vchannel()].wait; got != wait {
			t.Errorf("the channel waits %v, want %v", got, wait)
		}
		r.now = r.now.Add(wait)
		r.c.round(t.Context())
	}
}

// TestAMergeWithoutRoomIsTriedWithFewer: it leaves out its larger half until the rest has room.
func TestAMergeWithoutRoomIsTriedWithFewer(t *testing.T) {
	r := newRig(t, 1<<20)
	r.segment(11, span(0, 3000)...)
	r.segment(12, span(3000, 3010)...)
	r.segment(13, span(10_000, 8)...)
	r.segment(14, span(20_000, 7)...)
	done, err := r.run()
	if !errclass.Is(err, errclass.Exhausted) {
		t.Fatalf("%v, want class Exhausted", err)
	}
	if len(done) != 1 || !slices.Equal(done[0].Inputs, []int64{13, 14}) || len(r.entry().Segments) != 3 {
		t.Errorf("%+v", done)
	}
}

// TestFilesOfDeletesWithoutRoomDoNotHoldUpJobs: to make them one takes all of them at once, to apply them one at a time.
func TestFilesOfDeletesWithoutRoomDoNotHoldUpJobs(t *testing.T) {
	const limit = 32 << 20
	r := newRig(t, limit)
	for i := range int64(4) {
		r.segment(11+i, span(10*i, 8)...)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		keys := make([]int64, 20_000) // of no row, and too many to be stored in few bytes
		for i := range keys {
			keys[i] = 1000 + random.Int64N(1<<60)
		}
		r.deletes(keys...)
	}
	file := 4 * r.entry().Deltas[0].Bytes
	job := segments.BuildBytes(r.ch.Collection().Info(), 32, r.c.o.Workers)
	if job > file {
		t.Fatalf("a job takes %d bytes, a file %d", job, file)
	}
	taken, err := r.set.Ledger().Reserve(segments.KindGrowing, limit-3*file)
	must(t, err)
	defer taken.Release()
	done, err := r.run()
	if !errclass.Is(err, errclass.Exhausted) || !strings.Contains(err.Error(), "merge files of deletes") {
		t.Fatalf("%v, want that files of deletes had no room", err)
	}
	if len(done) != 1 || len(done[0].Inputs) != 4 {
		t.Errorf("%+v", done)
	}
}

// TestAMergeWaitsForWhatTheFlushWillTake, which is never refused: both at once would be more than there is. It is done once the flush has ended.
func TestAMergeWaitsForWhatTheFlushWillTake(t *testing.T) {
	const limit, rows = 1 << 20, 1000
	r := newRig(t, limit)
	for i := range int64(4) {
		r.segment(11+i, span(10*i, 8)...)
	}
	vectors := make([]float32, 2*rows)
	must(t, r.ch.ApplyRows(segments.Rows{SegmentID: 13, PartitionID: r.coll.Partitions[0].ID, Batch: &schema.Batch{Rows: rows, Columns: []*schema.Column{
		{FieldID: keyField, Type: schema.Int64, Int: span(1000, rows)}, {FieldID: vecField, Type: schema.FloatVector, Dim: 2, Float: vectors}}}},
		segments.Position{Timestamp: r.tick()}))
	r.ch.ToBuild(1)
	l := r.set.Ledger()
	taken := l.Force(segments.KindGrowing, limit-l.Total()-segments.BuildBytes(r.ch.Collection().Info(), 32, r.c.o.Workers)-l.Ahead()+1)
	defer taken.Release()
	r.now = r.now.Add(100 * time.Hour)
	r.c.round(t.Context())
	if st := r.c.Status(); len(r.entry().Segments) != 4 || !strings.Contains(st.Failing[r.vchannel()], "storing growing rows will add") {
		t.Fatalf("%d segments are left, %+v", len(r.entry().Segments), st)
	}
	growing, release := r.ch.Growing()
	room, err := growing[0].Build(1, false) // beyond the limit
	must(t, err)
	room.Release()
	release()
	r.now = r.now.Add(time.Second)
	r.c.round(t.Context())
	if st := r.c.Status(); len(r.entry().Segments) != 1 || len(st.Failing) != 0 {
		t.Errorf("%d segments are left, %+v", len(r.entry().Segments), st)
	}
}

// TestAChannelThatFailsDoesNotHoldUpOthers that somebody asks for with it.
func TestAChannelThatFailsDoesNotHoldUpOthers(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1)
	r.segment(12, 2)
	_, err := r.cat.CommitFlush(t.Context(), r.vchannel(), catalog.FlushCommit{Term: 5})
	must(t, err)
	done, err := r.c.Run(t.Context(), []Channel{{r.ch, 1}, {r.ch, 5}})
	if !errclass.Is(err, errclass.Fenced) {
		t.Errorf("%v, want that of the first", err)
	}
	if len(done) != 1 || len(r.entry().Segments) != 1 {
		t.Errorf("%+v", done)
	}
}

// TestAnUploadHasNoRoomOfTheBuild, which has ended.
func TestAnUploadHasNoRoomOfTheBuild(t *testing.T) {
	r := newRig(t, 0)
	r.segment(11, 1, 2)
	r.segment(12, 3)
	var uploads, held atomic.Int64
	r.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		if c.Op == objstore.OpPut && strings.HasPrefix(c.Key, "segments/") {
			uploads.Add(1)
			held.Add(r.set.Ledger().Used()[segments.KindBuild])
		}
		return objstore.Fault{}
	})
	_, err := r.run()
	must(t, err)
	if uploads.Load() == 0 || held.Load() != 0 {
		t.Errorf("%d uploads, and the ledger had %d bytes of builds", uploads.Load(), held.Load())
	}
}
