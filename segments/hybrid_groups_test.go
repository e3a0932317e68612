package segments

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/index"
)

// TestGroupsOfOneSearchAreThoseOfASearch: a hybrid search of one search that ranks few hits
// has the groups that the search alone has, however many rows of one group are nearer than those
// of the next.
func TestGroupsOfOneSearchAreThoseOfASearch(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.L2, index.IP, index.Cosine}).Draw(rt, "metric")
		r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: metric}})
		defer r.close()
		r.steps(rt, 12)
		for range 4 {
			r.compareGroupsOfOne(rt)
		}
	})
}

func (r *rig) compareGroupsOfOne(rt *rapid.T) {
	read := Read{ReadTimestamp: rapid.Uint64Range(1000, r.now).Draw(rt, "at"), OutputFields: []int64{priceField}}
	p := rapid.SampledFrom(plans).Draw(rt, "filter")
	nq := rapid.IntRange(1, 3).Draw(rt, "nq")
	var vectors []float32
	for range nq {
		vectors = append(vectors, vectorOf(rapid.Int64Range(0, 120).Draw(rt, "query"), 77)...)
	}
	k, offset := rapid.IntRange(1, 5).Draw(rt, "k"), rapid.IntRange(0, 2).Draw(rt, "offset")
	g := Grouping{FieldID: rapid.SampledFrom([]int64{colorField, priceField}).Draw(rt, "by"), Size: rapid.IntRange(1, 4).Draw(rt, "size"), Strict: true}
	if rapid.Bool().Draw(rt, "met on the way") {
		g.Strict, g.Size = false, 1
	}
	alone := SearchRequest{Read: read, FieldID: vectorField, Vectors: vectors, NQ: nq, TopK: k, Offset: offset, Metric: r.o.index.Metric, Group: &g}
	alone.Plan = r.plan(p.text)
	want, err := r.coll.Search(r.t.Context(), &alone)
	must(r.t, err)
	one := SubSearch{Plan: r.plan(p.text), FieldID: vectorField, Vectors: vectors, Metric: r.o.index.Metric, TopK: rapid.IntRange(1, 6).Draw(rt, "ranked"), Groups: k + offset}
	got, err := r.coll.HybridSearch(r.t.Context(), &HybridRequest{Read: read, Searches: []SubSearch{one}, NQ: nq, TopK: k, Offset: offset, Ranker: Ranker{RRF: 60}, Group: &g})
	must(r.t, err)
	if !slices.Equal(got.Keys.Int, want.Keys.Int) || !slices.Equal(got.GroupCounts, want.GroupCounts) || !slices.Equal(got.Counts, want.Counts) {
		rt.Fatalf("groups %+v: %v in groups of %v, want %v in groups of %v", g, got.Keys.Int, got.GroupCounts, want.Keys.Int, want.GroupCounts)
	}
	if g := got.GroupValues; fmt.Sprint(g.Str, g.Int, g.Valid) != fmt.Sprint(want.GroupValues.Str, want.GroupValues.Int, want.GroupValues.Valid) {
		rt.Fatalf("values %v, want %v", got.GroupValues, want.GroupValues)
	}
}

// TestFullGroupsOfOneSearchHaveTheNearestRows, of several segments, too: what is met on the way while groups are looked for need not be
// nearer than what is not.
func TestFullGroupsOfOneSearchHaveTheNearestRows(t *testing.T) {
	r := newRig(t, rigOptions{})
	for s := range int64(4) {
		r.insert(s, seq(s*40, s*40+40)...)
		if s < 3 {
			r.handOff(s)
		}
	}
	for query := range int64(300) {
		g := Grouping{FieldID: colorField, Size: 2, Strict: true}
		read, v := Read{ReadTimestamp: r.now}, vectorOf(query, 77)
		want, err := r.coll.Search(t.Context(), &SearchRequest{Read: read, FieldID: vectorField, Vectors: v, NQ: 1, TopK: 3, Metric: index.L2, Group: &g})
		must(t, err)
		one := SubSearch{FieldID: vectorField, Vectors: v, Metric: index.L2, TopK: 1, Groups: 3}
		got, err := r.coll.HybridSearch(t.Context(), &HybridRequest{Read: read, Searches: []SubSearch{one}, NQ: 1, TopK: 3, Ranker: Ranker{RRF: 60}, Group: &g})
		must(t, err)
		if !slices.Equal(got.Keys.Int, want.Keys.Int) || !slices.Equal(got.GroupCounts, want.GroupCounts) {
			t.Errorf("query %d: %v in groups of %v, want %v in groups of %v", query, got.Keys.Int, got.GroupCounts, want.Keys.Int, want.GroupCounts)
		}
	}
}

