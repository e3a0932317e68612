package segments

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// scanBlock is the number of rows whose distances are computed at once: their
// results stay in the first-level cache.
const scanBlock = 512

// nearestQuery is one query vector against one field.
type nearestQuery struct {
	ctx     context.Context
	stop    *atomic.Bool // set when ctx ends
	fieldID int64
	vector  []float32
	k       int
	ef      int // HNSW candidate list; 0 = chosen by the index
	metric  index.Metric
	exact   bool    // scan even if there is a graph
	beyond  float32 // only distances >= beyond count; used with exact
	bounded bool    // beyond is set
}

// scratch is what one task of a search needs for itself. It is reused.
type scratch struct {
	index   index.Scratch
	kernels vec.Kernels
	top     vec.TopK
	out     []float32
	ids     []uint32
	allowed bitset.Set
	rows    bitset.Set // the filter's result
	rest    []index.Neighbor
	merged  []index.Neighbor
}

func newScratch() *scratch {
	return &scratch{kernels: vec.Detect(), out: make([]float32, scanBlock)}
}

// scan finds the nearest rows in [from, n) exactly. The result is valid until the next scan.
func (sc *scratch) scan(base []float32, dim, from, n int, q nearestQuery, allowed *bitset.Set) ([]index.Neighbor, error) {
	sc.top.Reset(q.k)
	inv := float32(0)
	if q.metric == index.Cosine {
		inv = sc.kernels.InvNorm(q.vector)
	}
	for at := from; at < n; {
		if err := q.ctx.Err(); err != nil {
			return nil, errors.Wrap(err, "search")
		}
		sc.ids = sc.ids[:0]
		end := min(at+scanBlock, n)
		if allowed == nil {
			out := sc.out[:end-at]
			sc.distances(q, inv, base[at*dim:end*dim], dim, nil, out)
			for i, d := range out {
				sc.keep(q, uint32(at+i), d)
			}
			at = end
			continue
		}
		for len(sc.ids) < scanBlock {
			r := allowed.Next(at)
			if r < 0 || r >= n {
				at = n
				break
			}
			sc.ids = append(sc.ids, uint32(r))
			at = r + 1
		}
		out := sc.out[:len(sc.ids)]
		sc.distances(q, inv, base[:n*dim], dim, sc.ids, out)
		for i, d := range out {
			sc.keep(q, sc.ids[i], d)
		}
	}
	sc.rest = sc.top.AppendSorted(sc.rest[:0])
	return sc.rest, nil
}

func (sc *scratch) keep(q nearestQuery, row uint32, d float32) {
	if q.bounded && d < q.beyond {
		return
	}
	sc.top.Push(row, d)
}

// distances fills out for the rows ids of base, or for all rows of base in order.
func (sc *scratch) distances(q nearestQuery, inv float32, base []float32, dim int, ids []uint32, out []float32) {
	switch {
	case q.metric == index.L2 && ids == nil:
		sc.kernels.L2Rows(q.vector, base, dim, out)
		return
	case q.metric == index.L2:
		sc.kernels.L2IDs(q.vector, base, dim, ids, out)
		return
	case ids == nil:
		sc.kernels.DotRows(q.vector, base, dim, out)
	default:
		sc.kernels.DotIDs(q.vector, base, dim, ids, out)
	}
	for i := range out {
		if q.metric != index.Cosine {
			out[i] = -out[i]
			continue
		}
		r := i
		if ids != nil {
			r = int(ids[i])
		}
		out[i] = 1 - out[i]*inv*sc.kernels.InvNorm(base[r*dim:(r+1)*dim])
	}
}

// walk searches the graph among its first n rows.
func (sc *scratch) walk(g *index.HNSW, q nearestQuery, allowed *bitset.Set, n int) ([]index.Neighbor, error) {
	if allowed == nil && n < g.Len() {
		sc.allowed.Reset(n)
		sc.allowed.Fill()
		allowed = &sc.allowed
	}
	ef := q.ef
	if ef == 0 {
		ef = defaultEf(q.k)
	}
	sc.index.Stop = q.stop
	return g.Search(q.vector, q.k, ef, allowed, &sc.index), errors.Wrap(q.ctx.Err(), "search")
}

// defaultEf is the candidate list of a search that did not choose: on word
// vectors, which are hard, it gives a recall of 0.99 at k = 10.
func defaultEf(k int) int { return 100 + k }

// distanceOf turns a score that a user wrote into a distance, smaller is nearer.
func distanceOf(m index.Metric, score float32) float32 {
	switch m {
	case index.IP:
		return -score
	case index.Cosine:
		return 1 - score
	}
	return score
}

// merge returns the k nearest of two sorted lists.
func (sc *scratch) merge(a, b []index.Neighbor, k int) []index.Neighbor {
	sc.merged = vec.AppendMerged(sc.merged[:0], k, a, b)
	return sc.merged
}
