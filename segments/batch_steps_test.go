package segments

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/pool"
)

// inTurn is a rig whose tasks run one after the other, in the order in which they are made, as
// on a machine of so many processors, of which a search makes so many parts at most.
func inTurn(t *testing.T, o rigOptions, processors int) *rig {
	t.Helper()
	was := runtime.GOMAXPROCS(processors)
	t.Cleanup(func() { runtime.GOMAXPROCS(was) })
	one, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	t.Cleanup(func() { must(t, one.Close(t.Context())) })
	o.set = func(so *Options) { so.Pool = one }
	return newRig(t, o)
}

// nearRowsOf are vectors that are next to rows: a hundred of the first segment, from key 0 on,
// then anywhere, then a hundred of the second, backwards from the 100th.
func nearRowsOf(nq int, second int64) (vectors []float32) {
	for i := range nq {
		v := vectorOf(int64(i)*7+3, 9)
		switch {
		case i < 100:
			v = vectorOf(int64(i), 0)
		case i >= nq-100:
			v = vectorOf(second+int64(nq-1-i), 0)
			v[0] += 0.01
		}
		vectors = append(vectors, v...)
	}
	return vectors
}

// TestStepsOfABatchKeepTheirQueriesApart: a part with more queries than a segment is asked for at
// a time finds for each what that finds alone, though what another segment has bounds some of
// them to nothing, and some have too few rows on the far side among those that an index finds.
func TestStepsOfABatchKeepTheirQueriesApart(t *testing.T) {
	const nq, half = batchQueries + 76, 2400 / slower
	for _, growing := range []bool{false, true} {
		r := inTurn(t, hnsw(index.L2), 2)
		r.set.listsAfter = 300
		r.insert(1, seq(0, half)...)
		r.handOff(1)
		r.insert(2, seq(half, 2*half)...)
		if growing {
			r.built(2, half/64*64)
		} else {
			r.handOff(2)
		}
		vectors := nearRowsOf(nq, half)
		far := float32(1.5)
		for name, change := range map[string]func(*SearchRequest){
			"one":    func(s *SearchRequest) { s.TopK = 1 },
			"a few":  func(s *SearchRequest) { s.TopK = 3 },
			"filter": func(s *SearchRequest) { s.TopK, s.Plan = 2, r.plan("id % 3 > 0") },
			"far":    func(s *SearchRequest) { s.TopK, s.RangeFilter = 2, &far },
		} {
			all := SearchRequest{Vectors: vectors}
			change(&all)
			got, at := r.found(all), int64(0)
			if name == "one" && got.Keys.Int[nq-1] != half {
				t.Errorf("growing %v: the last of a batch finds %d", growing, got.Keys.Int[nq-1])
			}
			for q, count := range got.Counts {
				if keys := got.Keys.Int[at : at+count]; q%(13*slower) == 0 || q >= nq-120/slower {
					single := SearchRequest{Vectors: vectors[q*dim : (q+1)*dim]}
					change(&single)
					if want := r.found(single); !slices.Equal(keys, want.Keys.Int) || !slices.EqualFunc(got.Scores[at:at+count], want.Scores, alike) {
						t.Fatalf("growing %v, %s: vector %d of a batch finds %v, alone %v", growing, name, q, keys, want.Keys.Int)
					}
				}
				at += count
			}
		}
	}
}

// TestWhatAPartHasBoundsNobodyBeforeTheOthersHaveEnded: where the queries are searched for in
// several parts and one of a segment's fails, the answer is without that segment, and must have all that
// the other one has.
func TestWhatAPartHasBoundsNobodyBeforeTheOthersHaveEnded(t *testing.T) {
	const nq, half = batchQueries + 76, 1500 / slower
	r := inTurn(t, hnsw(index.L2), 8)
	r.insert(1, seq(0, half)...)
	r.handOff(1)
	r.insert(2, seq(half, 2*half)...)
	r.handOff(2)
	vectors := nearRowsOf(nq, half)
	ask := SearchRequest{Vectors: vectors, TopK: 1, Read: Read{AllowPartial: true}}
	whole := r.found(ask)
	for q := range nq {
		if whole.Counts[q] != 1 {
			t.Fatalf("vector %d finds %d rows", q, whole.Counts[q])
		}
		if key := whole.Keys.Int[q]; q < 100 && key != int64(q) || q >= nq-100 && key != half+int64(nq-1-q) {
			t.Fatalf("vector %d finds %d in parts", q, key)
		}
	}

	var asked atomic.Int64
	r.sabotage(1, func(segment) {
		if asked.Add(1) == nq { // of all of its parts the last is at its end
			panic(errors.New("a bug"))
		}
	})
	got := r.found(ask)
	if len(got.Stats.Failures) != 1 || asked.Load() != nq {
		t.Fatalf("%d failures of %d queries asked: %v", len(got.Stats.Failures), asked.Load(), got.Stats.Failures)
	}
	r.sabotage(1, nil)
	if slices.ContainsFunc(got.Counts, func(n int64) bool { return n != 1 }) {
		t.Fatalf("without a segment, %d rows are found for %d vectors", len(got.Keys.Int), nq)
	}
	for q, key := range got.Keys.Int {
		if key < half || q >= nq-100 && key != half+int64(nq-1-q) {
			t.Fatalf("vector %d finds %d, of a segment that failed or not the nearest", q, key)
		}
	}
}
