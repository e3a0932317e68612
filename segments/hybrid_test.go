package segments

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/querynode/querynode/internal/expr"
	"github.com/querynode/querynode/internal/index"
)

// TestHybridSearchesAgainstTheModel: several searches with filters of their own,
// fused by rank or by weighted scores.
func TestHybridSearchesAgainstTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		metric := rapid.SampledFrom([]index.Metric{index.L2, index.IP, index.Cosine}).Draw(rt, "metric")
		r := newRig(t, rigOptions{index: VectorIndex{Type: "FLAT", Metric: metric}})
		defer r.close()
		r.steps(rt, 12)
		for range 4 {
			r.compareHybrid(rt)
		}
	})
}

func (r *rig) compareHybrid(rt *rapid.T) {
	metric := r.o.index.Metric
	at := rapid.Uint64Range(1000, r.now).Draw(rt, "at")
	q := HybridRequest{Read: Read{ReadTimestamp: at, OutputFields: []int64{priceField}}, NQ: rapid.IntRange(1, 3).Draw(rt, "nq"),
		TopK: rapid.IntRange(1, 20).Draw(rt, "k"), Offset: rapid.IntRange(0, 5).Draw(rt, "offset")}
	q.Ranker.RRF = 60
	subs := rapid.IntRange(1, 3).Draw(rt, "searches")
	if rapid.Bool().Draw(rt, "weighted") {
		q.Ranker.Normalize = rapid.Bool().Draw(rt, "normalize")
		for range subs {
			q.Ranker.Weights = append(q.Ranker.Weights, rapid.Float32Range(0, 1).Draw(rt, "weight"))
		}
	}
	var keeps []func(modelRow) bool
	for range subs {
		p := rapid.SampledFrom(plans).Draw(rt, "filter")
		s := SubSearch{Plan: r.plan(p.text), FieldID: vectorField, Metric: metric, TopK: rapid.IntRange(1, 15).Draw(rt, "ranked")}
		for range q.NQ {
			s.Vectors = append(s.Vectors, vectorOf(rapid.Int64Range(0, 120).Draw(rt, "query"), 77)...)
		}
		keeps = append(keeps, p.keep)
		q.Searches = append(q.Searches, s)
	}
	res, err := r.coll.HybridSearch(r.t.Context(), &q)
	must(r.t, err)
	row := 0
	for i := range q.NQ {
		points := r.fused(&q, i, at, keeps)
		want := cut(slices.Sorted(negated(points)), q.Offset, q.TopK)
		twice := map[int64]bool{}
		if int(res.Counts[i]) != len(want) {
			rt.Fatalf("query %d: %d hits, want %d", i, res.Counts[i], len(want))
		}
		for j, w := range want {
			k, s := res.Keys.Int[row], float64(res.Scores[row])
			if math.Abs(s+w) > 1e-5 {
				rt.Fatalf("query %d, hit %d: key %d with %v points, want %v", i, j, k, s, -w)
			}
			// Rows with the same points may come in any order.
			if math.Abs(points[k]-s) > 1e-5 || twice[k] {
				rt.Fatalf("query %d, hit %d: key %d with %v points, which has %v; twice %t", i, j, k, s, points[k], twice[k])
			}
			twice[k] = true
			if res.Fields[0].Int[row] != r.visible(at)[k].price {
				rt.Fatalf("query %d, hit %d: price %d of another row", i, j, res.Fields[0].Int[row])
			}
			row++
		}
	}
	if res.ReadTimestamp != at || res.Stats.SearchedShare != 1 || len(res.Keys.Int) != row {
		rt.Fatalf("%d keys, want %d, %+v", len(res.Keys.Int), row, res.Stats)
	}
}

// negated yields the points of a map, each times -1.
func negated(points map[int64]float64) func(func(float64) bool) {
	return func(yield func(float64) bool) {
		for _, p := range points {
			if !yield(-p) {
				return
			}
		}
	}
}

// fused is what the model's rows get for query i, by key.
func (r *rig) fused(q *HybridRequest, i int, at uint64, keeps []func(modelRow) bool) map[int64]float64 {
	points := map[int64]float64{}
	for n, s := range q.Searches {
		query := s.Vectors[i*dim : (i+1)*dim]
		for rank, row := range r.nearest(query, s.TopK, at, func(row modelRow, _ float32) bool { return keeps[n](row) }) {
			sc := score(s.Metric, query, row.v)
			switch {
			case q.Ranker.Weights == nil:
				points[row.key] += 1 / (60 + float64(rank+1))
				continue
			case s.Metric == index.L2:
				sc = 1 - 2*math.Atan(sc)/math.Pi
			case q.Ranker.Normalize && s.Metric == index.IP:
				sc = 0.5 + math.Atan(sc)/math.Pi
			case q.Ranker.Normalize:
				sc = (1 + sc) / 2
			}
			points[row.key] += float64(q.Ranker.Weights[n]) * sc
		}
	}
	return points
}

