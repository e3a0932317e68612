package segments

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// source opens an uploaded segment, rows of which are no older than since, for a
// rewrite, and applies the deletes so far.
func (r *rig) source(segment int64, since uint64) *Source {
	r.t.Helper()
	dir := filepath.Join(r.t.TempDir(), fmt.Sprint("source-", segment))
	must(r.t, os.Mkdir(dir, 0o755))
	from := fmt.Sprintf("segments/%d", segment)
	m, err := segfile.ParseManifest(r.read(path.Join(from, segfile.ManifestName)))
	must(r.t, err)
	for _, name := range append(m.FileNames(), segfile.ManifestName) {
		must(r.t, os.WriteFile(filepath.Join(dir, name), r.read(path.Join(from, name)), 0o644))
	}
	s, err := r.coll.OpenSource(r.t.Context(), dir, since)
	must(r.t, err)
	for _, d := range r.deletes {
		must(r.t, s.ApplyDeletes(&DeleteBatch{Partition: d.partition, Timestamps: []uint64{d.ts},
			Keys: &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{d.key}}}))
	}
	return s
}

// rewrite merges segments into a new one in the bucket; it returns how many rows
// were dropped and kept.
func (r *rig) rewrite(to int64, horizon, expired uint64, from ...int64) (dropped, kept int) {
	r.t.Helper()
	var sources []*Source
	for _, id := range from {
		sources = append(sources, r.source(id, 0))
	}
	m, err := Merge(r.coll.Info(), sources, horizon, expired)
	must(r.t, err)
	if m.Rows() > 0 {
		r.uploadRows(BuildOptions{Meta: Meta{ID: to, CollectionID: 1, PartitionID: sources[0].Meta().PartitionID, VChannel: "v"},
			Info: r.coll.Info(), Deletes: m.Deletes()}, m.Next)
	}
	for _, s := range sources {
		must(r.t, s.Close())
	}
	return m.Dropped, m.Rows()
}

func (r *rig) swapFor(to int64, drop ...int64) error {
	return r.coll.Replace(r.t.Context(), "v", []LoadRequest{{SegmentID: to, VChannel: "v", Path: fmt.Sprintf("segments/%d", to)}}, drop)
}

// sameAt compares what a read at a moment sees with the model.
func (r *rig) sameAt(ts uint64) {
	r.t.Helper()
	want := r.visible(ts)
	keys, prices := r.prices(QueryRequest{Read: Read{ReadTimestamp: ts}})
	if len(keys) != len(want) {
		r.t.Fatalf("at %d: got keys %v, want %d of them", ts, keys, len(want))
	}
	for i, k := range keys {
		if want[k].price != prices[i] {
			r.t.Fatalf("at %d: key %d has price %d, want %d", ts, k, prices[i], want[k].price)
		}
	}
}

func TestMergedSegmentsShowTheSameAtEveryRetainedMoment(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2, 3, 4, 5)
	r.upsert(1, 1, 2)
	r.handOff(1)
	r.delete(3)
	horizon := r.now
	r.insert(2, 6, 7, 8)
	r.upsert(2, 2, 1, 4)
	r.delete(7)
	r.handOff(2)
	last := r.delete(5)
	before := r.now
	r.insert(3, 9)

	dropped, kept := r.rewrite(10, horizon, 0, 1, 2)
	if dropped != 2 || kept != 9 { // 2 of the first version, and 3
		t.Errorf("%d rows dropped, %d kept; want 2 and 9", dropped, kept)
	}
	old, unhook := r.coll.Acquire(), last
	must(t, r.swapFor(10, 1, 2))
	r.delete(8) // after the merge
	for ts := horizon; ts <= r.now; ts += 5 {
		r.sameAt(ts)
	}
	r.sameAt(unhook)
	if got := ids(old); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("a snapshot from before holds %v", got)
	}
	old.Release()
	snap := r.coll.Acquire()
	defer snap.Release()
	if got := ids(snap); !slices.Equal(got, []int64{3, 10}) {
		t.Errorf("segments after the merge: %v", got)
	}
	_ = before
}

func ids(s *Snapshot) (list []int64) {
	for _, h := range s.view.segments {
		list = append(list, h.Meta().ID)
	}
	return list
}

