package segments

import (
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

const (
	// batchQueries is how many queries a segment is asked for at a time.
	batchQueries = 1024
	// batchRows bounds what they find, where that is more than is wanted.
	batchRows = 1 << 18
)

// batcher is a segment that searches for many queries together.
type batcher interface {
	// nearestEach finds what nearest does for each of the vectors, which lie one behind the
	// other and are float32, and leaves it in sc.batch; only where scans is false.
	nearestEach(q *nearestQuery, vectors []float32, n int, allowed *bitset.Set, sc *scratch) error
}

// searchEach searches for all queries of p: together where they can share what is read, else
// for one after the other.
func (s *searching) searchEach(t *target, p *part, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
	if p.to-p.from > 1 {
		ask := q.widened(n)
		if rows, allowed, ok := t.toScan(&ask, n, allowed, sc); ok {
			return s.searchScan(p, q, rows, n, allowed, sc)
		}
		if x, ok := t.segment.(batcher); ok && s.req.Queries == nil && !t.scans(&ask) {
			return s.searchBatch(x, t, p, q, n, allowed, sc)
		}
	}
	for i := p.from; i < p.to; i++ {
		s.req.vector(i, q)
		if s.bounded {
			q.limit, q.limited = s.merger.worst.of(i)
		}
		found, err := s.nearest(t, q, n, allowed, sc)
		if err != nil {
			return err
		}
		p.found = append(p.found, s.withinBound(i, s.withinRadius(found))...)
		p.ends = append(p.ends, int32(len(p.found)))
	}
	return nil
}

// nearest finds the nearest rows of t. If too few of those that an index has found are far
// enough the rows are scanned.
func (s *searching) nearest(t *target, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]vec.Neighbor, error) {
	if !q.bounded || t.scans(q) {
		return t.nearest(q, n, allowed, sc)
	}
	wide := q.widened(n)
	found, err := t.nearest(&wide, n, allowed, sc)
	if err != nil {
		return nil, err
	}
	if from, to, ok := s.farEnough(q, found); ok {
		return found[from:to], nil
	}
	scan := *q
	scan.exact = true
	return t.nearest(&scan, n, allowed, sc)
}

// searchBatch searches for all queries of p together, and scans, as nearest does, for those
// that too few rows are far enough for.
func (s *searching) searchBatch(x batcher, t *target, p *part, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
	dim, ask, b := len(s.req.Vectors)/s.req.NQ, q.widened(n), &sc.batch
	step := min(batchQueries, max(1, batchRows/max(ask.k, 1)))
	if s.bounded {
		ask.worst = &s.merger.worst
	}
	for from := p.from; from < p.to; from += step {
		to := min(from+step, p.to)
		ask.number = from
		b.reset(to - from)
		if err := x.nearestEach(&ask, s.req.Vectors[from*dim:to*dim], n, allowed, sc); err != nil {
			return err
		}
		if q.bounded {
			if err := s.cutNear(t, from, q, n, allowed, sc); err != nil {
				return err
			}
		}
		for i := range to - from {
			p.found = append(p.found, s.withinBound(from+i, s.withinRadius(b.of(i)))...)
			p.ends = append(p.ends, int32(len(p.found)))
		}
	}
	return nil
}

// cutNear cuts what is too near for the queries of a batch, the first of which is number
// first. Those that have too few rows then share a scan.
func (s *searching) cutNear(t *target, first int, q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) error {
	b, scan := &sc.batch, *q
	b.again = b.again[:0]
	for i, span := range b.spans {
		from, to, ok := s.farEnough(q, b.of(i))
		if b.spans[i] = [2]int{span[0] + from, span[0] + to}; !ok {
			b.again = append(b.again, i)
		}
	}
	if len(b.again) == 0 {
		return nil
	}
	scan.exact = true
	rows, allowed, ok := t.toScan(&scan, n, allowed, sc)
	if !ok {
		return nil // the field is not there any more
	}
	step := max(1, scanHeaps/max(q.k, 1))
	for some := range slices.Chunk(b.again, step) {
		err := sc.scanEach(len(some), func(i int, q *nearestQuery) { s.req.vector(first+some[i], q) }, &scan, rows, n, allowed)
		if err != nil {
			return err
		}
		for i, at := range some {
			sc.rest = sc.scans.tops[i].AppendSorted(sc.rest[:0])
			b.add(at, sc.rest)
		}
	}
	return nil
}

// widened is q as an index is asked for it, which does not know of rows that are too
// near: for more rows than are wanted.
func (q *nearestQuery) widened(n int) nearestQuery {
	wide := *q
	if q.bounded && !q.exact {
		wide.k, wide.bounded = min(4*q.k+64, n), false
		if wide.effort.EF > 0 { // else the index looks at as many as so many rows need
			wide.effort.EF = max(wide.effort.EF, wide.k)
		}
	}
	return wide
}

// farEnough returns which of the rows that a widened query has found are wanted; false =
// there may be others.
func (s *searching) farEnough(q *nearestQuery, found []vec.Neighbor) (from, to int, ok bool) {
	near := sort.Search(len(found), func(i int) bool { return q.keeps(found[i].Distance) })
	whole := len(found) > 0 && len(s.withinRadius(found[len(found)-1:])) == 0
	if len(found)-near >= q.k || whole {
		return near, min(near+q.k, len(found)), true
	}
	return 0, 0, false
}
