package segments

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/index"
)

// score is what users see: computed in float64, in the plain way.
func score(m index.Metric, a, b []float32) float64 {
	var dot, l2, na, nb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot += x * y
		l2 += (x - y) * (x - y)
		na += x * x
		nb += y * y
	}
	switch m {
	case index.L2:
		return l2
	case index.IP:
		return dot
	}
	return dot / math.Sqrt(na*nb)
}

// nearest is the model's answer: the visible rows that keep accepts, nearest first.
func (r *rig) nearest(query []float32, k int, at uint64, keep func(modelRow, float32) bool) []modelRow {
	m := r.o.index.Metric
	var all []modelRow
	for _, row := range r.visible(at) {
		if keep == nil || keep(row, float32(score(m, query, row.v))) {
			all = append(all, row)
		}
	}
	slices.SortFunc(all, func(a, b modelRow) int {
		x, y := score(m, query, a.v), score(m, query, b.v)
		if m != index.L2 {
			x, y = -x, -y
		}
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a.key, b.key))
	})
	return all[:min(k, len(all))]
}

// plans are filters and what they mean.
var plans = []struct {
	text string
	keep func(modelRow) bool
}{
	{"", func(modelRow) bool { return true }},
	{"price < 300", func(r modelRow) bool { return r.price < 300 }},
	{"color == 'red' or price >= 500", func(r modelRow) bool { return r.color == "red" || r.price >= 500 }},
	{"color is null", func(r modelRow) bool { return r.color == "" }},
	{"id in [3, 17, 40, 77]", func(r modelRow) bool { return slices.Contains([]int64{3, 17, 40, 77}, r.key) }},
	{"id in [3, 17, 40, 77] and price < 300", func(r modelRow) bool {
		return slices.Contains([]int64{3, 17, 40, 77}, r.key) && r.price < 300
	}},
	{"id == 5", func(r modelRow) bool { return r.key == 5 }},
	{"price > 100000", func(r modelRow) bool { return false }},
}

// TestSearchAndQueryAgainstTheModel: random segments, deletes, upserts, hand-offs
// and reads; with FLAT every answer is exact.
func TestSearchAndQueryAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.L2, index.IP, index.Cosine}).Draw(rt, "metric")
		r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: metric}})
		defer r.close() // here, not at the end of the test: there are many
		keys := rapid.SliceOfNDistinct(rapid.Int64Range(0, 99), 1, 25, rapid.ID[int64])
		open, next := int64(1), int64(2)
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			switch rapid.SampledFrom([]string{"insert", "upsert", "delete", "hand off", "next"}).Draw(rt, "step") {
			case "insert":
				r.insertNew(open, keys.Draw(rt, "keys"))
			case "upsert":
				r.upsert(open, rapid.Int64Range(1, 9).Draw(rt, "version"), keys.Draw(rt, "keys")...)
			case "delete":
				r.delete(keys.Draw(rt, "keys")...)
			case "hand off":
				if slices.ContainsFunc(r.rows, func(row modelRow) bool { return row.segment == open }) {
					r.handOff(open)
					open, next = next, next+1
				}
			case "next":
				open, next = next, next+1
			}
		}
		for range 6 {
			r.compare(rt)
		}
	})
}

// insertNew inserts those keys that are not there: an insert does not replace
// rows of other segments.
func (r *rig) insertNew(segment int64, keys []int64) {
	have := r.visible(r.now)
	keys = slices.DeleteFunc(slices.Clone(keys), func(k int64) bool { _, ok := have[k]; return ok })
	if len(keys) > 0 {
		r.insert(segment, keys...)
	}
}

