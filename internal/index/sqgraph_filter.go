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
	known := g.filters.find(allowed)
	c := 0
	if known != nil {
		c = len(known.rows)
	} else {
		c = min(g.kern.CountBits(allowed), g.rows)
	}
	if g.lists != nil && (known != nil || float64(c) < listMost*float64(g.rows) || g.shares.knows()) {
		return g.searchSome(vector, sq, k, ef, c, allowed, known, s)
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

// searchSome is a search among the c rows that a filter allows, some of all. known may be nil.
func (g *sqGraph) searchSome(vector []float32, sq *sqQuery, k, ef, c int, allowed []uint64, known *knownFilter, s *Scratch) []Neighbor {
	p := g.plan(k, ef, c, known != nil)
	if p.scan && p.learn {
		if known = g.learn(allowed, c, s); known != nil {
			p = g.plan(k, ef, c, true)
		}
	}
	if p.begin {
		if found, ok := g.walkAmong(vector, sq, k, c, &p, allowed, s); ok {
			return found
		}
	}
	if p.scan {
		return g.scanMissing(vector, sq, k, ef, p.missing, allowed, s)
	}
	if p.begin && p.hops {
		row, d := g.entry(sq, s)
		if g.walkTwoHop(sq, vec.Key(d, row), k, ef, ef, c, allowed, s) {
			return g.end(vector, &s.walk, k, allowed, s)
		}
	}
	if known == nil {
		known = g.learn(allowed, c, s)
	}
	return g.searchLists(vector, sq, k, ef, p.lists, c, allowed, known, s)
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

// scanCodes scans the rows allowed (nil: all) by their codes and ranks the best. It misses no more than a walk of the effort ef does.
func (g *sqGraph) scanCodes(vector []float32, sq *sqQuery, k, ef int, allowed []uint64, s *Scratch) []Neighbor {
	return g.scanMissing(vector, sq, k, ef, g.shares.missing(k, ef), allowed, s)
}

// scanMissing is scanCodes where no more than a part of the nearest may be missing (0: it is not known).
func (g *sqGraph) scanMissing(vector []float32, sq *sqQuery, k, ef int, missing float64, allowed []uint64, s *Scratch) []Neighbor {
	s.stats.Scanned = true
	f := &s.lists
	f.cands.reset(codeRank(k, ef))
	s.top.Reset(k + glanceMore)
	last := min((g.rows+63)/64, words(allowed, g.rows))
	f.ids = grown(f.ids, glanceMost+scanGroup*64+vec.ListRoom)
	for w := 0; w < last && !s.stopped(); {
		n := 0 // rows that are listed
		for ; w < last && n < glanceMost; w += scanGroup {
			n += g.listAllowed(allowed, w, min(w+scanGroup, last), f.ids[n:])
		}
		g.scanRows(sq, f.ids[:n], k, missing, s)
	}
	return g.collected(vector, sq, k, s)
}

// scanRows is collect for those of rows that first lines leave, if these tell, whose records nothing has asked for.
func (g *sqGraph) scanRows(sq *sqQuery, rows []uint32, k int, missing float64, s *Scratch) {
	if g.glances(len(rows), k, missing) {
		g.glance(sq, rows, k, missing, s)
		return
	}
	g.fetch(rows[:min(len(rows), scanStep)])
	for len(rows) > 0 {
		n := min(len(rows), scanStep)
		part := rows[:n]
		rows = rows[n:]
		g.fetch(rows[:min(len(rows), scanStep)])
		g.collect(sq, part, s)
	}
}

// Of scans: how many rows are compared at once, while the next ones are on their way, and how many words of a filter are listed
// at a time.
const (
	scanStep  = 64
	scanGroup = 64
)

// words is how many words of a filter (nil: all rows are allowed) there are.
func words(allowed []uint64, rows int) int {
	if allowed == nil {
		return (rows + 63) / 64
	}
	return len(allowed)
}

// listAllowed lists the rows of some words of a filter (nil: all are allowed).
func (g *sqGraph) listAllowed(allowed []uint64, from, to int, ids []uint32) int {
	if allowed != nil && 64*to <= g.rows {
		return g.kern.ListBits(allowed[from:to], from, ids)
	}
	var set [scanGroup]uint64
	for i := range to - from {
		set[i] = wordMask(g.rows, from+i)
		if allowed != nil {
			set[i] &= allowed[from+i]
		}
	}
	return g.kern.ListBits(set[:to-from], from, ids)
}

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