func TestExpiredRowsAreInvisibleAndDropped(t *testing.T) {
	r := newRig(t, rigOptions{})
	info := r.info()
	info.TTL = 100 * time.Millisecond
	r.coll.Update(info)
	age := uint64(100) << logicalBits
	r.now = 50 << logicalBits
	r.insert(1, 1, 2)
	first := r.now
	r.insert(1, 3)
	second := r.now
	r.insert(2, 4)
	r.handOff(1)
	see := func(ts uint64) []int64 {
		r.ch.Advance(Position{ID: "x", Timestamp: ts})
		keys, _ := r.prices(QueryRequest{Read: Read{ReadTimestamp: ts}})
		found, err := r.coll.Search(t.Context(), &SearchRequest{Read: Read{ReadTimestamp: ts}, FieldID: vectorField, Vectors: vectorOf(1, 0), NQ: 1, TopK: 10})
		must(t, err)
		if len(found.Scores) != len(keys) {
			t.Errorf("at %d a search finds %d rows, a query %d", ts, len(found.Scores), len(keys))
		}
		return keys
	}
	for _, c := range []struct {
		at   uint64
		want []int64
	}{{first + age - 1, []int64{1, 2, 3, 4}}, {first + age, []int64{3, 4}}, {second + age, []int64{4}}, {second + 2*age, nil}} {
		if got := see(c.at); !slices.Equal(got, c.want) {
			t.Errorf("at %d: %v, want %v", c.at, got, c.want)
		}
	}
	if dropped, kept := r.rewrite(10, second, first, 1); dropped != 2 || kept != 1 {
		t.Errorf("%d rows dropped, %d kept; want 2 and 1", dropped, kept)
	}
	if g := r.coll.Garbage(second, first)[1]; g.Rows != 3 || g.Gone != 2 {
		t.Errorf("garbage %+v, want 2 of 3 rows", g)
	}
}

// TestReplacingUnderReads merges again and again while readers look: each sees
// every row once.
func TestReplacingUnderReads(t *testing.T) {
	r := newRig(t, rigOptions{})
	for s := int64(1); s <= 4; s++ {
		for k := range int64(50) {
			r.insert(s, s*100+k)
		}
		r.handOff(s)
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				var keys []int64
				res, err := r.coll.Query(ctx, &QueryRequest{Read: Read{OutputFields: []int64{idField}}}, func(b *schema.Batch, _ uint64) error {
					keys = append(keys, b.Columns[0].Int...)
					return nil
				})
				if ctx.Err() != nil {
					return
				}
				if err != nil || len(keys) != 200 || res.Stats.SearchedShare != 1 {
					t.Errorf("%d rows, %v, share %v", len(keys), err, res)
					return
				}
			}
		})
	}
	r.rewrite(11, 0, 0, 1, 2)
	must(t, r.swapFor(11, 1, 2))
	r.rewrite(12, 0, 0, 3, 11)
	must(t, r.swapFor(12, 3, 11))
	r.rewrite(13, 0, 0, 12, 4)
	must(t, r.swapFor(13, 12, 4))
	stop()
	readers.Wait()
}

