package segments

import (
	"context"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/index"
)

// TestABatchFindsWhatItsVectorsFind one by one, in every kind of index, with deletes,
// a filter, a moment in the past and a radius, over a sealed and a growing segment.
func TestABatchFindsWhatItsVectorsFind(t *testing.T) {
	for _, kind := range []index.Kind{index.KindFlat, index.KindHNSW, index.KindHNSWSQ, index.KindIVFFlat, index.KindIVFSQ8, index.KindScaNN} {
		t.Run(string(kind), func(t *testing.T) {
			metric, radius, near, far := index.L2, float32(1.1), float32(0.3), float32(1.5)
			if kind == index.KindFlat {
				metric, radius, near, far = index.Cosine, 0.2, 0.9, 0
			}
			r := newRig(t, rigOptions{index: VectorIndex{Type: string(kind), Metric: metric}})
			r.set.listsAfter = 300
			n := int64(2400 / slower)
			r.insert(1, seq(0, n/2)...)
			before := r.now
			r.insert(1, seq(n/2, n)...)
			r.delete(seq(0, 50)...)
			r.handOff(1)
			r.insert(2, seq(n, n+700)...)
			if kind != index.KindFlat {
				r.built(2, 640) // and 60 rows are in no list
			}
			var vectors []float32
			const nq = 70
			for q := range int64(nq) {
				vectors = append(vectors, vectorOf(q*11+3, 9)...)
			}
			for name, change := range map[string]func(*SearchRequest){
				"all":              func(*SearchRequest) {},
				"a filter":         func(s *SearchRequest) { s.Plan = r.plan("price < 9000") },
				"in the past":      func(s *SearchRequest) { s.ReadTimestamp = before },
				"a radius":         func(s *SearchRequest) { s.Radius = &radius },
				"a far side":       func(s *SearchRequest) { s.RangeFilter = &near },
				"a range":          func(s *SearchRequest) { s.Radius, s.RangeFilter = &radius, &near },
				"far off":          func(s *SearchRequest) { s.RangeFilter = &far },
				"an offset":        func(s *SearchRequest) { s.Offset = 7 },
				"a given effort":   func(s *SearchRequest) { s.Effort = Effort{EF: 60, Lists: 12, Reorder: 40} },
				"all of the lists": func(s *SearchRequest) { s.Effort = Effort{EF: 200, Lists: 4000} },
			} {
				all := SearchRequest{Vectors: vectors, TopK: 10}
				change(&all)
				got := r.found(all)
				at := int64(0)
				for q, count := range got.Counts {
					single := SearchRequest{Vectors: vectors[q*dim : (q+1)*dim], TopK: 10}
					change(&single)
					want := r.found(single)
					if keys := got.Keys.Int[at : at+count]; !slices.Equal(keys, want.Keys.Int) || !slices.EqualFunc(got.Scores[at:at+count], want.Scores, alike) {
						t.Fatalf("%s: vector %d of a batch finds %v, alone %v", name, q, keys, want.Keys.Int)
					}
					at += count
				}
			}
		})
	}
}

// alike: rows that a kernel is not full of may differ in the last bit.
func alike(a, b float32) bool { return a-b < 1e-5 && b-a < 1e-5 }

// TestABatchPastItsDeadline ends with that.
func TestABatchPastItsDeadline(t *testing.T) {
	r := newRig(t, hnsw(index.L2))
	r.insert(1, seq(0, 3000)...)
	r.handOff(1)
	s := r.holderOf(1).segment.(*Sealed)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	sc := newScratch()
	sc.batch.reset(2)
	q := &nearestQuery{ctx: ctx, fieldID: vectorField, k: 10, metric: index.L2}
	if err := s.nearestEach(q, make([]float32, 2*dim), 3000, nil, sc); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
}
