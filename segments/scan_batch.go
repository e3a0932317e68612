package segments

import (
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
	if v.sparse != nil {
		return vectors{}, nil, false
	}
	allowed = v.present(allowed, n, sc)
	return v.vectors(), allowed, v.listsFor(q, n, allowed) == nil
}

// searchScan compares all queries of p with a block of rows before it reads the next one.
// They find the very same as one by one.
func (s *searching) searchScan(p *part, q *nearestQuery, rows vectors, n int, allowed *bitset.Set, sc *scratch) error {
	step := max(1, scanHeaps/max(q.k, 1))
	for from := p.from; from < p.to; from += step {
		to := min(from+step, p.to)
		err := sc.scanEach(to-from, func(i int, q *nearestQuery) { s.req.vector(from+i, q) }, q, rows, n, allowed)
		if err != nil {
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

// scanEach is scan for so many queries, whose vectors vector sets, in the same blocks. What is
// found is left in sc.scans.
func (sc *scratch) scanEach(queries int, vector func(i int, q *nearestQuery), q *nearestQuery, v vectors, n int, allowed *bitset.Set) error {
	b, one := &sc.scans, *q
	for len(b.tops) < queries {
		b.tops = append(b.tops, vec.TopK{})
	}
	b.inv = grown(b.inv, queries)
	for i := range b.inv {
		b.tops[i].Reset(q.k)
		vector(i, &one)
		var err error
		if b.inv[i], err = sc.prepare(&v, &one); err != nil {
			return err
		}
	}
	for at := q.from; at < n; {
		if q.stop != nil && q.stop.Load() {
			return q.cut()
		}
		first, end := at, min(at+scanBlock, n)
		rows, way := end-at, wayScan
		if at = end; allowed != nil {
			at = sc.nextIDs(allowed, first, n)
			rows, way = len(sc.ids), wayScanMatches
		}
		out := sc.out[:rows]
		for i, inv := range b.inv {
			vector(i, &one)
			if allowed == nil {
				sc.rowDistances(&one, inv, v, first, out)
				sc.keepRun(&b.tops[i], q, uint32(first), out)
			} else {
				sc.idDistances(&one, inv, v, out)
				sc.keepIDs(&b.tops[i], q, out)
			}
		}
		sc.work.note(way, rows*queries, 0)
	}
	return nil
}
