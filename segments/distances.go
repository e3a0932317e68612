package segments

import (
	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/schema"
)

// visit gets some rows in ascending order with their distances from the query.
// The slices are valid during the call.
type visit func(rows []uint32, distances []float32) error

// kernelRows is a multiple of how many rows a kernel takes at once: those that are
// left over take another way through it, and may differ in the last bit. It
// divides scanBlock.
const kernelRows = 16

// distances computes the distance of every allowed row (nil = all) in
// [q.from, n), always by the same kernel: a row has the same distance to the last bit
// in a growing and in a sealed segment, and whatever rows stand beside it.
func (sc *scratch) distances(v vectors, n int, q *nearestQuery, allowed *bitset.Set, see visit) error {
	inv, err := sc.prepare(&v, q)
	if err != nil {
		return err
	}
	way := wayScan
	if allowed != nil {
		way = wayScanMatches
	}
	for at := q.from; at < n; {
		if q.stop != nil && q.stop.Load() {
			return q.cut()
		}
		if allowed != nil {
			at = sc.nextIDs(allowed, at, n)
		} else {
			sc.ids = sc.ids[:0]
			for ; at < n && len(sc.ids) < scanBlock; at++ {
				sc.ids = append(sc.ids, uint32(at))
			}
		}
		if len(sc.ids) == 0 {
			break
		}
		rows := len(sc.ids)
		for len(sc.ids)%kernelRows != 0 {
			sc.ids = append(sc.ids, sc.ids[rows-1])
		}
		sc.idDistances(q, inv, v, sc.out[:len(sc.ids)])
		sc.work.note(way, rows, 0)
		if err := see(sc.ids[:rows], sc.out[:rows]); err != nil {
			return err
		}
	}
	return nil
}

// distances computes the distance of every allowed row that has one.
func (s *Sealed) distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error {
	return s.field(q.fieldID).distances(q, n, allowed, sc, see)
}

func (v *sealedVectors) distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error {
	if v.typ == schema.SparseFloatVector {
		return sc.sparseDistances(v.terms(q, sc), n, q, allowed, see)
	}
	return sc.distances(v.vectorsFor(q), n, q, v.present(allowed, n, sc), see)
}

// distances computes the distance of every allowed row that has one.
func (g *Growing) distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error {
	return g.field(q.fieldID).distances(q, n, allowed, sc, see)
}

func (v *growingVectors) distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error {
	if v.sparse != nil {
		return sc.sparseDistances(v.sparse.terms(q, sc), n, q, allowed, see)
	}
	return sc.distances(v.vectors(), n, q, v.present(allowed, n, sc), see)
}
