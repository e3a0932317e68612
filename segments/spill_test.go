package segments

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

func (r *rig) cool(id int64) bool {
	r.t.Helper()
	did, err := r.coll.Cool(id)
	must(r.t, err)
	return did
}

func (r *rig) statusOf(id int64) SegmentStatus {
	r.t.Helper()
	for _, st := range r.coll.Segments() {
		if st.ID == id {
			return st
		}
	}
	r.t.Fatalf("no segment %d", id)
	return SegmentStatus{}
}

func TestAColdSegmentShowsTheSame(t *testing.T) {
	r := newRig(t, rigOptions{})
	keys := seq(0, 3000)
	for i := len(keys) - 1; i > 0; i-- { // so that the order of the keys is not that of the rows
		j := (i * 7919) % (i + 1)
		keys[i], keys[j] = keys[j], keys[i]
	}
	r.insert(1, keys...)
	r.handOff(1)
	r.delete(5, 6, 7)
	before := r.statusOf(1)
	warm := r.coll.Acquire() // a reader that has it warm
	if !r.cool(1) {
		t.Fatal("it did not become cold")
	}
	if r.cool(1) || r.cool(99) {
		t.Error("it became cold twice, or one that is not there did")
	}
	after := r.statusOf(1)
	if after.MemoryBytes > before.MemoryBytes*2/3 || after.MappedBytes <= before.MappedBytes || after.DeletedRows != 3 {
		t.Errorf("warm %+v, cold %+v", before, after)
	}
	r.delete(8) // counts for both
	r.check(r.now)
	if got := warm.view.segments[0].hidden().newest(); got != r.now {
		t.Errorf("the warm one has deletes up to %d, want %d", got, r.now)
	}
	if k, _ := r.prices(QueryRequest{Read: Read{Plan: r.plan(`price in [100, 110, 80]`)}}); len(k) != 2 {
		t.Errorf("a filter finds %v", k)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir, "*", "scalars-*")); len(left) > 0 {
		t.Errorf("the mapped file has a name: %v", left)
	}
	// Either may be let go of first.
	r.coll.Release(1)
	if got := len(warm.view.segments[0].keyOrderOf(10)); got != 10 {
		t.Errorf("%d", got)
	}
	warm.Release()
}

// keyOrderOf lists the first keys in order, from memory that must still be there.
func (h *holder) keyOrderOf(n int) (keys []int64) {
	s := h.segment.(*Sealed)
	for i := range n {
		keys = append(keys, s.keys.Int[s.byKey(i)])
	}
	return keys
}

// textRig has a key of text, a JSON field and arrays of text.
func textRig(t *testing.T) *rig {
	return newRig(t, rigOptions{schema: &schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: idField, Name: "id", Type: schema.VarChar, PrimaryKey: true},
		{ID: priceField, Name: "m", Type: schema.JSON},
		{ID: colorField, Name: "tags", Type: schema.Array, Element: schema.VarChar, Nullable: true},
		{ID: vectorField, Name: "v", Type: schema.FloatVector, Dim: dim},
	}}})
}

// texts inserts n rows into a growing segment: about 100 bytes of text a row.
func (r *rig) texts(segment int64, n int) {
	r.t.Helper()
	b := &schema.Batch{Rows: n}
	for _, f := range r.o.schema.Columns() {
		c := schema.NewColumn(f, n)
		for i := range n {
			switch f.ID {
			case idField:
				c.Str = append(c.Str, fmt.Sprintf("key-%d-%08d", segment, i))
			case priceField:
				c.Str = append(c.Str, fmt.Sprintf(`{"number": %d, "text": "some text of number %d, which is a little longer"}`, i, i))
			case colorField:
				if c.Valid = append(c.Valid, i%5 != 0); i%5 != 0 {
					c.Str = append(c.Str, "tag", fmt.Sprint("tag-", i))
				}
				c.Offsets = append(c.Offsets, len(c.Str))
			case vectorField:
				c.Float = append(c.Float, vectorOf(int64(i), 0)...)
			}
		}
		b.Columns = append(b.Columns, c)
	}
	at := r.tick()
	must(r.t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
}

// TestTextOfAColdSegment: it is mapped, filters and orders find the same, and answers
// live on when the segment has gone.
func TestTextOfAColdSegment(t *testing.T) {
	r := textRig(t)
	const rows = 5000
	r.texts(1, rows)
	r.handOff(1)
	ask := func() (out []string) {
		t.Helper()
		for _, q := range []QueryRequest{
			{Read: Read{Plan: r.plan(`m["number"] < 200 and not array_contains(tags, "tag-7") and id like "key-1-%"`)}},
			{Page: true, Limit: 50, After: &Key{Str: "key-1-00000100"}},
			{Limit: 20, OrderBy: []Order{{FieldID: idField, Descending: true}}},
			{GroupBy: []int64{idField}, Aggregates: []Aggregate{{Func: Max, FieldID: idField}}, Limit: 30},
		} {
			q.OutputFields = []int64{idField, priceField, colorField}
			res, err := r.coll.Query(t.Context(), &q, func(b *schema.Batch, _ uint64) error {
				for _, c := range b.Columns {
					out = append(out, c.Str...)
				}
				return nil
			})
			must(t, err)
			if res.Last != nil {
				out = append(out, res.Last.Str)
			}
		}
		found := r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10, Read: Read{OutputFields: []int64{priceField, colorField}}})
		out = append(append(out, found.Keys.Str...), found.Fields[0].Str...)
		paged := r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 10, Page: &Paging{}})
		return append(out, paged.Last.Key.Str)
	}
	warm, was := ask(), r.statusOf(1)
	if !r.cool(1) {
		t.Fatal("it did not become cold")
	}
	r.idle()
	now := r.statusOf(1)
	t.Logf("bytes of heap a row: %d warm, %.2f cold", was.MemoryBytes/rows, float64(now.MemoryBytes)/rows)
	if was.MemoryBytes < 150*rows || now.MemoryBytes > rows+segmentBytes+fieldBytes {
		t.Errorf("%d bytes of heap warm, %d cold", was.MemoryBytes, now.MemoryBytes)
	}
	cold := ask()
	r.coll.Release(1)
	r.idle() // what an answer would alias is not mapped any more
	if len(cold) < 500 || !slices.Equal(warm, cold) {
		t.Errorf("%d texts warm, %d cold, and they differ", len(warm), len(cold))
	}
}

