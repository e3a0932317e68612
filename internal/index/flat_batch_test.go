package index

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

func TestAFlatBatchFindsExactlyWhatItsVectorsFind(t *testing.T) {
	const dim, n, queries = 19, 3000, 37
	all := clustered(rng(61), n+queries, dim)
	base, vectors := all[:n*dim], all[n*dim:]
	copy(base[7*dim:8*dim], vectors[:dim]) // a row that is a query
	clear(base[9*dim : 10*dim])            // and one without direction
	for _, m := range []Metric{L2, IP, Cosine} {
		x := &flatSearcher{newFlat(t, dim, m, base)}
		for name, allowed := range map[string]*bitset.Set{
			"all": nil, "none": bitset.New(n), "one of 3": filterOf(n, func(row int) bool { return row%3 == 0 }),
			"a run": filterOf(n, func(row int) bool { return row >= 500 && row < 1700 }), "a shorter set": filterOf(n/2, func(int) bool { return true }),
		} {
			for _, k := range []int{1, 10, flatHeaps / 5} {
				t.Run(fmt.Sprintf("%s/%s/%d", m, name, k), func(t *testing.T) {
					var s, one Scratch
					q := &Query{K: k, Allowed: allowed}
					if k == 10 {
						found := x.Search(vectors[:dim], q, &one)
						if q.Bounded = len(found) > 0; q.Bounded {
							q.Radius = found[len(found)/2].Distance
						}
					}
					next := 0
					x.SearchBatch(vectors, q, &s, func(i int, rows []Neighbor) {
						if want := x.Search(vectors[i*dim:][:dim], q, &one); i != next || !slices.Equal(rows, want) {
							t.Fatalf("vector %d of a batch finds %v, alone %v", i, rows, want)
						}
						next++
					})
					work, rows := s.Stats(), n
					if allowed != nil {
						rows = allowed.Count()
					}
					if next != queries || !work.Scanned || work.Distances != queries*rows {
						t.Errorf("%d answers, %+v", next, work)
					}
				})
			}
		}
	}
}

func TestAFlatBatchStops(t *testing.T) {
	const dim = 8
	base := clustered(rng(62), 2000, dim)
	x := &flatSearcher{newFlat(t, dim, L2, base)}
	var stop atomic.Bool
	stop.Store(true)
	s, calls := Scratch{Stop: &stop}, 0
	x.SearchBatch(base[:5*dim], &Query{K: 3}, &s, func(_ int, rows []Neighbor) {
		if calls++; len(rows) > 0 {
			t.Errorf("found %v after the stop", rows)
		}
	})
	if calls != 5 || !s.Stats().Stopped {
		t.Errorf("%d answers, %+v", calls, s.Stats())
	}
}
