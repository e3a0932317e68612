package index

import "github.com/querynode/querynode/internal/vec"

// flatHeaps bounds what the rows found for queries that share a scan take, in rows: they
// are looked at for each block of rows.
const flatHeaps = 1 << 15

// flatBatch is what a scan for many queries works in.
type flatBatch struct {
	tops   []vec.TopK
	scales []float32
}

func (b *flatBatch) bytes() int {
	n := 4 * cap(b.scales)
	for i := range b.tops {
		n += b.tops[i].Bytes()
	}
	return n
}

// SearchBatch compares all vectors with a block of rows before it reads the next. It finds
// the very same as Search.
func (x *flatSearcher) SearchBatch(vectors []float32, q *Query, s *Scratch, found func(i int, rows []Neighbor)) {
	f := x.f
	var words []uint64
	if q.Allowed != nil {
		words = nonNil(q.Allowed.Words())
	}
	n, step := len(vectors)/f.dim, max(1, flatHeaps/max(q.K, 1))
	s.begin(0)
	s.stats.Scanned = true
	for from := 0; from < n; from += step {
		to := min(from+step, n)
		block, b := vectors[from*f.dim:to*f.dim], &s.flat
		for len(b.tops) < to-from {
			b.tops = append(b.tops, vec.TopK{})
		}
		b.scales = grown(b.scales, to-from)
		for i := range b.scales {
			b.tops[i].Reset(q.K)
			b.scales[i] = f.scale(block[i*f.dim:][:f.dim])
		}
		f.scanEach(block, f.Len(), words, s)
		for i := range to - from {
			s.out = b.tops[i].AppendSorted(s.out[:0])
			found(from+i, q.within(s.out))
		}
	}
}

// scanEach is scan for each of the vectors, in the same blocks.
func (sp *space) scanEach(vectors []float32, n int, allowed []uint64, s *Scratch) {
	if allowed == nil {
		for first := 0; first < n && !s.stopped(); first += scanChunk {
			sp.runEach(vectors, first, min(scanChunk, n-first), s)
		}
		return
	}
	ids := s.ids[:0]
	for w := range min((n+63)/64, len(allowed)) {
		if ids = appendRows(ids, w, allowed[w]&wordMask(n, w)); len(ids) > scanChunk-64 {
			if s.stopped() {
				return
			}
			sp.idsEach(vectors, ids, s)
			ids = ids[:0]
		}
	}
	if !s.stopped() {
		sp.idsEach(vectors, ids, s)
	}
}

// runEach is scanRun for each of the vectors.
func (sp *space) runEach(vectors []float32, first, n int, s *Scratch) {
	out := s.dist[:n]
	for i, scale := range s.flat.scales {
		sp.run(vectors[i*sp.dim:][:sp.dim], scale, first, out)
		s.flat.tops[i].PushRun(uint32(first), out)
	}
	s.stats.Distances += n * len(s.flat.scales)
}

// idsEach is scanIDs for each of the vectors.
func (sp *space) idsEach(vectors []float32, ids []uint32, s *Scratch) {
	if len(ids) == 0 {
		return
	}
	if first := ids[0]; int(ids[len(ids)-1]-first) == len(ids)-1 {
		sp.runEach(vectors, int(first), len(ids), s)
		return
	}
	out := s.dist[:len(ids)]
	for i, scale := range s.flat.scales {
		sp.byID(vectors[i*sp.dim:][:sp.dim], scale, ids, out)
		s.flat.tops[i].PushAll(ids, out)
	}
	s.stats.Distances += len(ids) * len(s.flat.scales)
}
