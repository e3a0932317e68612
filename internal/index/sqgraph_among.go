package index

import (
	"math"
	"slices"
)

// Of walks through all rows for those that a filter allows.
const (
	// amongFirst is how many rows are followed before the walk looks how many of those near it are allowed.
	amongFirst = 8
	// amongLook is how many of the nearest are looked at, and amongPrior as how many the rows allowed of all count.
	amongLook, amongPrior = 64, 8
	// amongMore is by how much more than what was walked more must be needed for the walk to go on, and amongTurns
	// how often it may.
	amongMore, amongTurns = 1.25, 3
)

// walkAmong walks as without a filter, and keeps the rows allowed of what it meets: where a share of the rows is allowed, the
// k nearest of these are among as many times more of all. It looks at how many are allowed where it is, and
// reports false if so few are that another way is cheaper.
func (g *sqGraph) walkAmong(vector []float32, sq *sqQuery, k, c int, p *filterPlan, allowed []uint64, s *Scratch) ([]Neighbor, bool) {
	w := &s.walk
	row, d := g.descend(sq, 0, s)
	w.begin(g, *sq, row, d, amongFirst, 0)
	w.room = amongRoom(int(p.needs))
	g.beginNear(w, s)
	w.run(g, s)
	n := min(len(w.pool), amongLook)
	share := (float64(g.allowedOf(w.pool[:n], allowed, s)) + amongPrior*float64(c)/float64(g.rows)) / (float64(n) + amongPrior)
	near := int(math.Ceil(float64(k) / max(share, 1e-9)))
	for range amongTurns {
		takes, _ := g.shares.takes(near, p.missing)
		ef := int(math.Ceil(takes))
		if s.stats.Stopped || ef > p.walk {
			break
		}
		w.goOn(g, vector, near, ef, s)
		if s.stats.Stopped {
			break
		}
		near = g.reaches(w.pool[:min(len(w.pool), ef)], k, allowed, s)
		if takes, _ := g.shares.takes(near, p.missing); takes <= amongMore*float64(ef) && g.allowedOf(w.pool, allowed, s) >= k {
			if g.twins == nil {
				w.pool = slices.DeleteFunc(w.pool, func(key uint64) bool { return !has(allowed, poolRow(key)) })
				allowed = nil
			}
			return g.end(vector, w, k, allowed, s), true
		}
	}
	if s.stats.Stopped {
		return g.end(vector, w, k, allowed, s), true
	}
	s.stats.Distances += w.distances
	s.stats.Hops += w.hops
	return nil, false
}

// goOn has a walk go on that has ended, for k rows and with more effort.
func (w *sqWalk) goOn(g *sqGraph, vector []float32, k, ef int, s *Scratch) {
	room := amongRoom(ef)
	if room > w.room && len(w.pool) == w.room || w.enough != noLimit {
		// Rows that there was no room for are wanted now.
		distances, hops := w.distances, w.hops
		w.again(g, w.q, ef, 0)
		w.distances, w.hops = distances, hops
	}
	w.ef, w.room = ef, room
	w.reach, w.enough = reach{}, noLimit
	w.endBy(g, vector, k, ef, s)
	w.pool = w.pool[:min(len(w.pool), w.room)]
	if w.reach.k > 0 && len(w.pool) >= w.reach.k {
		w.enough = w.reach.limit(w.pool[w.reach.k-1])
	}
	w.at = 0
	w.run(g, s)
}

// amongRoom is how many rows a walk keeps that follows ef: a few more, for of those only some are allowed and ranked.
func amongRoom(ef int) int { return ef + ef/2 + amongFirst }

// allowedOf counts the rows of a pool that a filter allows, or that lead to one.
func (g *sqGraph) allowedOf(pool []uint64, allowed []uint64, s *Scratch) (n int) {
	for _, key := range pool {
		if g.leadsTo(poolRow(key), allowed, s) {
			n++
		}
	}
	return n
}

// reaches is at which place in a pool k rows have been met that are allowed, or where they are likely to have been in a longer one.
func (g *sqGraph) reaches(pool []uint64, k int, allowed []uint64, s *Scratch) int {
	n := 0
	for i, key := range pool {
		if !g.leadsTo(poolRow(key), allowed, s) {
			continue
		}
		if n++; n == k {
			return i + 1
		}
	}
	return (len(pool) + 2) * k / (n + 1)
}

// leadsTo is leads without a step where there are no twins.
func (g *sqGraph) leadsTo(row uint32, allowed []uint64, s *Scratch) bool {
	if g.twins == nil {
		return has(allowed, row)
	}
	return g.leads(row, allowed, s)
}
