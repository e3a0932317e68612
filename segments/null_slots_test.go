package segments

import (
	"cmp"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// sparseRows inserts rows of which only those of has have a vector.
func (r *rig) sparseRows(segment int64, keys []int64, has func(int64) bool) {
	r.t.Helper()
	b := r.batch(keys, 0)
	v := b.Columns[slices.IndexFunc(b.Columns, func(c *schema.Column) bool { return c.FieldID == vectorField })]
	for i, k := range keys {
		v.Valid = append(v.Valid, has(k))
		if !has(k) {
			clear(v.Float[i*dim : (i+1)*dim])
		}
	}
	at := r.tick()
	must(r.t, r.ch.ApplyRows(Rows{SegmentID: segment, PartitionID: 7, Batch: b}, at))
	r.ch.Advance(at)
}

// nearestOf lists the k keys in [0, n) that are nearest to a query among those that count.
func nearestOf(query []float32, k int, n int64, counts func(int64) bool) (keys []int64) {
	for key := range n {
		if counts(key) {
			keys = append(keys, key)
		}
	}
	far := map[int64]float32{}
	for _, key := range keys {
		for i, x := range vectorOf(key, 0) {
			far[key] += (x - query[i]) * (x - query[i])
		}
	}
	slices.SortFunc(keys, func(a, b int64) int { return cmp.Compare(far[a], far[b]) })
	return keys[:min(k, len(keys))]
}

// TestRowsWithoutAVectorAreBesideTheIndex: a field with nulls is searched by its index,
// which finds what is nearest of the rows that have a vector and never one that has none,
// with a filter, within a distance, as a page and in groups; so it is after a compaction.
func TestRowsWithoutAVectorAreBesideTheIndex(t *testing.T) {
	sc := items()
	sc.Fields[3].Nullable = true
	const rows = 3000
	// A piece of rows without any, as when the field has just been added, and some everywhere.
	has := func(k int64) bool { return k%1500 > 300 && k%7 != 0 }
	for _, typ := range []index.Kind{index.KindHNSW, index.KindHNSWSQ, index.KindScaNN} {
		t.Run(string(typ), func(t *testing.T) {
			r := newRig(t, rigOptions{schema: sc, index: VectorIndex{Type: string(typ), Metric: index.L2}})
			r.sparseRows(1, seq(0, rows/2), has)
			r.sparseRows(2, seq(rows/2, rows), has)
			r.handOff(1)
			r.handOff(2)
			for _, id := range []int64{1, 2} {
				if got := r.indexed(id); got != typ {
					t.Fatalf("the index of segment %d is %q", id, got)
				}
			}
			r.nearestWithVectors(t, rows, has)
			r.rewrite(10, 0, 0, 1, 2)
			must(t, r.swapFor(10, 1, 2))
			if got := r.indexed(10); got != typ {
				t.Fatalf("the index of the new segment is %q", got)
			}
			r.nearestWithVectors(t, rows, has)
			keys, vectors := r.vectorsOfAll()
			for i, k := range keys {
				v := vectors.Float[i*dim : (i+1)*dim]
				if vectors.Null(i) == has(k) || has(k) && !slices.Equal(v, vectorOf(k, 0)) || !has(k) && !slices.Equal(v, make([]float32, dim)) {
					t.Fatalf("key %d has %v, null: %v", k, v, vectors.Null(i))
				}
			}
			if len(keys) != rows {
				t.Errorf("%d rows, want %d", len(keys), rows)
			}
		})
	}
}

// indexed is the kind of index that a segment has over its vectors.
func (r *rig) indexed(segment int64) index.Kind {
	r.t.Helper()
	snap := r.coll.Acquire()
	defer snap.Release()
	return r.sealedIn(snap, segment).vectors[0].info.Kind
}

// nearestWithVectors compares searches with the keys that are nearest.
func (r *rig) nearestWithVectors(t *testing.T, rows int64, has func(int64) bool) {
	t.Helper()
	const k = 10
	found, wanted := 0, 0
	compare := func(what string, res *SearchResult, want []int64) {
		t.Helper()
		for _, key := range res.Keys.Int {
			if !has(key) {
				t.Fatalf("%s: key %d has no vector", what, key)
			}
			if slices.Contains(want, key) {
				found++
			}
		}
		if len(res.Keys.Int) != len(want) {
			t.Errorf("%s: %d rows, want %d", what, len(res.Keys.Int), len(want))
		}
		wanted += len(want)
	}
	for q := range int64(10) {
		query := vectorOf(q*91, 1)
		res := r.found(SearchRequest{Vectors: query, TopK: k})
		compare("search", res, nearestOf(query, k, rows, has))
		few := func(key int64) bool { return has(key) && key*10 < 9000 }
		compare("filter", r.found(SearchRequest{Vectors: query, TopK: k, Read: Read{Plan: r.plan("price < 9000")}}), nearestOf(query, k, rows, few))
		compare("groups", r.found(SearchRequest{Vectors: query, TopK: k, Group: &Grouping{FieldID: priceField, Size: 1}}), nearestOf(query, k, rows, has))
		compare("page", r.found(SearchRequest{Vectors: query, TopK: k, Page: &Paging{}}), nearestOf(query, k, rows, has))
	}
	if found < wanted*95/100 {
		t.Errorf("recall %.3f", float64(found)/float64(wanted))
	}
	all := int(rows)
	if res := r.found(SearchRequest{Vectors: vectorOf(1, 1), TopK: all}); len(res.Keys.Int) > len(nearestOf(vectorOf(1, 1), all, rows, has)) {
		t.Errorf("%d rows are found", len(res.Keys.Int))
	}
}

// vectorsOfAll reads all keys with their vectors.
func (r *rig) vectorsOfAll() (keys []int64, vectors *schema.Column) {
	r.t.Helper()
	_, err := r.coll.Query(r.t.Context(), &QueryRequest{Read: Read{OutputFields: []int64{idField, vectorField}}}, func(b *schema.Batch, _ uint64) error {
		for _, c := range b.Columns {
			if c.FieldID == idField {
				keys = append(keys, c.Int...)
				continue
			}
			if vectors == nil {
				vectors = c.New()
			}
			vectors.AppendRange(c, 0, c.Rows())
		}
		return nil
	})
	must(r.t, err)
	return keys, vectors
}

// TestFewVectorsAreCompared one by one: there is no index over them.
func TestFewVectorsAreCompared(t *testing.T) {
	sc := items()
	sc.Fields[3].Nullable = true
	r := newRig(t, rigOptions{schema: sc, index: VectorIndex{Type: "HNSW", Metric: index.L2}})
	r.sparseRows(1, seq(0, 2000), func(k int64) bool { return k%20 == 0 })
	r.handOff(1)
	res := r.found(SearchRequest{Vectors: vectorOf(1, 1), TopK: 200})
	if kind := r.indexed(1); kind != "" || len(res.Keys.Int) != 100 {
		t.Errorf("%d rows by %q", len(res.Keys.Int), kind)
	}
}

// TestPlacesWithoutAVectorAreSpread over rows that have one, of the same batch or
// of the last that had some; what was given is not changed.
func TestPlacesWithoutAVectorAreSpread(t *testing.T) {
	s := &nullSlots{floats: donors[float32]{width: 1}}
	bytes := &nullSlots{raw: donors[byte]{width: 1}}
	col := func(values ...float32) *schema.Column { // 0 = null
		c := &schema.Column{Type: schema.FloatVector, Dim: 1, Float: values}
		for _, v := range values {
			c.Valid = append(c.Valid, v != 0)
		}
		return c
	}
	for i, c := range []struct{ in, want []float32 }{
		{[]float32{0, 0}, []float32{0, 0}},
		{[]float32{0, 7, 0, 8, 0, 0}, []float32{7, 7, 8, 8, 7, 8}},
		{[]float32{0, 0, 0}, []float32{7, 8, 7}},
		{[]float32{9}, []float32{9}},
		{[]float32{0, 0}, []float32{9, 9}},
	} {
		before := col(slices.Clone(c.in)...)
		got := s.fill(before, len(c.in))
		slices.Sort(got.Float)
		slices.Sort(c.want)
		if !slices.Equal(got.Float, c.want) || len(c.in) > 1 && !slices.Equal(before.Float, c.in) {
			t.Errorf("%d: %v of %v, want %v", i, got.Float, before.Float, c.want)
		}
		narrow := &schema.Column{Type: schema.Int8Vector, Dim: 1, Valid: before.Valid}
		for _, x := range c.in {
			narrow.Raw = append(narrow.Raw, byte(x))
		}
		raw := bytes.fill(narrow, len(c.in)).Raw
		slices.Sort(raw)
		for at, x := range raw {
			if float32(x) != c.want[at] {
				t.Errorf("%d: of bytes %v, want %v", i, raw, c.want)
			}
		}
	}
	if s.rows != 14 || s.nulls != 11 || s.enough() {
		t.Errorf("%d of %d rows are null", s.nulls, s.rows)
	}
	if s.fill(col(1, 2, 3, 4, 5, 6, 7), 7); s.enough() {
		t.Errorf("%d null rows of %d are few", s.nulls, s.rows)
	}
	if s.fill(col(1), 1); !s.enough() {
		t.Errorf("%d null rows of %d are many", s.nulls, s.rows)
	}
}