func TestWhatTheCatalogHasInOthersIsSuperseded(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	r.handOff(1)
	r.insert(2, 2)
	flushed := r.now
	r.seal(2)
	middle := r.now
	r.insert(3, 3)
	for _, c := range []struct {
		name       string
		listed     []int64
		checkpoint uint64
		want       []int64
	}{
		{"all is listed, or still growing", []int64{1}, flushed - 10, nil},
		{"a sealed one is not listed", nil, flushed - 10, []int64{1}},
		{"a growing one is behind the checkpoint", []int64{1, 9}, middle, []int64{2}},
		{"one that grows begins at the checkpoint", []int64{1, 2}, middle, nil},
	} {
		var got []int64
		for _, o := range r.ch.Superseded(c.listed, c.checkpoint) {
			got = append(got, o.ID)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	// A replacement that cannot be loaded changes nothing.
	wantClass(t, r.swapFor(77, 1), errclass.NotFound)
	r.sameAt(r.now)
	// Nothing may be left of them: then they only go.
	must(t, r.coll.Replace(t.Context(), "v", nil, []int64{1, 2}))
	if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, []int64{3}) {
		t.Errorf("left are %v", keys)
	}
}

// TestRowsOfASegmentThatWasAddedAreAsOldAsItsArrival: to reads, deletes and merges,
// but for what the segment says itself of its rows.
func TestRowsOfASegmentThatWasAddedAreAsOldAsItsArrival(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2, 3, 4)
	r.upsert(1, 4)
	early := r.now
	r.delete(3)
	r.handOff(1)
	r.rewrite(10, 0, 0, 1) // says itself that 3 and a row of 4 are hidden
	must(t, r.coll.Replace(t.Context(), "v", nil, []int64{1}))
	since := r.delete(1)
	admitted := 0
	must(t, r.coll.Load(t.Context(), LoadRequest{SegmentID: 10, VChannel: "v", Path: "segments/10", Admit: func(context.Context) (uint64, error) {
		admitted++
		return since, nil
	}}))
	see := func(ts uint64, want ...int64) {
		t.Helper()
		if keys, _ := r.prices(QueryRequest{Read: Read{ReadTimestamp: ts}}); !slices.Equal(keys, want) {
			t.Errorf("at %d: %v, want %v", ts, keys, want)
		}
	}
	see(early)
	see(since - 1)
	see(since, 1, 2, 4)
	last := r.delete(2)
	see(last-1, 1, 2, 4)
	see(last, 1, 4)
	for _, s := range r.coll.Segments() {
		if s.MinTimestamp != since || s.MaxTimestamp != since {
			t.Errorf("its rows are from %d to %d, want %d", s.MinTimestamp, s.MaxTimestamp, since)
		}
	}
	// A merge has rows that are as old as they count, and none that no read can see.
	s := r.source(10, since)
	m, err := Merge(r.coll.Info(), []*Source{s}, 0, 0)
	must(t, err)
	b, err := m.Next()
	must(t, err)
	if got := b.Column(idField).Int; !slices.Equal(got, []int64{1, 2, 4}) || slices.Min(b.Timestamps) != since {
		t.Errorf("keys %v at %v are kept", got, b.Timestamps)
	}
	must(t, s.Close())
	if admitted != 1 {
		t.Errorf("admitted %d times", admitted)
	}
	// What is not admitted is not loaded.
	refused := LoadRequest{SegmentID: 10, VChannel: "v", Path: "segments/10", Admit: func(context.Context) (uint64, error) {
		return 0, errclass.New(errclass.Conflict, "no")
	}}
	r.coll.Release(10)
	wantClass(t, r.coll.Load(t.Context(), refused), errclass.Conflict)
	see(last)
}

// TestNumbersThatAreNotFiniteComeInWithNoSegment that is added; one that the catalog has already is served.
func TestNumbersThatAreNotFiniteComeInWithNoSegment(t *testing.T) {
	sc := items()
	sc.Fields[2] = schema.Field{ID: colorField, Name: "ratio", Type: schema.Double}
	r := newRig(t, rigOptions{schema: sc})
	b := r.batch([]int64{1, 2}, 0)
	b.Column(colorField).Str, b.Column(colorField).Valid, b.Column(colorField).Double = nil, nil, []float64{1, math.NaN()}
	b.Timestamps = []uint64{1, 1}
	rest := []*schema.Batch{b}
	r.uploadRows(BuildOptions{Meta: Meta{ID: 10, CollectionID: 1, PartitionID: 7, VChannel: "v"}, Info: r.coll.Info()}, func() (*schema.Batch, error) {
		if len(rest) == 0 {
			return nil, io.EOF
		}
		b := rest[0]
		rest = nil
		return b, nil
	})
	load := LoadRequest{SegmentID: 10, VChannel: "v", Path: "segments/10", Admit: func(context.Context) (uint64, error) {
		t.Error("it is in the catalog")
		return 0, nil
	}}
	err := r.coll.Load(t.Context(), load)
	wantClass(t, err, errclass.Invalid)
	if !strings.Contains(err.Error(), `field "ratio": row 1 is NaN`) {
		t.Errorf("got %v", err)
	}
	load.Admit = nil
	must(t, r.coll.Load(t.Context(), load))
}

// TestRowsAreMergedByBytes: 4,096 of 4,096 values each would be 64 MiB that nobody has reserved.
func TestRowsAreMergedByBytes(t *testing.T) {
	of := func(dims ...int) *Merged {
		m := &Merged{fields: []schema.Field{{ID: 100, Type: schema.Int64}}}
		for _, d := range dims {
			m.fields = append(m.fields, schema.Field{Type: schema.FloatVector, Dim: d})
		}
		return m
	}
	for _, c := range []struct {
		m    *Merged
		want int
	}{{of(), mergeRows}, {of(128), mergeRows}, {of(4096), 511}, {of(4096, 4096), 255}, {of(1 << 30), 1}} {
		if got := c.m.step(); got != c.want {
			t.Errorf("%d fields: %d rows at a time, want %d", len(c.m.fields), got, c.want)
		}
	}
}
