package index

import (
	"context"
	"testing"

	"github.com/cockroachdb/errors"
)

// TestHeapsFarFromOneAnotherAreAllReached, though their rows come heap by heap.
func TestHeapsFarFromOneAnotherAreAllReached(t *testing.T) {
	const heaps, each, dim = 40, 75, 16
	r := rng(33)
	centres := make([]float32, heaps*dim)
	for i := range centres {
		centres[i] = float32(10 * r.NormFloat64())
	}
	row := func(heap int) []float32 {
		v := make([]float32, dim)
		for d := range v {
			v[d] = centres[heap*dim+d] + float32(0.1*r.NormFloat64())
		}
		return v
	}
	var base, queries []float32
	for i := range heaps * each {
		base = append(base, row(i/each)...)
	}
	for i := range heaps {
		queries = append(queries, row(i)...)
	}
	// One worker: which rows are linked at the same time is then the same each time.
	b, err := Build(context.Background(), Spec{Kind: KindHNSW, Metric: L2, Dim: dim, M: 8, EfConstruction: 40}, base, BuildOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	got, scanned := meanRecall(t, b.Searcher().(*hnswSearcher).h, newFlat(t, dim, L2, base), queries, 10, 40, nil)
	if got < 0.97 || scanned > 0 {
		t.Fatalf("recall %.3f, %d scanned", got, scanned)
	}
}

func TestARepairEndsWithItsContext(t *testing.T) {
	const n, dim = 2000, 6
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 3, EfConstruction: 20}, clustered(rng(6), n, dim))
	insertAll(t, h, n, 2)
	start, _, _ := h.start()
	clear(h.list(start, 0)) // it leads nowhere
	told := 0
	ctx, cancel := context.WithCancel(context.Background())
	_, err := h.repair(ctx, 2, &progress{tell: func(done, total int) {
		if told++; done > total {
			t.Errorf("%d of %d rows", done, total)
		}
		cancel()
	}})
	if told == 0 || err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("told %d times, %v", told, err)
	}
	if _, err := h.Repair(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Fatalf("repaired: %v", err)
	}
	if repaired(t, h) > 0 && repaired(t, h) > n/200 {
		t.Fatal("rows are still out of reach")
	}
}
