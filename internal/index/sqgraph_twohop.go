package index

import (
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Without lists, a filtered walk follows allowed rows only, as if the graph had been built of them:
// where a row has too few allowed neighbours, those of its disallowed neighbours
// take their place (ACORN-1, Patel et al., arXiv:2403.04871). Its cost hardly depends on
// how many rows are allowed, and it does not matter where they are.
const (
	// hopsSeeds is how many allowed rows, spread over all, a walk starts from whose
	// query is not among them.
	hopsSeeds = 128
	// hopsWide is how many more rows such a walk keeps: from outside, the nearest
	// rows are less near to one another.
	hopsWide = 3
	// hopsScan is how many allowed rows are scanned in the time of one step of a walk.
	hopsScan = 80
	// hopsWant is how many new rows a step wants, and hopsLeast how many of them it
	// finds around a query among allowed rows, in percent of the links of a row.
	hopsWant, hopsLeast = 150, 25
)

// scanFiltered reports whether c allowed rows are scanned sooner than walked.
func (g *sqGraph) scanFiltered(c, ef int) bool { return c <= hopsScan*ef }

// walkTwoHop walks among the c allowed rows, from one near the query on, and leaves
// the nearest in the pool of s.walk. It keeps ef of them, or hopsWide times full, what
// an unfiltered walk would keep, if the query is not among them. It reports false if it has found too few, or if a
// scan is cheaper.
func (g *sqGraph) walkTwoHop(sq *sqQuery, from uint64, k, ef, full, c int, allowed []uint64, s *Scratch) bool {
	w := &s.walk
	row := uint32(from)
	w.pool = append(w.pool[:0], poolKey(vec.Unkey(from).Distance, row))
	w.again(g, *sq, ef, 0)
	w.ids, w.dist = grown(w.ids, max(hopsSeeds, 3*g.m0)+1), grown(w.dist, max(hopsSeeds, 3*g.m0)+1)
	w.open = grown(w.open, (g.rows+63)/64)
	clear(w.open[copy(w.open, allowed):])
	if !g.leads(row, allowed, s) {
		w.pool = w.pool[:0]
	}
	w.open[row>>6] &^= 1 << (row & 63)
	w.gatherAllowed(g, row, allowed, s)
	inside := w.n >= g.m0*hopsLeast/100
	g.fetch(w.ids[:w.n])
	w.score(g)
	if !inside {
		if w.ef = min(hopsWide*full, c); g.scanFiltered(c, w.ef) {
			return false
		}
		w.room = w.ef
		w.seed(g, allowed)
	}
	for w.nextAllowed(g, allowed, s) {
		w.score(g)
		if w.hops&15 == 0 && s.stopped() {
			break
		}
	}
	return s.stats.Stopped || len(w.pool) >= min(max(k, ef/2), c)
}

// nextAllowed is next among allowed rows.
func (w *sqWalk) nextAllowed(g *sqGraph, allowed []uint64, s *Scratch) bool {
	pool, at := w.pool, w.at
	for ; at < len(pool) && pool[at]&1 != 0; at++ {
	}
	if at >= min(len(pool), w.ef) {
		return false
	}
	pool[at] |= 1
	w.at = at + 1
	w.gatherAllowed(g, poolRow(pool[at]), allowed, s)
	g.fetch(w.ids[:w.n])
	w.hops++
	return true
}

// gatherAllowed is gather for allowed rows: those that row links to and, until
// hopsWant are new, those that its disallowed neighbours do.
func (w *sqWalk) gatherAllowed(g *sqGraph, row uint32, allowed []uint64, s *Scratch) {
	s.through = grown(s.through, g.m0+1)
	through, m, seen := s.through, 0, w.seen.words
	links := g.list(row, 0)
	for i := range links {
		id := atomic.LoadUint32(&links[i]) - 1
		if int(id) >= g.rows || m >= len(through) {
			break
		}
		through[m] = id
		m += int(^(seen[id>>6] | w.open[id>>6]) >> (id & 63) & 1)
	}
	for _, via := range through[:m] {
		vec.Prefetch(g.list(via, 0))
	}
	w.n = 0
	w.takeOpen(g, links, allowed, s)
	want := g.m0 * hopsWant / 100
	for _, via := range through[:m] {
		if w.n >= want {
			return
		}
		seen[via>>6] |= 1 << (via & 63) // its neighbours are looked at once
		w.seen.touched = append(w.seen.touched, via)
		w.takeOpen(g, g.list(via, 0), allowed, s)
	}
}

// takeOpen adds the rows linked to that are allowed and new to w.ids.
func (w *sqWalk) takeOpen(g *sqGraph, links []uint32, allowed []uint64, s *Scratch) {
	n, ids, open := w.n, w.ids, w.open
	if g.twins == nil {
		if len(ids)-n >= len(links) {
			w.n += g.kern.Links(links, g.rows, open, true, ids[n:])
		}
		for _, row := range ids[n:w.n] {
			open[row>>6] &^= 1 << (row & 63)
		}
		return
	}
	for i := range links {
		row := atomic.LoadUint32(&links[i]) - 1
		if int(row) >= g.rows || n >= len(ids) {
			break
		}
		word := &open[row>>6]
		old := *word
		*word = old &^ (1 << (row & 63))
		ids[n] = row
		n += int(old >> (row & 63) & 1)
		if g.twins != nil && g.twins[row] != 0 && !has(allowed, row) && w.seen.add(row) && g.leads(row, allowed, s) {
			n++ // the row is not allowed, but one of the same code is
		}
	}
	w.n = n
}

// seed puts allowed rows that are spread over all of them into the pool.
func (w *sqWalk) seed(g *sqGraph, allowed []uint64) {
	w.n = 0
	words := min(len(allowed), (g.rows+63)/64)
	for i := range hopsSeeds {
		for at := i * words / hopsSeeds; at < (i+1)*words/hopsSeeds; at++ {
			if set := allowed[at] & wordMask(g.rows, at); set != 0 {
				// A twin has no links: it is found with the row that it hangs on.
				if row := uint32(at<<6 + bits.TrailingZeros64(set)); g.list(row, 0)[0] != 0 && has(w.open, row) {
					w.open[row>>6] &^= 1 << (row & 63)
					w.ids[w.n] = row
					w.n++
				}
				break
			}
		}
	}
	g.fetch(w.ids[:w.n])
	w.score(g)
}

// filteredPart is how a walk's ef follows from the part of the rows that is allowed:
// the fewer there are, the better are they linked.
func filteredPart(ef, c, n int) int {
	return int(math.Ceil(float64(ef) * math.Pow(float64(c)/float64(max(n, 1)), 0.2)))
}