// TestASegmentThatFailsIsMissingFromAllSearches of a hybrid one, and counted once.
func TestASegmentThatFailsIsMissingFromAllSearches(t *testing.T) {
	r := twoSealed(t, rigOptions{})
	r.sabotage(1, func(segment) { panic("boom") })
	one := SubSearch{FieldID: vectorField, Vectors: vectorOf(5, 0), TopK: 300, Metric: index.L2}
	q := HybridRequest{Read: partial(), Searches: []SubSearch{one, one}, NQ: 1, TopK: 300, Ranker: Ranker{RRF: 60}}
	res, err := r.coll.HybridSearch(t.Context(), &q)
	must(t, err)
	if len(res.Keys.Int) != 150 || res.Stats.SearchedShare != 0.6 || len(res.Stats.Failures) != 1 || slices.Contains(res.Keys.Int, 5) {
		t.Fatalf("%d hits, %+v", len(res.Keys.Int), res.Stats)
	}
	q.AllowPartial = false
	if _, err := r.coll.HybridSearch(t.Context(), &q); err == nil {
		t.Fatal("an answer that lacks a segment, although nobody allowed it")
	}
}

// TestARankerOfScores: the figures of Milvus' rankers.
func TestARankerOfScores(t *testing.T) {
	for _, c := range []struct {
		r     Ranker
		m     index.Metric
		score float32
		want  float64
	}{
		{Ranker{RRF: 60}, index.L2, 5, 1.0 / 62},
		{Ranker{Weights: []float32{0.5}, Normalize: true}, index.Cosine, 0.5, 0.375},
		{Ranker{Weights: []float32{1}, Normalize: true}, index.IP, 1, 0.75},
		{Ranker{Weights: []float32{1}, Normalize: true}, index.L2, 1, 0.5},
		{Ranker{Weights: []float32{1}}, index.L2, 0, 1},
		{Ranker{Weights: []float32{1}}, index.IP, 7, 7},
		{Ranker{Weights: []float32{1}}, index.Cosine, -0.5, -0.5},
	} {
		if got := c.r.points(0, 2, c.m, c.score); math.Abs(got-c.want) > 1e-6 {
			t.Errorf("%+v, %s, %v: %v points, want %v", c.r, c.m, c.score, got, c.want)
		}
	}
}

// TestHybridGroups: the groups are those of the rows that come without groups, in their order.
func TestHybridGroups(t *testing.T) {
	r := newRig(t, rigOptions{schema: itemsWithDocs()})
	r.insertNew(1, seq(0, 60))
	r.handOff(1)
	r.insertNew(2, seq(60, 90))
	_, path, err := expr.ParsePath(`doc["in"]["c"]`, r.o.schema)
	must(t, err)
	ask := func(k, offset int, g *Grouping) *SearchResult {
		t.Helper()
		var sub []SubSearch
		for i := range int64(2) {
			sub = append(sub, SubSearch{FieldID: vectorField, Vectors: append(vectorOf(700+i, 1), vectorOf(800+i, 1)...), TopK: 40, Metric: index.L2})
		}
		res, err := r.coll.HybridSearch(t.Context(), &HybridRequest{Read: Read{ReadTimestamp: r.now}, Searches: sub, NQ: 2, TopK: k, Offset: offset,
			Ranker: Ranker{RRF: 60}, Group: g})
		must(t, err)
		return res
	}
	all := ask(200, 0, nil)
	for _, g := range []*Grouping{{FieldID: colorField}, {FieldID: colorField, Size: 3}, {FieldID: docField, Path: path, Size: 2}} {
		for _, offset := range []int{0, 1, 5} {
			res := ask(3, offset, g)
			var keys, counts []int64
			var values []string
			from := 0
			for q := range 2 {
				groups, of := [][]int64{}, map[string]int{}
				for _, key := range all.Keys.Int[from : from+int(all.Counts[q])] {
					k, ok := of[colors[key&3]]
					if !ok {
						k, groups = len(groups), append(groups, nil)
						of[colors[key&3]] = k
					}
					if k < offset+3 && len(groups[k]) < max(g.Size, 1) {
						groups[k] = append(groups[k], key)
					}
				}
				from += int(all.Counts[q])
				groups = groups[min(offset, len(groups)):]
				for _, in := range groups[:min(3, len(groups))] {
					keys, counts = append(keys, in...), append(counts, int64(len(in)))
					for range in {
						values = append(values, colors[in[0]&3])
					}
				}
			}
			if !slices.Equal(res.Keys.Int, keys) || !slices.Equal(res.GroupCounts, counts) {
				t.Errorf("%+v, offset %d: %v in groups of %v, want %v in groups of %v", g, offset, res.Keys.Int, res.GroupCounts, keys, counts)
			}
			for i, want := range values {
				if g.Path != nil && want != "" {
					want = `"` + want + `"`
				}
				if got := res.GroupValues; got.Str[i] != want || got.Null(i) != (want == "") {
					t.Errorf("%+v, offset %d: row %d is of group %q, want %q", g, offset, i, got.Str[i], want)
				}
			}
		}
	}
}
