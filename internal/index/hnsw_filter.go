package index

import (
	"math"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// noBudget lets a walk compute as many distances as it wants.
const noBudget = int(^uint(0) >> 1)

// scanGain is how many rows a scan reads in the time in which a walk follows the
// links of one row, as a multiple of M. Measured on 20,000 rows of 100 values
// (scan and walk cost the same at 20 % selected, ef 64) and 150,000 of 128 (4.5 %).
const scanGain = 1.5

// cheaperToScan decides between scanning the c allowed ones of n rows and a
// walk that keeps ef allowed rows, and so follows the links of about ef*n/c.
func cheaperToScan(c, n, ef, m int) bool {
	hops := float64(ef) * float64(n) / float64(max(c, 1))
	return float64(c) <= scanGain*float64(m)*hops
}

// filteredEf is how many allowed rows a filtered walk keeps, so that it finds
// about as much as an unfiltered one with ef. The walk passes n/c rows for each
// that it keeps: keeping ef of them would be far more than asked for.
func filteredEf(k, ef, c, n int) int {
	want := int(math.Ceil(float64(ef) * math.Sqrt(float64(c)/float64(max(n, 1)))))
	return min(max(want, k), c)
}

// searchFiltered scans if few rows are allowed. Otherwise it walks through
// disallowed rows as well, and scans after all if the walk has cost as much as
// that would have: the allowed rows are then far from the query.
func (h *HNSW) searchFiltered(q []float32, scale float32, k, ef int, allowed *bitset.Set, s *Scratch) []Neighbor {
	words := nonNil(allowed.Words())
	n := h.Len()
	c := min(allowed.Count(), n)
	ef = filteredEf(k, ef, c, n)
	if cheaperToScan(c, n, ef, h.m) {
		return h.exact(q, scale, k, words, s)
	}
	row, level, _ := h.start()
	row, d := h.descend(q, scale, row, level, 0, s)
	s.seen.reset(h.capacity)
	s.seen.add(row)
	if !h.walkAllowed(q, scale, Neighbor{Row: row, Distance: d}, ef, words, c, s) {
		return h.exact(q, scale, k, words, s)
	}
	return h.take(k, s)
}

// walkAllowed walks level 0 from a row on and keeps the ef nearest rows that
// are complete and in the set (nil: all) in s.top. It gives up and reports
// false after budget distances.
func (h *HNSW) walkAllowed(q []float32, scale float32, from Neighbor, ef int, allowed []uint64, budget int, s *Scratch) bool {
	s.top.Reset(ef)
	spent := s.stats.Distances
	first := vec.Key(from.Distance, from.Row)
	h.offer(first, allowed, s)
	s.cand.push(first)
	for len(s.cand) > 0 {
		key := s.cand.pop()
		if key >= s.top.BoundKey() {
			break
		}
		n := h.gather(h.list(uint32(key), 0), s)
		if len(s.cand) > 0 { // likely the next one
			vec.Prefetch(h.list(uint32(s.cand[0]), 0))
		}
		h.byID(q, scale, s.ids[:n], s.dist)
		s.stats.Distances += n
		for i, id := range s.ids[:n] {
			if key := vec.Key(s.dist[i], id); key < s.top.BoundKey() {
				s.cand.push(key)
				h.offer(key, allowed, s)
			}
		}
		if s.stats.Hops++; s.stats.Hops&15 == 0 && s.stopped() {
			break
		}
		if s.stats.Distances-spent > budget {
			return false
		}
	}
	return true
}
