package segments

import (
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
)

// failing is a segment of which one look for the nearest rows, or at the distances of all, fails.
type failing struct {
	segment
	left *atomic.Int64 // looks until then
	err  error
}

func (f *failing) distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error {
	if f.left.Add(-1) == -1 {
		return f.err
	}
	return f.segment.distances(q, n, allowed, sc, see)
}

func (f *failing) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	if f.left.Add(-1) == -1 {
		return nil, f.err
	}
	return f.segment.nearest(q, n, allowed, sc)
}

// TestGroupsThatCannotBeFilledAreAnError, whichever look for the nearest rows fails: half an answer looks like a whole one.
func TestGroupsThatCannotBeFilledAreAnError(t *testing.T) {
	r := newRig(t, rigOptions{})
	for id := range int64(3) {
		r.insert(id, seq(id*40, id*40+40)...)
		r.handOff(id)
	}
	r.insert(3, seq(120, 160)...)
	g := Grouping{FieldID: colorField, Size: 2, Strict: true}
	search := func(query int64) error {
		one := SubSearch{FieldID: vectorField, Vectors: vectorOf(query, 77), Metric: index.L2, TopK: 1, Groups: 3}
		_, err := r.coll.HybridSearch(t.Context(), &HybridRequest{Read: Read{ReadTimestamp: r.now}, Searches: []SubSearch{one}, NQ: 1, TopK: 3,
			Ranker: Ranker{RRF: 60}, Group: &g})
		return err
	}
	boom, left := errors.New("boom"), new(atomic.Int64)
	for id := range int64(4) {
		h := r.holderOf(id)
		whole := h.segment
		h.segment = &failing{segment: whole, left: left, err: boom}
		defer func() { h.segment = whole }()
	}
	most := int64(0)
	for query := range int64(20) {
		for n := int64(0); ; n++ {
			left.Store(n)
			err := search(query)
			if left.Load() >= 0 { // all have been tried
				must(t, err)
				most = max(most, n)
				break
			}
			if !errors.Is(err, boom) {
				t.Errorf("query %d: look %d fails: %v", query, n, err)
			}
		}
	}
	if most <= 2*4 { // the hits, and the groups
		t.Errorf("%d looks for the nearest rows at most: no group had to be filled", most)
	}
}
