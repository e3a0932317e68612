package index

import (
	"github.com/querynode/querynode/internal/vec"
)

// searchWide is a search with a filter, or with more candidates than a sorted
// array is good for. It scans if few rows are allowed. Otherwise it walks through
// disallowed rows as well, and scans after all if the walk has cost as much as
// that would have: the allowed rows are then far from the query.
func (g *sqGraph) searchWide(vector []float32, sq *sqQuery, k, ef int, q *Query, s *Scratch) []Neighbor {
	var allowed []uint64
	c := g.rows
	if q.Allowed != nil {
		allowed = nonNil(q.Allowed.Words())
		c = min(q.Allowed.Count(), g.rows)
		ef = filteredEf(k, ef, c, g.rows)
	}
	if !cheaperToScan(c, g.rows, ef, g.m) {
		if row, d := g.descend(sq, 0, s); g.walkAllowed(sq, vec.Key(d, row), ef, allowed, c, s) {
			return g.rank(vector, g.sorted(s), k, allowed, s)
		}
	}
	return g.scanCodes(vector, sq, k, allowed, s)
}

// sorted empties s.top into s.pool.
func (g *sqGraph) sorted(s *Scratch) []uint64 {
	s.pool = s.top.AppendKeys(s.pool[:0])
	return s.pool
}

// scanCodes scans the rows allowed (nil: all) by their codes and ranks the best.
func (g *sqGraph) scanCodes(vector []float32, sq *sqQuery, k int, allowed []uint64, s *Scratch) []Neighbor {
	s.stats.Scanned = true
	s.top.Reset(max(4*k, k+64))
	ids := s.ids[:0]
	for w := range (g.rows + 63) / 64 {
		set := wordMask(g.rows, w)
		if allowed != nil {
			if w >= len(allowed) {
				break
			}
			set &= allowed[w]
		}
		if set == 0 {
			continue
		}
		if ids = appendRows(ids, w, set); len(ids) > scanChunk-64 {
			if s.stopped() {
				break
			}
			g.scanIDs(sq, ids, s)
			ids = ids[:0]
		}
	}
	if !s.stats.Stopped {
		g.scanIDs(sq, ids, s)
	}
	keys := g.sorted(s)
	// Twins are rows of their own here.
	twins := g.twins
	if twins == nil {
		return g.rank(vector, keys, k, nil, s)
	}
	alone := *g
	alone.twins = nil
	return alone.rank(vector, keys, k, nil, s)
}

func (g *sqGraph) scanIDs(sq *sqQuery, ids []uint32, s *Scratch) {
	out := s.dist[:len(ids)]
	g.fetch(ids[:min(len(ids), 32)])
	g.code.distances(sq, g.records, ids, out)
	s.top.PushAll(ids, out)
	s.stats.Distances += len(ids)
}

// walkAllowed walks level 0 from a row on and keeps the ef nearest rows by code
// that lead to one in the set (nil: all) in s.top. It gives up and reports false
// after budget distances.
func (g *sqGraph) walkAllowed(sq *sqQuery, from uint64, ef int, allowed []uint64, budget int, s *Scratch) bool {
	s.top.Reset(ef)
	w := &s.walk
	w.begin(g, *sq, uint32(from), vec.Unkey(from).Distance, 1, 0)
	spent := s.stats.Distances
	s.cand = s.cand[:0]
	s.cand.push(from)
	if g.leads(uint32(from), allowed, s) {
		s.top.PushKey(from)
	}
	for len(s.cand) > 0 {
		key := s.cand.pop()
		if key >= s.top.BoundKey() {
			break
		}
		w.gather(g, g.list(uint32(key), 0))
		n := w.n
		g.fetch(w.ids[:n])
		if len(s.cand) > 0 { // likely the next one
			vec.Prefetch(g.list(uint32(s.cand[0]), 0))
		}
		ids, dist := w.ids[:n], w.dist[:n]
		g.code.distances(sq, g.records, ids, dist)
		s.stats.Distances += n
		if s.top.Full() {
			n = g.kern.Below(ids, dist, s.top.Bound())
		}
		for i, id := range ids[:n] {
			if key := vec.Key(dist[i], id); key < s.top.BoundKey() {
				s.cand.push(key)
				if g.leads(id, allowed, s) {
					s.top.PushKey(key)
				}
			}
		}
		if s.stats.Hops++; s.stats.Hops&15 == 0 && s.stopped() {
			break
		}
		if allowed != nil && s.stats.Distances-spent > budget {
			return false
		}
	}
	return true
}

// leads reports whether a row or one of its twins is allowed (nil: all are).
func (g *sqGraph) leads(row uint32, allowed []uint64, s *Scratch) bool {
	for ok := true; ok; row, ok = g.follow(row, s) {
		if allowed == nil || has(allowed, row) {
			return true
		}
	}
	return false
}
