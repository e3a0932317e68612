package index

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

// detachedImage builds an index whose vectors searches will not have, and returns what was built and its image.
func detachedImage(tb testing.TB, spec Spec, base []float32) (Info, []byte) {
	tb.Helper()
	spec.Detached = true
	b := build(tb, spec, base)
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		tb.Fatal(err)
	}
	return b.Info(), alignedCopy(out.Bytes())
}

// TestAGraphIsSearchedWithoutItsVectors, with any metric and filter, in batches, and whatever is asked.
func TestAGraphIsSearchedWithoutItsVectors(t *testing.T) {
	const n, dim = 6000, 32
	for _, m := range []Metric{L2, IP, Cosine} {
		base := flattish(rng(31), n+60, dim, 10)
		base, queries := base[:n*dim], base[n*dim:]
		info, image := detachedImage(t, Spec{Kind: KindHNSW, Metric: m, Dim: dim, M: 8, EfConstruction: testEf}, base)
		if info.Kind != KindHNSWSQ || info.Params["M"] != "8" {
			t.Fatalf("%s: built %+v", m, info)
		}
		x, err := Open(image, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, some := newFlat(t, dim, m, base), bitset.New(n)
		for row := 0; row < n; row += 7 {
			some.Add(row)
		}
		for _, q := range []Query{{K: 10}, {K: 10, Effort: 60}, {K: 10, Recall: 0.99}, {K: 10, Allowed: some}, {K: 2000, Effort: 2000}, {K: n, Effort: n}} {
			wantRows(t, x, f, queries[:10*dim], q, 0.97)
		}
		var s, exact Scratch
		sum := 0.0
		x.SearchBatch(queries, &Query{K: 10, Effort: 100}, &s, func(i int, rows []Neighbor) {
			sum += recall(rows, f.Search(queries[i*dim:][:dim], 10, nil, &exact))
		})
		if sum < 0.97*60 {
			t.Errorf("%s: a batch finds %.3f", m, sum/60)
		}
		if rows := x.Search(make([]float32, dim), &Query{K: 10}, &s); len(rows) != 10 {
			t.Errorf("%s: without a direction %v", m, rows)
		}
		if middle := slices.Clone(x.(*sqGraph).fine.mean); m == L2 { // there is no direction to it
			wantRows(t, x, f, middle, Query{K: 10}, 0.9)
		}
		if rows := x.Search(slices.Repeat([]float32{3e38}, dim), &Query{K: 10}, &s); len(rows) != 10 {
			t.Errorf("%s: of a huge vector %v", m, rows)
		}
	}
}

// wantRows is wantRecall for distances that are those of codes.
func wantRows(t *testing.T, x Searcher, f *Flat, queries []float32, q Query, least float64) {
	t.Helper()
	var s, exact Scratch
	sum, n := 0.0, 0
	for v := range slices.Chunk(queries, f.dim) {
		got, want := x.Search(v, &q, &s), f.Search(v, q.K, q.Allowed, &exact)
		wantSorted(t, got, q.Allowed)
		if len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for _, g := range got {
			if d := f.distance(v, g.Row); math.Abs(float64(g.Distance-d)) > 0.01+0.01*math.Abs(float64(d)) {
				t.Fatalf("row %d at %v: it is at %v", g.Row, g.Distance, d)
			}
		}
		sum, n = sum+recall(got, want), n+1
	}
	if mean := sum / float64(n); mean < least {
		t.Errorf("recall of %+v is %.3f, want %.3f", q, mean, least)
	}
}

// TestWhatCannotRankByItselfIsNotDetached: such rows get no index, and such images are not opened without vectors.
func TestWhatCannotRankByItselfIsNotDetached(t *testing.T) {
	const n = 3000
	twoClouds := make([]float32, n*16)
	r := rng(32)
	for i := range twoClouds {
		twoClouds[i] = float32(i/16%2)*1e6 + float32(r.NormFloat64())
	}
	for name, c := range map[string]struct {
		spec Spec
		base []float32
	}{
		"codes that cannot tell":   {Spec{Kind: KindHNSWSQ, Dim: 16}, twoClouds},
		"short vectors":            {Spec{Kind: KindHNSW, Dim: fineLeast - 1}, clustered(r, n, fineLeast-1)},
		"few rows":                 {Spec{Kind: KindAuto, Dim: 20}, clustered(r, 500, 20)},
		"all of the nearest":       {Spec{Kind: KindAuto, Dim: 20, Recall: 1}, clustered(r, n, 20)},
		"what is to have no index": {Spec{Kind: KindFlat, Dim: 20}, clustered(r, n, 20)},
	} {
		c.spec.Metric = L2
		if info, image := detachedImage(t, c.spec, c.base); info.Kind != KindFlat || len(image) != 0 || info.Why == "" {
			t.Errorf("%s: built %+v", name, info)
		}
	}
	base := clustered(r, n, 20)
	for _, kind := range []Kind{KindHNSW, KindIVFFlat, KindScaNN} {
		var out bytes.Buffer
		if _, err := build(t, Spec{Kind: kind, Metric: L2, Dim: 20, EfConstruction: testEf}, base).WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(alignedCopy(out.Bytes()), nil); errclass.Of(err) != errclass.Invalid {
			t.Errorf("%s without vectors: %v", kind, err)
		}
	}
}
