package index

import (
	"github.com/querynode/querynode/internal/vec"
)

// searchWide is a search with a filter, or with more candidates than a sorted
// array is good for. It scans if few rows are allowed, reads lists of near rows unless most
// are, and otherwise, or where there are no lists, walks, and scans if that has found too few.
func (g *sqGraph) searchWide(vector []float32, sq *sqQuery, k, ef int, q *Query, s *Scratch) []Neighbor {
	if q.Allowed == nil {
		if !g.cheaperToScan(g.rows, ef) {
			row, d := g.entry(sq, s)
			g.walkThrough(sq, vec.Key(d, row), ef, nil, g.rows, s)
			return g.rank(vector, sq, g.sorted(s), k, nil, s)
		}
		return g.scanCodes(vector, sq, k, ef, nil, s)
	}
	allowed := nonNil(q.Allowed.Words())
	if known := g.filters.find(allowed); known != nil {
		return g.searchLists(vector, sq, k, ef, len(known.rows), allowed, known, s)
	}
	c := min(q.Allowed.Count(), g.rows)
	if g.lists != nil && float64(c) < listMost*float64(g.rows) {
		if g.scansAllowed(c, ef) {
			return g.scanCodes(vector, sq, k, ef, allowed, s)
		}
		return g.searchLists(vector, sq, k, ef, c, allowed, g.learn(allowed, c), s)
	}
	if !g.scanFiltered(c, ef) {
		row, d := g.entry(sq, s)
		from := vec.Key(d, row)
		if float64(c) >= mostAllowed*float64(g.rows) || ef > poolMost/hopsWide {
			if g.walkThrough(sq, from, filteredEf(k, ef, c, g.rows), allowed, c, s) {
				return g.rank(vector, sq, g.sorted(s), k, allowed, s)
			}
		}
		if ef <= poolMost/hopsWide && !s.stats.Stopped && g.walkTwoHop(sq, from, k, max(k, filteredPart(ef, c, g.rows)), ef, c, allowed, s) {
			return g.end(vector, &s.walk, k, allowed, s)
		}
	}
	return g.scanCodes(vector, sq, k, ef, allowed, s)
}

// codeScanGain is how much more a scan of codes gains on a walk than one of
// vectors does. Measured on 340,000 rows with records of a line.
const codeScanGain = 2

// cheaperToScan is what it is for vectors.
func (g *sqGraph) cheaperToScan(c, ef int) bool {
	return cheaperToScan(c, g.rows, ef*codeScanGain, g.m)
}

// sorted empties s.top into s.pool.
func (g *sqGraph) sorted(s *Scratch) []uint64 {
	s.pool = s.top.AppendKeys(s.pool[:0])
	return s.pool
}

// scanCodes scans the rows allowed (nil: all) by their codes and ranks the best.
func (g *sqGraph) scanCodes(vector []float32, sq *sqQuery, k, ef int, allowed []uint64, s *Scratch) []Neighbor {
	s.stats.Scanned = true
	f := &s.lists
	f.cands.reset(codeRank(k, ef))
	ids := grown(f.ids, listChunk)[:0]
	words := (g.rows + 63) / 64
	if allowed != nil {
		words = min(words, len(allowed))
	}
	for w := range words {
		set := wordMask(g.rows, w)
		if allowed != nil {
			set &= allowed[w]
		}
		if set == 0 {
			continue
		}
		from := len(ids)
		ids = appendRows(ids, w, set)
		g.fetch(ids[from:])
		if from > scanStep {
			if s.stopped() {
				break
			}
			g.collect(sq, ids[:from], s)
			ids = ids[:copy(ids, ids[from:])]
		}
	}
	if f.ids = ids; !s.stats.Stopped {
		g.collect(sq, ids, s)
	}
	return g.collected(vector, sq, k, s)
}

// scanStep is how many rows at least are scanned at once, while the next ones are on their way.
const scanStep = 32

// mostAllowed is the part of the rows from which walks lead through disallowed ones.
const mostAllowed = 0.3

// How such a walk finds out that the rows allowed are somewhere else than the query:
// after so many rows near enough, it has met fewer of them than this part of their
// share.
const (
	astrayAfter = 256
	astrayShare = 0.25
)

// walkThrough walks level 0 from a row on, through disallowed rows too, and keeps
// the ef nearest rows by code that lead to one in the set (nil: all) in s.top. There
// are c of them. It reports false if it has found too few, or is astray.
func (g *sqGraph) walkThrough(sq *sqQuery, from uint64, ef int, allowed []uint64, c int, s *Scratch) bool {
	s.top.Reset(ef)
	w := &s.walk
	w.begin(g, *sq, uint32(from), vec.Unkey(from).Distance, 1, 0)
	defer func() {
		s.stats.Distances += w.distances
		s.stats.Hops += w.hops
	}()
	near, met := 0, 0
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
		w.distances += n
		if s.top.Full() {
			n = g.kern.Below(ids, dist, s.top.Bound())
		}
		for i, id := range ids[:n] {
			key := vec.Key(dist[i], id)
			if key >= s.top.BoundKey() {
				continue
			}
			near++
			s.cand.push(key)
			if g.leads(id, allowed, s) {
				met++
				s.top.PushKey(key)
			}
		}
		if w.hops++; w.hops&15 == 0 && s.stopped() {
			break
		}
		if allowed != nil && near > astrayAfter && float64(met) < astrayShare*float64(near)*float64(c)/float64(g.rows) {
			return false
		}
	}
	return s.stats.Stopped || s.top.Len() >= min(ef, c)
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
