package index

import (
	"fmt"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// allOf allows all of n rows.
func allOf(n int) *bitset.Set {
	s := bitset.New(n)
	s.Fill()
	return s
}

// filterOf has the rows that keep is true for.
func filterOf(n int, keep func(row int) bool) *bitset.Set {
	s := bitset.New(n)
	for row := range n {
		if keep(row) {
			s.Add(row)
		}
	}
	return s
}

func TestBatchesWithAFilter(t *testing.T) {
	const dim, n, lists, batch = 24, 6000, 200, 300
	base, queries := clustered(rng(41), n, dim), clustered(rng(42), batch, dim)
	for _, m := range []Metric{L2, IP, Cosine} {
		x := buildIVFFor(t, KindScaNN, m, dim, lists, base)
		f := newFlat(t, dim, m, base)
		var s, exact Scratch
		near := bitset.New(n) // half of the rows, those around one
		for _, r := range f.Search(base[:dim], n/2, nil, &exact) {
			near.Add(int(r.Row))
		}
		for _, c := range []struct {
			name     string
			allowed  *bitset.Set
			gathered bool
		}{
			{"one of 50", filterOf(n, func(row int) bool { return row%50 == 7 }), true},
			{"one of 5", filterOf(n, func(row int) bool { return row%5 == 2 }), true},
			{"half", filterOf(n, func(row int) bool { return row%2 == 0 }), false},
			{"half around one", near, false},
			{"nearly all", filterOf(n, func(row int) bool { return row%40 != 0 }), false},
		} {
			t.Run(fmt.Sprintf("%s/%s", m, c.name), func(t *testing.T) {
				q := &Query{K: 10, Effort: 16, Allowed: c.allowed}
				sum, calls := 0.0, 0
				x.SearchBatch(queries, q, &s, func(i int, rows []Neighbor) {
					if calls++; i%10 != 0 {
						return
					}
					wantSorted(t, rows, c.allowed)
					sum += recall(rows, f.Search(queries[i*dim:][:dim], q.K, c.allowed, &exact))
				})
				if calls != batch || sum < 0.9*batch/10 {
					t.Errorf("%d answers, recall %.3f", calls, sum/(batch/10))
				}
				if vec.Detect().Level() == vec.AVX512 && s.Stats().Scanned != c.gathered {
					t.Errorf("allowed rows were gathered is %v", s.Stats().Scanned)
				}
				sum = 0
				for i := 0; i < batch; i += 10 {
					rows := x.Search(queries[i*dim:][:dim], q, &s)
					wantSorted(t, rows, c.allowed)
					sum += recall(rows, f.Search(queries[i*dim:][:dim], q.K, c.allowed, &exact))
				}
				if sum < 0.9*batch/10 {
					t.Errorf("one by one: recall %.3f", sum/(batch/10))
				}
			})
		}
	}
}
