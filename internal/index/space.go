package index

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// space is a set of vectors with a distance on it.
type space struct {
	kern   vec.Kernels
	metric Metric
	dim    int
	base   []float32 // row i at [i*dim, (i+1)*dim); the caller's
	inv    []float32 // inverse norm of each row, 0 for one of length 0; Cosine only
}

func (sp *space) vector(row uint32) []float32 {
	return sp.base[int(row)*sp.dim:][:sp.dim]
}

// scale is the factor by which dot products with q are multiplied.
func (sp *space) scale(q []float32) float32 {
	if sp.metric == Cosine {
		return sp.kern.InvNorm(q)
	}
	return 1
}

// rowScale is scale for a row, whose norm is known.
func (sp *space) rowScale(row uint32) float32 {
	if sp.metric == Cosine {
		return sp.inv[row]
	}
	return 1
}

// byID writes the distances of q and the rows ids to out. scale is that of q.
func (sp *space) byID(q []float32, scale float32, ids []uint32, out []float32) {
	switch sp.metric {
	case L2:
		sp.kern.L2IDs(q, sp.base, sp.dim, ids, out)
	case IP:
		sp.kern.DotIDs(q, sp.base, sp.dim, ids, out)
		for i := range ids {
			out[i] = -out[i]
		}
	default:
		sp.kern.DotIDs(q, sp.base, sp.dim, ids, out)
		for i, id := range ids {
			out[i] = 1 - out[i]*scale*sp.inv[id]
		}
	}
}

// run writes the distances of q and the rows from first on to out.
func (sp *space) run(q []float32, scale float32, first int, out []float32) {
	rows := sp.base[first*sp.dim : (first+len(out))*sp.dim]
	switch sp.metric {
	case L2:
		sp.kern.L2Rows(q, rows, sp.dim, out)
	case IP:
		sp.kern.DotRows(q, rows, sp.dim, out)
		for i := range out {
			out[i] = -out[i]
		}
	default:
		sp.kern.DotRows(q, rows, sp.dim, out)
		for i, inv := range sp.inv[first:][:len(out)] {
			out[i] = 1 - out[i]*scale*inv
		}
	}
}

// scanChunk is how many rows a scan works on between looks at Stop.
const scanChunk = 256

// scan pushes rows below n to s.top: those that are in both sets, where a nil
// set holds every row. ready is read atomically, allowed is not.
func (sp *space) scan(q []float32, scale float32, n int, allowed, ready []uint64, s *Scratch) {
	if allowed == nil && ready == nil {
		for first := 0; first < n && !s.stopped(); first += scanChunk {
			sp.scanRun(q, scale, first, min(scanChunk, n-first), s)
		}
		return
	}
	words := (n + 63) / 64
	if allowed != nil {
		words = min(words, len(allowed))
	}
	ids := s.ids[:0]
	for w := range words {
		set := wordMask(n, w)
		if allowed != nil {
			set &= allowed[w]
		}
		if set != 0 && ready != nil {
			set &= atomic.LoadUint64(&ready[w])
		}
		if set == 0 {
			continue
		}
		ids = appendRows(ids, w, set)
		if len(ids) > scanChunk-64 {
			if s.stopped() {
				return
			}
			sp.scanIDs(q, scale, ids, s)
			ids = ids[:0]
		}
	}
	if !s.stopped() {
		sp.scanIDs(q, scale, ids, s)
	}
}

func (sp *space) scanRun(q []float32, scale float32, first, n int, s *Scratch) {
	out := s.dist[:n]
	sp.run(q, scale, first, out)
	s.top.PushRun(uint32(first), out)
	s.stats.Distances += n
}

// scanIDs takes ascending ids; a gapless run of them is read in one sweep.
func (sp *space) scanIDs(q []float32, scale float32, ids []uint32, s *Scratch) {
	if len(ids) == 0 {
		return
	}
	if first := ids[0]; int(ids[len(ids)-1]-first) == len(ids)-1 {
		sp.scanRun(q, scale, int(first), len(ids), s)
		return
	}
	out := s.dist[:len(ids)]
	sp.byID(q, scale, ids, out)
	s.top.PushAll(ids, out)
	s.stats.Distances += len(ids)
}