// TestTheHeapOfColdSegments: what the ledger says is what the heap has.
func TestTheHeapOfColdSegments(t *testing.T) {
	r := textRig(t)
	const segments, rows = 4, 10_000
	for s := int64(1); s <= segments; s++ {
		r.texts(s, rows)
		r.handOff(s)
	}
	r.idle()
	warm := liveHeap()
	said := r.set.Ledger().Used()[KindSealed]
	for s := int64(1); s <= segments; s++ {
		r.cool(s)
	}
	r.idle()
	freed, left := warm-liveHeap(), r.set.Ledger().Used()[KindSealed]
	t.Logf("a row: the ledger had %d bytes warm and has %.2f cold; the heap became %d smaller", said/segments/rows, float64(left)/segments/rows, freed/segments/rows)
	if freed < (said-left)*7/10 {
		t.Errorf("the heap became %d bytes smaller, the ledger %d", freed, said-left)
	}
}

// liveHeap is what garbage collection leaves on the heap.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC() // what pools let go of at the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestCoolingUnderReads(t *testing.T) {
	r := newRig(t, rigOptions{})
	for s := int64(1); s <= 6; s++ {
		r.insert(s, seq(s*100, s*100+50)...)
		r.handOff(s)
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for ctx.Err() == nil {
				sum := int64(0)
				_, err := r.coll.Query(ctx, &QueryRequest{Read: Read{OutputFields: []int64{idField}}}, func(b *schema.Batch, _ uint64) error {
					for _, k := range b.Columns[0].Int {
						sum += k
					}
					return nil
				})
				if want := int64(6*50*49/2 + 21*100*50); ctx.Err() == nil && (err != nil || sum != want) {
					t.Errorf("sum %d, %v; want %d", sum, err, want)
					return
				}
			}
		})
	}
	for s := int64(1); s <= 6; s++ {
		r.cool(s)
	}
	stop()
	readers.Wait()
}

func TestTheColdestIsCooledFirst(t *testing.T) {
	r := newRig(t, rigOptions{memory: 1 << 30})
	for s := int64(1); s <= 3; s++ {
		r.insert(s, seq(s*1000, s*1000+500)...)
		r.handOff(s)
	}
	r.idle()
	for _, s := range []int64{2, 1, 3} { // the order in which they were read last
		_, err := r.coll.Query(t.Context(), &QueryRequest{Read: Read{Plan: r.plan(fmt.Sprintf("id == %d", s*1000))}}, func(*schema.Batch, uint64) error { return nil })
		must(t, err)
	}
	l := r.set.Ledger()
	for want := 1; want <= 3; want++ {
		l.limit.Store(l.Total() * 100 / (coolAt + 2)) // just short, until one is cold
		must(t, r.set.coolColdest(t.Context()))
		var cold []int64
		for _, s := range []int64{2, 1, 3} {
			if r.statusOf(s).Cold {
				cold = append(cold, s)
			}
		}
		if len(cold) < want || cold[0] != 2 {
			t.Fatalf("cold are %v", cold)
		}
	}
	l.limit.Store(1 << 30)
}

func TestTheLedgerBelievesTheProcess(t *testing.T) {
	l := NewLedger(1000)
	r, err := l.Reserve(KindGrowing, 100)
	must(t, err)
	if l.Above(50) {
		t.Error("above the half at a tenth")
	}
	l.Observe(850, 1000) // much that the ledger does not know of
	must(t, r.Grow(100))
	if err := r.Grow(100); !errclass.Is(err, errclass.Exhausted) {
		t.Fatalf("%v, want class Exhausted", err)
	}
	if !l.Above(50) {
		t.Error("not above the half")
	}
	l.Force(KindDeletes, 500).Release() // deletes pass
	l.Observe(300, 1000)                // it was garbage
	must(t, r.Grow(100))
	r.Release()
	if l.Total() != 0 || l.Refused() != 1 {
		t.Errorf("%d bytes, %d refused", l.Total(), l.Refused())
	}
}
