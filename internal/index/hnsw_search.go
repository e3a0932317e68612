package index

import (
	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// Search returns k rows that are nearest to q, or nearly so, among those allowed
// (nil: all), nearest first. There are fewer only if fewer are allowed and
// inserted, or if s.Stop cut the search. Rows past allowed.Len() are not
// allowed. len(q) is the dimension. ef is how many candidates are kept: more
// give better results and cost more; below k it is k. The result belongs to s
// and is good until its next use.
//
// Where an exact scan of the allowed rows is cheaper than a walk, that is what
// happens; Stats of s tells.
func (h *HNSW) Search(q []float32, k, ef int, allowed *bitset.Set, s *Scratch) []Neighbor {
	if len(q) != h.dim {
		panic(errors.AssertionFailedf("query of %d values in an index of dimension %d", len(q), h.dim))
	}
	s.begin(h.m0)
	n := h.Len()
	row, level, ok := h.start()
	if k <= 0 || n == 0 || !ok {
		return s.out
	}
	k = min(k, n)
	ef = min(max(ef, k), n)
	scale := h.scale(q)
	if allowed != nil {
		return h.searchFiltered(q, scale, k, ef, allowed, s)
	}
	if cheaperToScan(n, n, ef, h.m) {
		return h.exact(q, scale, k, nil, s)
	}
	// Rows being inserted may take the place of rows that can be returned.
	ef += int(h.running.Load())
	row, d := h.descend(q, scale, row, level, 0, s)
	s.seen.reset(h.capacity)
	s.seen.add(row)
	if ef > poolMost {
		h.walkAllowed(q, scale, Neighbor{Row: row, Distance: d}, ef, nil, noBudget, s)
		return h.take(k, s)
	}
	s.pool = append(s.pool, poolKey(d, row))
	h.walk(q, scale, 0, ef, s)
	s.top.Reset(k)
	for _, key := range s.pool {
		if d := poolDistance(key); d <= s.top.Bound() {
			h.offer(vec.Key(d, poolRow(key)), nil, s)
		}
	}
	return h.take(k, s)
}

// poolMost is the largest ef for which a sorted array beats two heaps.
const poolMost = 1024

// exact scans the rows of a set (nil: all) that are complete.
func (h *HNSW) exact(q []float32, scale float32, k int, allowed []uint64, s *Scratch) []Neighbor {
	s.stats.Scanned = true
	s.top.Reset(k)
	h.scan(q, scale, h.capacity, allowed, h.ready, s)
	s.out = s.top.AppendSorted(s.out[:0])
	return s.out
}

// take returns the k nearest rows of s.top.
func (h *HNSW) take(k int, s *Scratch) []Neighbor {
	s.out = s.top.AppendSorted(s.out[:0])
	s.out = s.out[:min(k, len(s.out))]
	return s.out
}
