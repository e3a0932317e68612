package index

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// sqWalk is a walk over one level of an sqGraph, taken apart so that several can
// go on in turns, each waiting for its memory while the others compute. The zero
// sqWalk is ready for begin.
type sqWalk struct {
	q     sqQuery
	level int
	ef    int // rows whose links are followed unless nearer ones are found
	room  int // rows kept
	pool  []uint64
	at    int // rows of the pool before it have been followed

	ids       []uint32 // linked rows that are new
	ahead     []uint32 // those of the row after, see run
	dist      []float32
	n         int // how many they are
	seen      visited
	open      []uint64 // with a filter, allowed rows that are new
	distances int
	hops      int

	reach  reach
	enough uint64 // no row behind it is followed, but for reach.fewest
}

// begin readies w to walk from a row, at a distance by code, on.
func (w *sqWalk) begin(g *sqGraph, q sqQuery, row uint32, distance float32, ef, level int) {
	w.pool = append(w.pool[:0], poolKey(distance, row))
	w.again(g, q, ef, level)
}

// again is begin with the rows that are in the pool.
func (w *sqWalk) again(g *sqGraph, q sqQuery, ef, level int) {
	w.q, w.level, w.ef, w.room = q, level, ef, ef
	w.at, w.n, w.distances, w.hops = 0, 0, 0, 0
	w.reach, w.enough = reach{}, noLimit
	w.ids, w.dist = grown(w.ids, g.m0+1), grown(w.dist, g.m0+1)
	w.seen.reset(g.rows)
	for i, key := range w.pool {
		w.pool[i] = key &^ 1
		w.seen.add(poolRow(key))
	}
}

// fetch asks for the records of rows.
func (g *sqGraph) fetch(ids []uint32) {
	g.kern.PrefetchRows(g.records, g.code.stride, min(g.code.stride/vec.SQ8Line, fetchLines), ids, 0)
}

// fetchLines is how many lines of a record are asked for; the processor sees by
// itself that more are wanted.
const fetchLines = 6

// next finds the nearest row that was not followed, gathers its links and asks
// for their records. It reports whether there was one.
func (w *sqWalk) next(g *sqGraph) bool {
	pool, at := w.pool, w.at
	for ; at < len(pool) && pool[at]&1 != 0; at++ {
	}
	if at >= min(len(pool), w.ef) || pool[at] > w.enough && at >= w.reach.fewest {
		return false
	}
	pool[at] |= 1
	w.at = at + 1
	if at+2 < len(pool) { // the next ones, unless nearer ones are found: links of rows that came far behind were not asked for
		vec.Prefetch(g.list(poolRow(pool[at+1]), w.level))
		vec.Prefetch(g.list(poolRow(pool[at+2]), w.level))
	}
	w.gather(g, g.list(poolRow(pool[at]), w.level))
	g.fetch(w.ids[:w.n])
	w.hops++
	return true
}

// run walks until there is nothing left to follow, or Stop. A row is followed before
// it is known whether the one before leads to a nearer one: what it leads to is on its
// way meanwhile, and nearly all rows of the pool are followed sooner or later.
func (w *sqWalk) run(g *sqGraph, s *Scratch) {
	w.ahead = grown(w.ahead, len(w.ids))
	for more := w.next(g); more; {
		n := w.n
		w.ids, w.ahead = w.ahead, w.ids
		more = w.next(g)
		ahead := w.n
		w.ids, w.ahead, w.n = w.ahead, w.ids, n
		w.score(g)
		if w.hops&15 < 2 && s.stopped() {
			return
		}
		if more {
			w.ids, w.ahead, w.n = w.ahead, w.ids, ahead
		} else {
			more = w.next(g)
		}
	}
}

// score computes the distances of the rows gathered and puts the near ones into
// the pool.
func (w *sqWalk) score(g *sqGraph) {
	n, pool := w.n, w.pool
	ids, dist := w.ids[:n], w.dist[:n]
	g.code.distances(&w.q, g.records, ids, dist)
	w.distances += n
	if limit := w.limit(pool); limit != noLimit {
		n = g.kern.Below(ids, dist, poolDistance(limit))
	}
	for i, id := range ids[:n] {
		key := poolKey(dist[i], id)
		if key > w.enough && w.far(pool, key) {
			continue
		}
		if len(pool) >= w.room {
			if key >= pool[w.room-1] {
				continue
			}
			pool = pool[:w.room-1]
		}
		pos := insertAt(pool, key)
		pool = append(pool, 0)
		copy(pool[pos+1:], pool[pos:])
		pool[pos] = key
		if pos < w.reach.k && len(pool) >= w.reach.k {
			w.enough = w.reach.limit(pool[w.reach.k-1])
		}
		w.at = min(w.at, pos)
		if pos < w.at+2 { // it may be the next one, or the one after
			vec.Prefetch(g.list(id, w.level))
		}
	}
	w.pool = pool
}

// limit returns the key from which on rows are not wanted in the pool.
func (w *sqWalk) limit(pool []uint64) uint64 {
	limit := uint64(noLimit)
	if w.enough != noLimit && len(pool) >= w.reach.fewest {
		limit = max(w.enough, pool[w.reach.fewest-1])
	}
	if len(pool) >= w.room {
		limit = min(limit, pool[w.room-1])
	}
	return limit
}

// far reports whether a key is behind all rows that are followed whatever their distance.
func (w *sqWalk) far(pool []uint64, key uint64) bool {
	return len(pool) >= w.reach.fewest && key > pool[w.reach.fewest-1]
}

func (w *sqWalk) gather(g *sqGraph, links []uint32) {
	n, ids, seen := 0, w.ids, w.seen.words
	w.seen.torn = true
	for i := range links {
		row := atomic.LoadUint32(&links[i]) - 1
		if int(row) >= g.rows || n >= len(ids) {
			break // the end, or a damaged image
		}
		word := &seen[row>>6]
		old := *word
		*word = old | 1<<(row&63)
		ids[n] = row
		n += int(^(old >> (row & 63)) & 1)
	}
	w.seen.touched, w.seen.torn = append(w.seen.touched, ids[:n]...), false
	w.n = n
}