// compare draws a read and compares its answer with the model's.
func (r *rig) compare(rt *rapid.T) {
	metric := r.o.index.Metric
	at := rapid.Uint64Range(1000, r.now).Draw(rt, "at")
	p := rapid.SampledFrom(plans).Draw(rt, "filter")
	read := Read{ReadTimestamp: at, Plan: r.plan(p.text), OutputFields: []int64{priceField, vectorField}}
	q := SearchRequest{Read: read, TopK: rapid.IntRange(1, 30).Draw(rt, "k"), Offset: rapid.IntRange(0, 20).Draw(rt, "offset")}
	for range rapid.IntRange(1, 5).Draw(rt, "nq") {
		q.Vectors = append(q.Vectors, vectorOf(rapid.Int64Range(0, 120).Draw(rt, "query"), 77)...)
	}
	if rapid.Bool().Draw(rt, "radius") {
		x := rapid.Float32Range(-1, 4).Draw(rt, "far")
		q.Radius = &x
	}
	if rapid.Bool().Draw(rt, "range") {
		x := rapid.Float32Range(-1, 4).Draw(rt, "near")
		q.RangeFilter = &x
	}
	res := r.found(q)
	at0 := 0
	for i := range q.NQ0() {
		query := q.Vectors[i*dim : (i+1)*dim]
		want := r.nearest(query, q.TopK+q.Offset, at, func(row modelRow, s float32) bool {
			return p.keep(row) && (q.Radius == nil || metric.Better(s, *q.Radius)) && (q.RangeFilter == nil || !metric.Better(s, *q.RangeFilter))
		})
		want = want[min(q.Offset, len(want)):]
		n := int(res.Counts[i])
		if n != len(want) {
			rt.Fatalf("query %d: %d hits, want %d", i, n, len(want))
		}
		for j, row := range want {
			k, s := res.Keys.Int[at0+j], res.Scores[at0+j]
			if k != row.key || math.Abs(float64(s)-score(metric, query, row.v)) > 1e-4 {
				rt.Fatalf("query %d, hit %d: key %d with score %v, want %d with %v", i, j, k, s, row.key, score(metric, query, row.v))
			}
			if res.Fields[0].Int[at0+j] != row.price || !slices.Equal(res.Fields[1].Vector(at0+j), row.v) {
				rt.Fatalf("query %d, hit %d: fields of another row", i, j)
			}
		}
		at0 += n
	}
	if len(res.Keys.Int) != at0 || res.ReadTimestamp != at || res.Stats.SearchedShare != 1 {
		rt.Fatalf("%d keys, want %d; %+v", len(res.Keys.Int), at0, res.Stats)
	}
	r.compareQuery(rt, read, p.keep)
}

// NQ0 is the number of vectors.
func (r *SearchRequest) NQ0() int { return len(r.Vectors) / dim }

func (r *rig) compareQuery(rt *rapid.T, read Read, keep func(modelRow) bool) {
	var want []int64
	for k, row := range r.visible(read.ReadTimestamp) {
		if keep(row) {
			want = append(want, k)
		}
	}
	slices.Sort(want)
	q := QueryRequest{Read: read, Limit: rapid.IntRange(0, 30).Draw(rt, "limit"), Offset: rapid.IntRange(0, 30).Draw(rt, "skip"),
		BatchRows: rapid.IntRange(0, 9).Draw(rt, "piece")}
	count := q
	count.CountOnly = true
	res, err := r.coll.Query(r.t.Context(), &count, nil)
	must(r.t, err)
	if res.Count != int64(len(want)) {
		rt.Fatalf("count %d, want %d", res.Count, len(want))
	}
	want = want[min(q.Offset, len(want)):]
	if q.Limit > 0 {
		want = want[:min(q.Limit, len(want))]
	}
	if keys, _ := r.prices(q); !slices.Equal(keys, want) {
		rt.Fatalf("query: %v, want %v", keys, want)
	}
}

// TestManyVectorsAtOnce: a batch that is split over workers gives what each
// vector gives alone.
func TestManyVectorsAtOnce(t *testing.T) {
	for segments := int64(1); segments <= 3; segments++ {
		t.Run(fmt.Sprint(segments), func(t *testing.T) {
			r := newRig(t, rigOptions{})
			for s := range segments {
				r.insert(s, seq(s*50, s*50+50)...)
			}
			r.delete(seq(0, 10)...)
			const nq = 37
			var all []float32
			for i := range int64(nq) {
				all = append(all, vectorOf(i, 5)...)
			}
			read := Read{Plan: r.plan("price < 400"), OutputFields: []int64{priceField}}
			got := r.found(SearchRequest{Read: read, Vectors: all, TopK: 7, Offset: 1})
			at := 0
			for i := range nq {
				one := r.found(SearchRequest{Read: read, Vectors: all[i*dim : (i+1)*dim], TopK: 7, Offset: 1})
				n := int(got.Counts[i])
				if n != int(one.Counts[0]) || !slices.Equal(got.Keys.Int[at:at+n], one.Keys.Int) || !slices.Equal(got.Scores[at:at+n], one.Scores) {
					t.Fatalf("vector %d: %v, alone %v", i, got.Keys.Int[at:at+n], one.Keys.Int)
				}
				at += n
			}
		})
	}
}

func TestAnOffsetBeyondTheEnd(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insert(1, seq(0, 10)...)
	res := r.found(SearchRequest{Vectors: append(vectorOf(1, 0), vectorOf(2, 0)...), TopK: 5, Offset: 100})
	if !slices.Equal(res.Counts, []int64{0, 0}) || res.Keys.Rows() != 0 || len(res.Scores) != 0 {
		t.Fatalf("%+v", res)
	}
	if keys, _ := r.prices(QueryRequest{Offset: 100, Limit: 3}); len(keys) != 0 {
		t.Fatalf("%v", keys)
	}
	// Nothing there at all.
	res = r.found(SearchRequest{Vectors: vectorOf(1, 0), TopK: 5, Read: Read{ReadTimestamp: 1000}})
	if !slices.Equal(res.Counts, []int64{0}) || res.Stats.SearchedShare != 1 {
		t.Fatalf("%+v", res)
	}
}

