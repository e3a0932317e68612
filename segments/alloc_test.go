package segments

import (
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// TestASearchAllocatesLittle: what it needs for a while it has from before, and what is
// usually short is in one piece.
func TestASearchAllocatesLittle(t *testing.T) {
	if slower > 1 {
		t.Skip("pools forget at random under the race detector")
	}
	r := newRig(t, hnsw(index.L2))
	r.insert(1, seq(0, 1000)...)
	r.handOff(1)
	q := &SearchRequest{FieldID: vectorField, NQ: 1, TopK: 10, Metric: index.L2, Vectors: vectorOf(7, 7)}
	allocs := testing.AllocsPerRun(200, func() {
		if _, err := r.coll.Search(t.Context(), q); err != nil {
			t.Error(err)
		}
	})
	if allocs > 17 {
		t.Errorf("%v allocations in a search", allocs)
	}
}
