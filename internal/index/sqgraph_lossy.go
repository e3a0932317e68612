package index

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

// sharedLoss is the part of the rows wanted that a search that reads lists may find less of than the walk which it
// is in place of.
const sharedLoss = 0.005

func newProbe(row uint32, points int) probe {
	p := probe{row: row, kth: make([]float32, points), found: make([]int, points)}
	for i := range p.found {
		p.found[i] = -1
	}
	return p
}

// dropLossy does without lists from the effort on at which they find less than walks do: what is ranked is chosen
// by coarse codes, which tell rows of few directions, or very near to one another, less well apart. Products are
// asked for by vectors unlike the rows, of which nothing is known: lists are not read for these.
func (m *shareMeasure) dropLossy(ctx context.Context, workers int) error {
	g := m.g
	if g.metric == IP {
		for i := range g.shares {
			g.shares[i].lists = 0
		}
		return nil
	}
	for first, table := 0, g.shares; len(table) > 0; {
		part, rest := table.part()
		for i := len(part) - 1; i >= 0; i-- { // what the most loses nothing by, less does not either
			lossy, err := m.lossy(ctx, workers, first+i)
			if err != nil {
				return errors.Wrap(err, "measure what lists find")
			}
			if !lossy && part[i].lists > 0 {
				break
			}
			part[i].lists = 0
		}
		first, table = first+len(part), rest
	}
	return nil
}

// lossy says whether lists find less than walks at a point.
func (m *shareMeasure) lossy(ctx context.Context, workers, at int) (bool, error) {
	g, point := m.g, m.g.shares[at]
	if point.lists == 0 {
		return false, nil
	}
	var lost, of atomic.Int64
	err := parallel(ctx, workers, len(m.probes), shareBlock, func() func(from, to int) error {
		var s Scratch
		var vectors []float32
		return func(from, to int) error {
			vectors = vectors[:0]
			for _, p := range m.probes[from:to] {
				vectors = append(vectors, g.vector(p.row)...)
			}
			less, all := g.sharedLess(m.probes[from:to], vectors, at, point, &s)
			lost.Add(int64(less))
			of.Add(int64(all))
			return nil
		}
	})
	return float64(lost.Load()) > sharedLoss*float64(of.Load()), err
}

// sharedLess is how many fewer of the nearest rows of some probes lists find than walks did, at a point, and of how many.
func (g *sqGraph) sharedLess(probes []probe, vectors []float32, at int, point share, s *Scratch) (less, of int) {
	k := int(point.rows)
	found := make([][]Neighbor, len(probes))
	// One more, for a probe is a row itself.
	g.shareBatch(vectors, &Query{K: k + 1}, k+1, int(point.effort), int(point.lists), s, func(i int, rows []Neighbor) {
		found[i] = append(found[i], rows...)
	})
	for i, p := range probes {
		if p.found[at] < 0 {
			continue
		}
		n := 0
		for _, x := range found[i] {
			if x.Row != p.row && n < k && g.exactly(g.vector(p.row), x.Row, s) <= p.kth[at] {
				n++
			}
		}
		less, of = less+p.found[at]-n, of+k
	}
	return less, of
}
