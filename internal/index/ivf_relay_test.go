package index

import (
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// TestFewQueriesOfABatchFindWhatEachFindsAlone: hardly two of them want the same list.
func TestFewQueriesOfABatchFindWhatEachFindsAlone(t *testing.T) {
	const dim, n, queries, lists = 24, 20000, 40, 400
	base, vectors := clustered(rng(31), n, dim), clustered(rng(32), queries, dim)
	for _, m := range []Metric{L2, IP, Cosine} {
		x, f := buildIVFFor(t, KindScaNN, m, dim, lists, base), newFlat(t, dim, m, base)
		for _, q := range []*Query{{K: 10, Effort: 4}, {K: 60, Effort: 2}} { // of the latter no query finds enough in so few lists
			var s, one, exact Scratch
			if p := x.plan(q, &s); x.kern.Level() == vec.AVX512 && !x.relays(queries, &p) {
				t.Fatalf("%d queries that read %d lists are read together", queries, p.lists)
			}
			sum, alone, calls := 0.0, 0.0, make([]int, queries)
			x.SearchBatch(vectors, q, &s, func(i int, rows []Neighbor) {
				calls[i]++
				wantSorted(t, rows, nil)
				v := vectors[i*dim:][:dim]
				want := f.Search(v, q.K, nil, &exact)
				sum, alone = sum+recall(rows, want), alone+recall(x.Search(v, q, &one), want)
			})
			if slices.Min(calls) != 1 || slices.Max(calls) != 1 {
				t.Errorf("%s, k %d: answers of a query: %v", m, q.K, calls)
			}
			if sum < alone-0.01*queries {
				t.Errorf("%s, k %d: recall %.3f, alone %.3f", m, q.K, sum/queries, alone/queries)
			}
		}
	}
}

// TestStopCutsABatchOfFewQueries, in the midst of it: every query is answered.
func TestStopCutsABatchOfFewQueries(t *testing.T) {
	const dim, n, queries = 24, 6000, 150
	base := clustered(rng(33), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, 600, base)
	var stop atomic.Bool
	s, calls := Scratch{Stop: &stop}, 0
	x.SearchBatch(base[:queries*dim], &Query{K: 10, Effort: 2}, &s, func(i int, rows []Neighbor) {
		if calls++; i == 20 {
			stop.Store(true)
		}
	})
	if calls != queries || !s.Stats().Stopped {
		t.Errorf("%d of %d queries were answered: %+v", calls, queries, s.Stats())
	}
}