// TestRadiusIsOutAndRangeFilterIsIn at the exact scores that users see.
func TestRadiusIsOutAndRangeFilterIsIn(t *testing.T) {
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		t.Run(metric.String(), func(t *testing.T) {
			r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: metric}})
			r.insert(1, seq(0, 20)...)
			q := SearchRequest{Vectors: vectorOf(3, 5), TopK: 20}
			all := r.found(q)
			near, far := all.Scores[4], all.Scores[9]
			q.RangeFilter, q.Radius = &near, &far
			if got := r.found(q); !slices.Equal(got.Scores, all.Scores[4:9]) {
				t.Fatalf("from %v to %v of %v: %v", near, far, all.Scores, got.Scores)
			}
			q.RangeFilter = nil
			if got := r.found(q); !slices.Equal(got.Scores, all.Scores[:9]) {
				t.Fatalf("radius only: %v", got.Scores)
			}
			nan := float32(math.NaN())
			q.Radius = &nan
			if got := r.found(q); len(got.Scores) != 0 {
				t.Fatalf("nothing is within a radius that is no number: %v", got.Scores)
			}
		})
	}
}

func TestPartitionsAndGrowing(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.put(1, seq(0, 10), 0, false, 7)
	r.put(2, seq(10, 20), 0, false, 8)
	r.handOff(1)
	q := SearchRequest{Vectors: vectorOf(3, 5), TopK: 50}
	for _, c := range []struct {
		read Read
		want []int64
	}{
		{Read{}, seq(0, 20)},
		{Read{Partitions: []int64{7}}, seq(0, 10)},
		{Read{Partitions: []int64{8}}, seq(10, 20)},
		{Read{Partitions: []int64{8, 7}}, seq(0, 20)},
		{Read{Partitions: []int64{9}}, nil},
		{Read{IgnoreGrowing: true}, seq(0, 10)},
	} {
		q.Read = c.read
		res := r.found(q)
		if slices.Sort(res.Keys.Int); !slices.Equal(res.Keys.Int, c.want) {
			t.Errorf("%+v: %v", c.read, res.Keys.Int)
		}
		if keys, _ := r.prices(QueryRequest{Read: c.read}); !slices.Equal(keys, c.want) {
			t.Errorf("%+v: query %v", c.read, keys)
		}
	}
}

// TestSegmentsThatCannotMatchAreNotSearched: by the range of a field, and by the
// filter of keys.
func TestSegmentsThatCannotMatchAreNotSearched(t *testing.T) {
	r := newRig(t, rigOptions{})
	for s := range int64(3) {
		// Keys interleave, so that their ranges overlap.
		var keys []int64
		for k := s; k < 300; k += 3 {
			keys = append(keys, k)
		}
		r.insert(s, keys...)
		r.handOff(s)
	}
	for _, c := range []struct {
		filter string
		want   int
	}{
		{"id == 151", 1}, {"id in [1, 4, 7]", 1}, {"id in [1, 2]", 2}, {"id == 9999", 0}, {"price < 0", 0},
		{"id == 151 and color == 'blue'", 1}, {"price >= 0", 3}, {"id in []", 0},
	} {
		res := r.found(SearchRequest{Vectors: vectorOf(3, 5), TopK: 5, Read: Read{Plan: r.plan(c.filter)}})
		if len(res.Stats.Sealed) != c.want || res.Stats.Pruned != 3-c.want || res.Stats.SearchedShare != 1 {
			t.Errorf("%s: searched %v, pruned %d, want %d searched", c.filter, res.Stats.Sealed, res.Stats.Pruned, c.want)
		}
	}
}

func TestDistinctKeys(t *testing.T) {
	var k keySet
	for round := range 3 {
		k.reset(100)
		for i := range int64(150) { // more than there was room asked for
			if n, twice := k.add(i*1_000_003, "", false); twice || n != int(i) {
				t.Fatalf("round %d: key %d has number %d, twice %t", round, i, n, twice)
			}
			if n, twice := k.add(i/2*1_000_003, "", false); !twice || n != int(i/2) {
				t.Fatalf("round %d: key %d has number %d, twice %t", round, i/2, n, twice)
			}
		}
		k.reset(10)
		for i, s := range []string{"", "a", "b", "a", ""} {
			n, twice := k.add(0, s, true)
			if want := []int{0, 1, 2, 1, 0}[i]; n != want || twice != (i > 2) {
				t.Fatalf("%q: number %d, twice %t", s, n, twice)
			}
		}
	}
}
