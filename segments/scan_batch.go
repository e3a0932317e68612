package segments

import (
	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// scanHeaps bounds what queries that share a scan have found, in rows: it is looked at for
// each block of rows.
const scanHeaps = 1 << 15

// scanScratch is what a scan for many queries works in.
type scanScratch struct {
	tops []vec.TopK
	inv  []float32 // inverse norms of the queries, for Cosine
}

// scanner is a segment some of whose searches look at every row.
type scanner interface {
	// toScan returns the vectors that nearest scans for q, of the first n rows those of
	// the set (nil = all); false if it does something else.
	toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool)
}

func (s *Sealed) toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool) {
	return s.field(q.fieldID).toScan(q, n, allowed, sc)
}

func (v *sealedVectors) toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool) {
	if v.typ == schema.SparseFloatVector || !v.scans(q) {
		return vectors{}, nil, false
	}
	return v.vectorsFor(q), v.present(allowed, n, sc), true
}

func (g *Growing) toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool) {
	return g.field(q.fieldID).toScan(q, n, allowed, sc)
}

func (v *growingVectors) toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool) {
	if v.sparse != nil || v.listsFor(q, n) != nil {
		return vectors{}, nil, false
	}
	return v.vectors(), v.present(allowed, n, sc), true
}

// searchScan compares all queries of p with a block of rows before it reads the next one.
// They find the very same as one by one.
func (s *searching) searchScan(p *part, q *nearestQuery, rows vectors, n int, allowed *bitset.Set, sc *scratch) error {
	step := max(1, scanHeaps/max(q.k, 1))
	for from := p.from; from < p.to; from += step {
		to := min(from+step, p.to)
		if err := s.scanEach(from, to, q, rows, n, allowed, sc); err != nil {
			return err
		}
		for i := range to - from {
			sc.rest = sc.scans.tops[i].AppendSorted(sc.rest[:0])
			p.found = append(p.found, s.withinRadius(sc.rest)...)
			p.ends = append(p.ends, int32(len(p.found)))
		}
	}
	return nil
}

// scanEach is scan for queries [from, to), in the same blocks. What is found is left in sc.scans.
func (s *searching) scanEach(from, to int, q *nearestQuery, v vectors, n int, allowed *bitset.Set, sc *scratch) error {
	b := &sc.scans
	for len(b.tops) < to-from {
		b.tops = append(b.tops, vec.TopK{})
	}
	b.inv = grown(b.inv, to-from)
	for i := range b.inv {
		b.tops[i].Reset(q.k)
		s.req.vector(from+i, q)
		var err error
		if b.inv[i], err = sc.prepare(&v, q); err != nil {
			return err
		}
	}
	for at := q.from; at < n; {
		if q.stop != nil && q.stop.Load() {
			return errors.Wrap(q.ctx.Err(), "search")
		}
		first, end := at, min(at+scanBlock, n)
		rows, way := end-at, wayScan
		if at = end; allowed != nil {
			at = sc.nextIDs(allowed, first, n)
			rows, way = len(sc.ids), wayScanMatches
		}
		out := sc.out[:rows]
		for i, inv := range b.inv {
			s.req.vector(from+i, q)
			if allowed == nil {
				sc.rowDistances(q, inv, v, first, out)
				sc.keepRun(&b.tops[i], q, uint32(first), out)
			} else {
				sc.idDistances(q, inv, v, out)
				sc.keepIDs(&b.tops[i], q, out)
			}
		}
		sc.work.note(way, rows*(to-from), 0)
	}
	return nil
}
