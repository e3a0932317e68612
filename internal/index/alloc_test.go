package index

import (
	"context"
	"fmt"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// TestASearchAllocatesNothingHoweverMuchItReads: neither a candidate nor a list costs one.
func TestASearchAllocatesNothingHoweverMuchItReads(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	const dim, n, batch = 24, 6000, 20
	base := clustered(rng(71), n, dim)
	for _, kind := range []Kind{KindFlat, KindHNSWSQ, KindScaNN} {
		x, err := Build(context.Background(), Spec{Kind: kind, Metric: L2, Dim: dim}, base, BuildOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		defer x.Close()
		for name, allowed := range map[string]*bitset.Set{"all": nil, "two of 5": filterOf(n, func(row int) bool { return row%5 < 2 })} {
			var s Scratch
			for _, effort := range []int{40, 400} { // lists or candidates
				q := &Query{K: 10, Effort: effort, Allowed: allowed}
				single := func() { x.Searcher().Search(base[:dim], q, &s) }
				many := func() { x.Searcher().SearchBatch(base[:batch*dim], q, &s, func(int, []Neighbor) {}) }
				for range filtersPause + 8 { // until the filter is known
					single()
				}
				many()
				for what, search := range map[string]func(){"search": single, fmt.Sprint("batch of ", batch): many} {
					if got := testing.AllocsPerRun(10, search); got > 0 {
						t.Errorf("%s, %s, effort %d: %v allocations in a %s", kind, name, effort, got, what)
					}
				}
			}
		}
	}
}
