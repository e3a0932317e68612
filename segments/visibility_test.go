package segments

import (
	"fmt"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// history writes inserts, deletes and upserts of few keys, so that they meet.
func history(r *rig) {
	r.insert(1, 1, 2, 3, 4)
	r.delete(2, 99)
	r.insert(1, 2, 5) // inserted again after its delete
	r.upsert(1, 1, 3, 6)
	r.delete(3)
	r.upsert(1, 2, 3, 3, 4) // the same key twice in one message: the last counts
	r.insert(1, 5)          // twice without a delete
	r.delete(5, 5)
	r.insert(1, 7, 7)
}

func TestADeleteHidesOlderRowsFromItsTimestampOn(t *testing.T) {
	t.Run("growing", func(t *testing.T) {
		r := newRig(t, rigOptions{})
		history(r)
		r.checkAlways()
	})
	t.Run("sealed", func(t *testing.T) {
		r := newRig(t, rigOptions{})
		history(r)
		r.handOff(1)
		if st := r.status(1).State; st != "loaded" {
			t.Fatalf("segment is %s", st)
		}
		r.checkAlways()
		r.upsert(2, 3, 1, 7)
		r.delete(4)
		r.checkAlways()
	})
	t.Run("half and half", func(t *testing.T) {
		r := newRig(t, rigOptions{})
		history(r)
		r.insert(2, 10, 11)
		r.seal(1)
		r.upload(1)
		r.delete(1, 10) // between upload and load: from the buffer
		r.insert(2, 1)
		must(t, r.load(1))
		r.delete(7)
		r.checkAlways()
	})
}

func TestDeletesLimitedToAPartition(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.put(1, seq(0, 4), 0, false, 7)
	r.put(2, seq(10, 14), 0, false, 8)
	r.deleteIn(7, 1, 11)
	r.deleteIn(8, 2, 12)
	r.checkAlways()
	r.handOff(1)
	r.deleteIn(8, 3)
	r.checkAlways()
}

func TestAnEarlierDeleteThatComesLaterCounts(t *testing.T) {
	d := newDeletes(100, nil)
	d.apply([]hiddenRow{{ts: 50, row: 1}, {ts: 40, row: 2}})
	d.apply([]hiddenRow{{ts: 30, row: 1}, {ts: 60, row: 2}, {ts: 45, row: 3}})
	d.apply([]hiddenRow{{ts: 70, row: 4}, {ts: 70, row: 3}})
	want := map[uint32]uint64{1: 30, 2: 40, 3: 45, 4: 70}
	s := d.state.Load()
	for _, h := range s.entries {
		if want[h.row] != h.ts {
			t.Errorf("row %d is hidden from %d on, want %d", h.row, h.ts, want[h.row])
		}
		if !s.hides(h.row) {
			t.Errorf("row %d is not in the bitmap", h.row)
		}
	}
	if len(s.entries) != len(want) || !slices.IsSortedFunc(s.entries, func(a, b hiddenRow) int { return int(a.ts) - int(b.ts) }) {
		t.Errorf("entries %v", s.entries)
	}
}

// TestAStateDoesNotChangeUnderAReader: later deletes share memory with the state
// that a reader holds, and must not show in it.
func TestAStateDoesNotChangeUnderAReader(t *testing.T) {
	d := newDeletes(1000, nil)
	var states []*deleteState
	for i := range uint32(500) {
		states = append(states, d.state.Load())
		ts := uint64(1000 + i)
		if i%7 == 0 {
			ts = uint64(10 + i) // out of order
		}
		d.apply([]hiddenRow{{ts: ts, row: i}})
	}
	for i, s := range states {
		if len(s.entries) != i || (s.hidden != nil && s.hidden.Count() != i) {
			t.Fatalf("state %d now hides %d rows", i, len(s.entries))
		}
	}
}

func TestDeltasAndBufferOutOfOrder(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	early := r.delete(1, 2)
	late := r.delete(1, 2, 3)
	r.seal(1)
	r.upload(1)
	// The files come newest first.
	delta := func(ts uint64, keys ...int64) Delta {
		return r.delta(fmt.Sprintf("deltas/%d", ts), deletesAt(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: keys}, ts))
	}
	files := []Delta{delta(late, 1, 2, 3), delta(early, 1, 2)}
	r.ch.TrimDeletes(r.now)
	must(t, r.load(1, files...))
	r.checkAlways()
}

