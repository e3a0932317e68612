package index

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Of the choice of how many lists are read by default.
const (
	calibrateK       = 10
	calibrateRecall  = 0.96
	calibrateQueries = 128
	calibrateSlow    = 2e9 // products, where all rows are looked at
	calibrateStep    = 16
)

// calibrate finds out how many lists hold most of the nearest rows of some rows,
// which stand for queries.
func (b *ivfBuilder) calibrate(int) error {
	b.effort = b.lists.n
	n := min(b.n, calibrateQueries)
	if n < 2 {
		return nil
	}
	if b.bytes == nil || b.kern.Level() != vec.AVX512 {
		n = min(n, max(calibrateSlow/(b.n*b.dim), calibrateStep))
	}
	rows := make([]uint32, n)
	for i := range rows {
		rows[i] = uint32((2*i + 1) * b.n / (2 * n))
	}
	// Of each neighbour of a row: how many lists are nearer to the row than the
	// neighbour's.
	var mu sync.Mutex
	var ranks []int
	nearest := make([][]Neighbor, n)
	err := parallel(b.ctx, b.o.Workers, n, calibrateStep, func() func(from, to int) error {
		var s Scratch
		vectors := make([]float32, 0, calibrateStep*b.dim)
		place := make([]int, b.lists.n)
		return func(from, to int) error {
			vectors = vectors[:0]
			for _, row := range rows[from:to] {
				vectors = append(vectors, b.vector(row)...)
			}
			near := nearest[from:to]
			b.exact(vectors, &s, func(i int, found []Neighbor) { near[i] = slices.Clone(found) })
			for i, found := range near {
				b.normalise(vectors[i*b.dim:][:b.dim], &s)
				b.nearestLists(&plan{lists: b.lists.n}, &s)
				b.order(b.lists.n, &s)
				for j, l := range s.ivf.lists {
					place[l] = j
				}
				mu.Lock()
				for _, f := range found {
					if f.Row != rows[from+i] {
						ranks = append(ranks, place[b.list[f.Row]])
					}
				}
				mu.Unlock()
			}
			return nil
		}
	})
	if err != nil || len(ranks) == 0 {
		return err
	}
	slices.Sort(ranks)
	most := ranks[min(int(calibrateRecall*float64(len(ranks))), len(ranks)-1)]
	b.effort = min(2+most+most/10, b.lists.n) // queries are no rows
	b.efforts, err = measureEfforts(1, b.lists.n, func(effort int) (float64, error) { return b.recall(rows, nearest, effort) })
	return err
}

// recall is the share of the nearest of some rows that searches for these rows find.
func (b *ivfBuilder) recall(rows []uint32, nearest [][]Neighbor, effort int) (float64, error) {
	var found, all atomic.Int64
	err := parallel(b.ctx, b.o.Workers, len(rows), calibrateStep, func() func(from, to int) error {
		var s Scratch
		return func(from, to int) error {
			for i, row := range rows[from:to] { // one by one, for which codes are shorter than in batches
				got := b.Search(b.vector(row), &Query{K: calibrateK + 1, Effort: effort}, &s)
				n, of := shareOf(nearest[from+i], got, row)
				found.Add(int64(n))
				all.Add(int64(of))
			}
			return nil
		}
	})
	return float64(found.Load()) / float64(max(all.Load(), 1)), err
}

// shareOf is how many of the nearest rows were got, and of how many, but for the row itself.
func shareOf(nearest, got []Neighbor, self uint32) (n, of int) {
	for _, near := range nearest {
		if near.Row == self {
			continue
		}
		of++
		if slices.ContainsFunc(got, func(x Neighbor) bool { return x.Row == near.Row }) {
			n++
		}
	}
	return n, of
}

// exact finds the nearest of all rows, or nearly so, of each of the vectors.
func (b *ivfBuilder) exact(vectors []float32, s *Scratch, found func(i int, rows []Neighbor)) {
	q := &Query{K: calibrateK + 1, Effort: b.lists.n}
	if b.bytes != nil && b.kern.Level() == vec.AVX512 {
		b.SearchBatch(vectors, q, s, found)
		return
	}
	for i := range len(vectors) / b.dim {
		s.begin(0)
		found(i, b.scanAll(vectors[i*b.dim:][:b.dim], &plan{k: min(q.K, b.n)}, s))
	}
}