// TestGroupsOfSeveralSearchesAreFull if rows are there: those that neither search has ranked
// are looked for, with the filter of each, and no row is there twice.
func TestGroupsOfSeveralSearchesAreFull(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insertNew(1, seq(0, 60))
	r.handOff(1)
	r.insertNew(2, seq(60, 120))
	r.delete(seq(0, 30)...)
	near := func(id int64, filter string) SubSearch {
		s := SubSearch{FieldID: vectorField, Vectors: append(vectorOf(id, 1), vectorOf(id+1, 1)...), Metric: index.L2, TopK: 2, Groups: 3}
		if filter != "" {
			s.Plan = r.plan(filter)
		}
		return s
	}
	for _, c := range []struct {
		searches []SubSearch
		size     int
		rows     int64 // of each group
	}{
		{[]SubSearch{near(700, ""), near(800, "")}, 10, 10},
		{[]SubSearch{near(700, ""), near(800, "")}, 40, 22}, // of 90 rows in four groups
		{[]SubSearch{near(700, "id < 50"), near(800, "id < 40")}, 10, 5},
		{[]SubSearch{near(700, "id < 40"), near(800, "id >= 80 and id < 100")}, 10, 7},
	} {
		ask := func(strict bool) *SearchResult {
			t.Helper()
			q := HybridRequest{Read: Read{ReadTimestamp: r.now}, Searches: c.searches, NQ: 2, TopK: 3, Ranker: Ranker{RRF: 60}, Group: &Grouping{FieldID: colorField, Size: c.size, Strict: strict}}
			res, err := r.coll.HybridSearch(t.Context(), &q)
			must(t, err)
			if len(res.GroupCounts) != 6 {
				t.Fatalf("%d rows of a group, strict %t: groups of %v, want three for each query", c.size, strict, res.GroupCounts)
			}
			return res
		}
		full, met := ask(true), ask(false)
		at := 0
		for i, n := range full.GroupCounts {
			if n < c.rows || n > c.rows+1 || c.rows == int64(c.size) && n != c.rows {
				t.Errorf("%d rows of a group: group %d has %d rows, want about %d", c.size, i, n, c.rows)
			}
			in := map[int64]bool{}
			for _, key := range full.Keys.Int[at : at+int(n)] {
				if in[key] || colors[key&3] != colors[full.Keys.Int[at]&3] {
					t.Errorf("%d rows of a group: group %d is %v", c.size, i, full.Keys.Int[at:at+int(n)])
				}
				in[key] = true
			}
			at += int(n)
		}
		if len(met.Keys.Int) >= len(full.Keys.Int) {
			t.Errorf("%d rows of a group: %d rows that are met, %d if groups are filled", c.size, len(met.Keys.Int), len(full.Keys.Int))
		}
	}
}

// TestGroupsAreInOrderOfWhatIsAsked.
func TestGroupsAreInOrderOfWhatIsAsked(t *testing.T) {
	r := newRig(t, rigOptions{})
	r.insertNew(1, seq(0, 60))
	r.handOff(1)
	r.insertNew(2, seq(60, 90))
	ask := func(s GroupScorer, k, offset int) *SearchResult {
		t.Helper()
		one := SubSearch{FieldID: vectorField, Vectors: vectorOf(700, 1), TopK: 11, Metric: index.L2}
		other := one
		other.Vectors = vectorOf(800, 1)
		res, err := r.coll.HybridSearch(t.Context(), &HybridRequest{Read: Read{ReadTimestamp: r.now}, Searches: []SubSearch{one, other}, NQ: 1, TopK: k, Offset: offset,
			Ranker: Ranker{Weights: []float32{0.3, 0.9}}, Group: &Grouping{FieldID: colorField, Size: 3}, Scorer: s})
		must(t, err)
		return res
	}
	orders := map[string]bool{}
	for _, s := range []GroupScorer{MostPoints, SumOfPoints, MeanOfPoints} {
		res := ask(s, 4, 0)
		at, last := 0, 1e9
		for _, n := range res.GroupCounts {
			of := res.Scores[at : at+int(n)]
			points := float64(slices.Max(of))
			if s != MostPoints {
				points = 0
				for _, p := range of {
					points += float64(p)
				}
			}
			if s == MeanOfPoints {
				points /= float64(n)
			}
			if points > last+1e-6 {
				t.Errorf("scorer %d: a group of %v points behind one of %v", s, points, last)
			}
			at, last = at+int(n), points
		}
		if from := ask(s, 2, 1); !slices.Equal(from.GroupCounts, res.GroupCounts[1:3]) || !slices.Equal(from.Keys.Int, res.Keys.Int[res.GroupCounts[0]:][:len(from.Keys.Int)]) {
			t.Errorf("scorer %d: groups 1 and 2 are %v of %v, want them from %v of %v", s, from.GroupCounts, from.Keys.Int, res.GroupCounts, res.Keys.Int)
		}
		orders[fmt.Sprint(res.Keys.Int)] = true
	}
	if len(orders) < 2 {
		t.Error("the data tell no scorer from another")
	}
}