// TestTextKeys: the same rules for keys that are texts.
func TestTextKeys(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: idField, Name: "name", Type: schema.VarChar, PrimaryKey: true},
		{ID: vectorField, Name: "v", Type: schema.FloatVector, Dim: dim},
	}}
	r := newRig(t, rigOptions{schema: s})
	put := func(segment int64, upsert bool, names ...string) {
		b := &schema.Batch{Rows: len(names), Columns: []*schema.Column{
			{FieldID: idField, Type: schema.VarChar, Str: names}, {FieldID: vectorField, Type: schema.FloatVector, Dim: dim}}}
		for i := range names {
			b.Columns[1].Float = append(b.Columns[1].Float, vectorOf(int64(i), 0)...)
		}
		at := r.tick()
		must(t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: b, Upsert: upsert}, at))
		r.ch.Advance(at)
	}
	names := func(q QueryRequest) (out []string) {
		q.OutputFields = []int64{idField}
		_, err := r.coll.Query(t.Context(), &q, func(b *schema.Batch, _ uint64) error {
			out = append(out, b.Columns[0].Str...)
			return nil
		})
		must(t, err)
		return out
	}
	put(1, false, "zoe", "ann", "bob", "")
	put(1, true, "bob", "eve")
	at := r.tick()
	r.ch.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.VarChar, Str: []string{"ann", "nobody"}}, at)
	r.ch.Advance(at)
	check := func(when string) {
		t.Helper()
		if got := names(QueryRequest{}); !slices.Equal(got, []string{"", "bob", "eve", "zoe"}) {
			t.Fatalf("%s: %q", when, got)
		}
		if got := names(QueryRequest{Read: Read{Plan: r.plan(`name in ["zoe", "ann", "eve"]`)}}); !slices.Equal(got, []string{"eve", "zoe"}) {
			t.Fatalf("%s, by key: %q", when, got)
		}
		res := r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10})
		if slices.Sort(res.Keys.Str); !slices.Equal(res.Keys.Str, []string{"", "bob", "eve", "zoe"}) {
			t.Fatalf("%s, search: %q", when, res.Keys.Str)
		}
	}
	check("growing")
	r.handOff(1)
	check("sealed")
	put(2, true, "zoe")
	put(2, false, "eve") // in two segments without a delete
	check("both")
}

func TestRowsOfAFlushedSegmentAreDroppedInAReplay(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1, 2)
	r.upsert(2, 1, 2, 3)
	r.insert(1, 4)
	r.handOff(2)
	r.check(r.now)
	// The node starts again: the catalog has segment 2, its rows come again.
	r.coll.Unwatch("v")
	r.coll.Release(2)
	var err error
	r.ch, err = r.coll.Watch("v", Position{Timestamp: 1000}, map[int64]uint64{2: Latest})
	must(t, err)
	replay := func(segment int64, ts uint64, version int64, upsert bool, keys ...int64) {
		at := Position{Timestamp: ts}
		must(t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: r.batch(keys, version), Upsert: upsert}, at))
		r.ch.Advance(at)
	}
	replay(1, 1010, 0, false, 1, 2)
	replay(2, 1020, 1, true, 2, 3)
	replay(1, 1030, 0, false, 4)
	r.ch.Advance(Position{Timestamp: r.now})
	if keys, _ := r.prices(QueryRequest{}); !slices.Equal(keys, []int64{1, 4}) {
		t.Fatalf("before the load: %v; the upsert's delete of 2 counts, its rows are not here yet", keys)
	}
	must(t, r.load(2))
	r.checkAlways()
	if got := len(r.coll.Segments()); got != 2 {
		t.Fatalf("%d segments, want 2: no growing copy of the flushed one", got)
	}
}

func TestMessagesAreAppliedOnce(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, 1)
	again := Position{Timestamp: r.now}
	must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: r.batch([]int64{2}, 0)}, again))
	r.ch.ApplyDeletes(0, &schema.Column{FieldID: idField, Type: schema.Int64, Int: []int64{1}}, again)
	r.ch.ApplySeal([]int64{1}, again)
	r.check(r.now)
	if r.status(1).State != "growing" {
		t.Fatal("sealed by a message that was applied before")
	}
}

func TestNewestOfDuplicatesInSeveralSegments(t *testing.T) {
	r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: index.L2}})
	r.insert(1, seq(0, 20)...)
	r.put(2, seq(0, 10), 5, false)
	r.check(r.now)
	r.handOff(1)
	r.check(r.now)
	// The old version is the nearest, and both are found: the new one is returned.
	res := r.found(SearchRequest{Vectors: vectorOf(3, 0), TopK: 20, Read: Read{OutputFields: []int64{priceField}}})
	if len(res.Keys.Int) != 20 {
		t.Fatalf("%d hits", len(res.Keys.Int))
	}
	for i, k := range res.Keys.Int {
		want := k * 10
		if k < 10 {
			want += 5
		}
		if res.Fields[0].Int[i] != want {
			t.Fatalf("key %d has price %d, want %d", k, res.Fields[0].Int[i], want)
		}
	}
	if !slices.IsSorted(res.Scores) {
		t.Fatalf("scores out of order: %v", res.Scores)
	}
}

// TestNewestOfDuplicatesInOneSegment: the newer row is far from the query and
// still the only one.
func TestNewestOfDuplicatesInOneSegment(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 50)...)
	r.put(1, []int64{3}, 5, false)
	check := func() {
		t.Helper()
		res := r.found(SearchRequest{Vectors: vectorOf(3, 0), TopK: 50})
		if len(res.Keys.Int) != 50 || res.Keys.Int[0] == 3 {
			t.Fatalf("hits %v: the old row of key 3 must not be there", res.Keys.Int)
		}
		old := r.found(SearchRequest{Vectors: vectorOf(3, 0), TopK: 1, Read: Read{ReadTimestamp: 1015}})
		if old.Keys.Int[0] != 3 {
			t.Fatal("before the second insert the first row is there")
		}
	}
	check()
	r.handOff(1)
	check()
	r.checkAlways()
}
