package index

import (
	"math/bits"

	"github.com/querynode/querynode/internal/vec"
)

// searchWide is a search with a filter, or with more candidates than a sorted
// array is good for. It scans if few rows are allowed. Otherwise it walks through
// disallowed rows as well, and scans after all if that has found too few.
func (g *sqGraph) searchWide(vector []float32, sq *sqQuery, k, ef int, q *Query, s *Scratch) []Neighbor {
	var allowed []uint64
	c, full := g.rows, ef
	if q.Allowed != nil {
		allowed = nonNil(q.Allowed.Words())
		c = min(q.Allowed.Count(), g.rows)
		ef = filteredEf(k, ef, c, g.rows)
	}
	if !g.cheaperToScan(c, ef) {
		if row, d := g.descend(sq, 0, s); g.walkAllowed(sq, vec.Key(d, row), ef, full, allowed, c, s) {
			return g.rank(vector, g.sorted(s), k, allowed, s)
		}
	}
	return g.scanCodes(vector, sq, k, allowed, s)
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

// scanStep is how many rows are scanned at once, while the next ones are on their way.
const scanStep = 32

func (g *sqGraph) scanIDs(sq *sqQuery, ids []uint32, s *Scratch) {
	s.stats.Distances += len(ids)
	g.fetch(ids[:min(len(ids), scanStep)])
	for len(ids) > 0 {
		n := min(len(ids), scanStep)
		g.fetch(ids[n:min(len(ids), 2*scanStep)])
		out := s.dist[:n]
		g.code.distances(sq, g.records, ids[:n], out)
		some := n
		if s.top.Full() {
			some = g.kern.Below(ids[:n], out, s.top.Bound())
		}
		s.top.PushAll(ids[:some], out)
		ids = ids[n:]
	}
}

// How a walk finds out that the rows allowed are somewhere else than the query:
// after so many rows near enough, it has met fewer of them than this part of their
// share.
const (
	astrayAfter = 256
	astrayShare = 0.25
	astraySeeds = 128
	astrayWide  = 3   // rows kept then
	astrayScan  = 200 // allowed rows up to which a scan is cheaper then
)

// walkAllowed walks level 0 from a row on and keeps the ef nearest rows by code
// that lead to one in the set (nil: all) in s.top. There are c of them. A walk
// leads through disallowed rows too, unless those turn out to be all that is
// near the query: then it goes on among allowed rows only, from some of them on, and
// keeps more of them, since fewer links are left to find them by, as multiples of
// full, what an unfiltered walk would keep.
// It reports false if it has found too few, or a
// scan is cheaper than to go on.
func (g *sqGraph) walkAllowed(sq *sqQuery, from uint64, ef, full int, allowed []uint64, c int, s *Scratch) bool {
	s.top.Reset(ef)
	w := &s.walk
	w.begin(g, *sq, uint32(from), vec.Unkey(from).Distance, 1, 0)
	near, met, inside := 0, 0, false
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
			leads := g.leads(id, allowed, s)
			if leads {
				met++
				s.top.PushKey(key)
			}
			if leads || !inside {
				s.cand.push(key)
			}
		}
		if w.hops++; w.hops&15 == 0 && s.stopped() {
			break
		}
		if !inside && allowed != nil && near > astrayAfter &&
			float64(met) < astrayShare*float64(near)*float64(c)/float64(g.rows) {
			if c <= astrayScan*full {
				return false
			}
			inside = true
			s.top.Widen(astrayWide * full)
			g.goInside(sq, allowed, s)
		}
	}
	s.stats.Distances += w.distances
	s.stats.Hops += w.hops
	return s.stats.Stopped || s.top.Len() >= min(ef, c)
}

// goInside leaves only allowed rows to walk on from, and adds some that are spread
// over all of them.
func (g *sqGraph) goInside(sq *sqQuery, allowed []uint64, s *Scratch) {
	w := &s.walk
	left := s.cand
	s.cand = s.cand[:0]
	for _, key := range left {
		if has(allowed, uint32(key)) {
			s.cand.push(key) // never past where left is read
		}
	}
	ids := s.ids[:0]
	words := min(len(allowed), (g.rows+63)/64)
	for i := range astraySeeds {
		for at := i * words / astraySeeds; at < (i+1)*words/astraySeeds; at++ {
			if set := allowed[at] & wordMask(g.rows, at); set != 0 {
				// A twin has no links: it is found with the row that it hangs on.
				if row := uint32(at<<6 + bits.TrailingZeros64(set)); g.list(row, 0)[0] != 0 && w.seen.add(row) {
					ids = append(ids, row)
				}
				break
			}
		}
	}
	g.fetch(ids)
	out := s.dist[:len(ids)]
	g.code.distances(sq, g.records, ids, out)
	w.distances += len(ids)
	for i, id := range ids {
		key := vec.Key(out[i], id)
		s.cand.push(key)
		s.top.PushKey(key)
	}
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
