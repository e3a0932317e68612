package index

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
)

// TestAsManyRowsAreFoundAsAreWanted: far more than a search looks at in one go.
func TestAsManyRowsAreFoundAsAreWanted(t *testing.T) {
	const dim, n, queries = 16, 6000, 12
	base := clustered(rng(81), n, dim)
	copy(base[:1000*dim], slices.Repeat(base[:dim], 1000)) // a thousand rows that are equal
	f := newFlat(t, dim, L2, base)
	half := filterOf(n, func(row int) bool { return row%2 == 0 })
	for _, kind := range []Kind{KindHNSW, KindHNSWSQ, KindIVFFlat, KindIVFSQ8, KindScaNN} {
		x, err := Build(context.Background(), Spec{Kind: kind, Metric: L2, Dim: dim}, base, BuildOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		for _, k := range []int{254, 300, 2500} {
			for what, q := range map[string]*Query{"all": {K: k, Effort: 2 * k}, "half": {K: k, Effort: 2 * k, Allowed: half}} {
				var s Scratch
				look := func(how string, i int, rows []Neighbor) {
					if len(rows) != k {
						t.Errorf("%s, %s, k %d, %s: %d rows of query %d", kind, what, k, how, len(rows), i)
					}
					seen := map[uint32]bool{}
					for _, r := range rows {
						if seen[r.Row] || q.Allowed != nil && r.Row%2 != 0 {
							t.Fatalf("%s, %s, k %d, %s: row %d of query %d", kind, what, k, how, r.Row, i)
						}
						seen[r.Row] = true
					}
				}
				x.Searcher().SearchBatch(base[(n-queries)*dim:], q, &s, func(i int, rows []Neighbor) { look("batch", i, rows) })
				for i := n - queries; i < n; i++ {
					look("alone", i, x.Searcher().Search(base[i*dim:][:dim], q, &s))
				}
				wantRecall(t, x.Searcher(), f, base[(n-queries)*dim:], *q, 0.95)
			}
		}
	}
}

func TestEveryQueryOfABatchFindsRowsThatAreEqual(t *testing.T) {
	const dim, n, queries = 12, 3000, 1200
	base := clustered(rng(82), n, dim)
	copy(base[n/2*dim:], base[:n/2*dim]) // each vector twice
	g, _ := buildCodes(t, L2, dim, base)
	var s Scratch
	missed := 0
	g.SearchBatch(base[:queries*dim], &Query{K: 10, Effort: 20}, &s, func(i int, rows []Neighbor) {
		twins := 0
		for _, r := range rows {
			if int(r.Row) == i || int(r.Row) == i+n/2 {
				twins++
			}
		}
		if twins < 2 {
			missed++
		}
	})
	if missed > queries/100 {
		t.Errorf("%d of %d queries miss one of the two rows they are equal to", missed, queries)
	}
}

func TestStopCutsBatchesThatCompareAll(t *testing.T) {
	const dim, n, queries = 24, 5000, 3000
	base := clustered(rng(83), n, dim)
	some := filterOf(n, func(row int) bool { return row%10 == 0 })
	for _, kind := range []Kind{KindHNSWSQ, KindScaNN} {
		x, err := Build(context.Background(), Spec{Kind: kind, Metric: L2, Dim: dim}, base, BuildOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		var stop atomic.Bool
		stop.Store(true)
		s, told := Scratch{Stop: &stop}, 0
		x.Searcher().SearchBatch(base[:queries*dim], &Query{K: 10, Allowed: some}, &s, func(int, []Neighbor) { told++ })
		if told != queries {
			t.Errorf("%s: %d of %d queries were answered", kind, told, queries)
		}
		if st := s.Stats(); !st.Stopped || st.Ranked > queries {
			t.Errorf("%s: %d rows were ranked though it was stopped (%v)", kind, st.Ranked, st.Stopped)
		}
	}
}
