package segments

import (
	"math"

	"github.com/querynode/querynode/internal/index"
)

// ranksByCodes reports whether an index of a kind ranks what it finds by codes of the
// vectors, not by these.
func ranksByCodes(kind index.Kind) bool {
	return kind == index.KindHNSWSQ || kind == index.KindIVFSQ8 || kind == index.KindScaNN
}

// rawRefined is how many times the rows wanted are ranked by their vectors at least where these are not of
// float32: an index has codes of these alone.
const rawRefined = 1.25

// refined is how many rows of an index of a kind are ranked by their vectors; 0 = none.
func (q *nearestQuery) refined(kind index.Kind) int {
	if q.raw != nil {
		return max(q.k+1, int(math.Ceil(max(float64(q.effort.Refine), rawRefined)*float64(q.k))))
	}
	if q.effort.Refine <= 0 || !ranksByCodes(kind) {
		return 0
	}
	return max(q.k, int(math.Ceil(float64(q.effort.Refine)*float64(q.k))))
}

// exactly returns the vectors by which a query wants rows to be ranked; nil = it leaves
// that to the index.
func (v *sealedVectors) exactly(q *nearestQuery) *vectors {
	if q.refined(v.info.Kind) == 0 {
		return nil
	}
	return &vectors{base: v.base, raw: v.raw, typ: v.typ, dim: v.dim}
}

// refine ranks rows by vectors, as a scan of all rows does; nil leaves them as they are.
// The result is valid until the next scan.
func (sc *scratch) refine(q *nearestQuery, v *vectors, found []index.Neighbor) ([]index.Neighbor, error) {
	if v == nil || len(found) == 0 {
		return found, nil
	}
	inv, err := sc.prepare(v, q)
	if err != nil {
		return nil, err
	}
	sc.top.Reset(q.k)
	for len(found) > 0 {
		n := min(len(found), scanBlock)
		sc.ids = sc.ids[:0]
		for _, f := range found[:n] {
			sc.ids = append(sc.ids, f.Row)
		}
		for len(sc.ids)%kernelRows != 0 {
			sc.ids = append(sc.ids, sc.ids[n-1])
		}
		sc.idDistances(q, inv, *v, sc.out[:len(sc.ids)])
		sc.top.PushAll(sc.ids[:n], sc.out[:n])
		found = found[n:]
	}
	sc.rest = sc.top.AppendSorted(sc.rest[:0])
	return sc.rest, nil
}
