package index

import (
	"fmt"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

func BenchmarkInsert(b *testing.B) {
	const n, dim = 5000, 128
	base := clustered(rng(1), n, dim)
	for b.Loop() {
		h := newHNSW(b, HNSWOptions{Dim: dim, Metric: L2, Capacity: n}, base)
		insertAll(b, h, n, 2)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/row")
}

func BenchmarkSearch(b *testing.B) {
	const n, dim = 10_000, 128
	r := rng(2)
	base := clustered(r, n+100, dim)
	base, queries := base[:n*dim], base[n*dim:]
	h := newHNSW(b, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, EfConstruction: 100}, base)
	insertAll(b, h, n, 2)
	f := newFlat(b, dim, L2, base)
	var s Scratch
	run := func(name string, search func(q []float32)) {
		b.Run(name, func(b *testing.B) {
			distances, i := 0, 0
			for b.Loop() {
				search(queries[i%100*dim:][:dim])
				distances += s.Stats().Distances
				i++
			}
			b.ReportMetric(float64(distances)/float64(b.N), "distances/op")
		})
	}
	for _, ef := range []int{32, 64, 128} {
		run(fmt.Sprintf("hnsw/ef=%d", ef), func(q []float32) { h.Search(q, 10, ef, nil, &s) })
	}
	for _, selected := range []float64{0.5, 0.1, 0.01} {
		allowed := bitset.New(n)
		for i := range n {
			if r.Float64() < selected {
				allowed.Add(i)
			}
		}
		run(fmt.Sprintf("hnsw/ef=64/allowed=%g", selected), func(q []float32) { h.Search(q, 10, 64, allowed, &s) })
	}
	run("flat", func(q []float32) { f.Search(q, 10, nil, &s) })
}
