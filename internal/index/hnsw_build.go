package index

import (
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// Insert links a row into the graph. Its values are in place in base and do not
// change any more. Many goroutines may insert different rows at once, each with
// its own Scratch; the order of rows does not matter. Errors: Exhausted if row
// is not below Capacity, Exists if it was inserted before, Invalid if a value is
// not finite, Conflict if the index was opened from an image.
func (h *HNSW) Insert(row uint32, s *Scratch) error {
	if h.locks == nil {
		return errclass.New(errclass.Conflict, "insert row %d: the index was opened from an image and is read only", row)
	}
	if int64(row) >= int64(h.capacity) {
		return errclass.New(errclass.Exhausted, "insert row %d: the index has room for %d", row, h.capacity)
	}
	q := h.vector(row)
	if i := notFinite(q); i >= 0 {
		return errclass.New(errclass.Invalid, "insert row %d: value %d is %v", row, i, q[i])
	}
	bit := uint64(1) << (row & 63)
	if atomic.OrUint64(&h.claimed[row>>6], bit)&bit != 0 {
		return errclass.New(errclass.Exists, "insert row %d: it is there already", row)
	}
	h.running.Add(1)
	defer h.running.Add(-1)
	if h.metric == Cosine {
		h.inv[row] = h.kern.InvNorm(q)
	}
	h.connect(row, q, s)
	atomic.OrUint64(&h.ready[row>>6], bit)
	h.rows.Add(1)
	return nil
}

func notFinite(v []float32) int {
	return slices.IndexFunc(v, func(x float32) bool { return x-x != 0 })
}

// connect gives row its links, then makes it reachable, then raises the start
// if row is on a new top level.
func (h *HNSW) connect(row uint32, q []float32, s *Scratch) {
	level := h.level(row)
	start, top, ok := h.start()
	if !ok || level > top || h.Len() < serialRows {
		h.top.Lock()
		defer h.top.Unlock()
		if start, top, ok = h.start(); !ok {
			h.entry.Store(uint64(level+1)<<32 | uint64(row))
			return
		}
	}
	if first, twin := h.choose(row, q, start, top, s); twin {
		h.hang(first, row)
		return
	}
	// All own lists come before the first link to row: whoever gets here can go
	// on, on every level.
	for l := min(level, top); l >= 0; l-- {
		links := h.list(row, l)
		for i, to := range s.chosen[l] {
			atomic.StoreUint32(&links[i], to+1)
		}
	}
	for l := 0; l <= min(level, top); l++ {
		for _, to := range s.chosen[l] {
			h.link(to, row, l, s)
		}
	}
	if level > top {
		h.entry.Store(uint64(level+1)<<32 | uint64(row))
	}
}

// choose finds the links of a new row on each of its levels, or the row in the
// graph that it is a twin of.
func (h *HNSW) choose(row uint32, q []float32, start uint32, top int, s *Scratch) (first uint32, twin bool) {
	s.begin(h.m0 + 1)
	level, scale := h.level(row), h.rowScale(row)
	for len(s.chosen) <= level {
		s.chosen = append(s.chosen, nil)
	}
	near, d := h.descend(q, scale, start, top, level, s)
	s.pool = append(s.pool[:0], poolKey(d, near))
	for l := min(level, top); l >= 0; l-- {
		s.seen.reset(h.capacity)
		s.seen.add(row)
		for i, key := range s.pool {
			s.pool[i] = key &^ 1
			s.seen.add(poolRow(key))
		}
		h.walk(q, scale, l, h.ef, s)
		if l == 0 {
			if first, twin = h.twinOf(row, q, s); twin {
				return first, true
			}
		}
		s.keys = s.keys[:0]
		for _, key := range s.pool {
			s.keys = append(s.keys, vec.Key(poolDistance(key), poolRow(key)))
		}
		h.selectLinks(h.m, s)
		s.chosen[l] = append(s.chosen[l][:0], s.kept...)
	}
	return 0, false
}

// link adds row to the links of `to` on a level. If they are full, the best of
// all stay.
func (h *HNSW) link(to, row uint32, level int, s *Scratch) {
	mu := &h.locks[to%lockStripes]
	mu.Lock()
	defer mu.Unlock()
	links := h.list(to, level)
	ids := s.ids[:0]
	for i := range links {
		link := atomic.LoadUint32(&links[i])
		if link == 0 {
			atomic.StoreUint32(&links[i], row+1)
			return
		}
		ids = append(ids, link-1)
	}
	ids = append(ids, row)
	h.byID(h.vector(to), h.rowScale(to), ids, s.dist)
	s.keys = s.keys[:0]
	for i, id := range ids {
		s.keys = append(s.keys, vec.Key(s.dist[i], id))
	}
	slices.Sort(s.keys)
	h.selectLinks(len(links), s)
	for i := range links {
		link := uint32(0)
		if i < len(s.kept) {
			link = s.kept[i] + 1
		}
		atomic.StoreUint32(&links[i], link)
	}
}

// selectLinks picks at most m of the rows in s.keys, which are sorted by their
// distance to the row that is to be linked, and leaves them in s.kept. A row is
// picked unless it is nearer to one picked before: that one leads to it, and
// the links spread in all directions (algorithm 4 of the paper).
func (h *HNSW) selectLinks(m int, s *Scratch) {
	s.kept = s.kept[:0]
	s.keptDist = grown(s.keptDist, m)
	for _, key := range s.keys {
		if len(s.kept) == m {
			return
		}
		c := vec.Unkey(key)
		if !h.shadowed(c, s.kept, s.keptDist) {
			s.kept = append(s.kept, c.Row)
		}
	}
}

// shadowed reports whether c is nearer to one of the kept rows than its distance.
func (h *HNSW) shadowed(c Neighbor, kept []uint32, dist []float32) bool {
	const batch = 8 // a kernel call is worth more than one row, but most c fall early
	q, scale := h.vector(c.Row), h.rowScale(c.Row)
	for len(kept) > 0 {
		n := min(batch, len(kept))
		h.byID(q, scale, kept[:n], dist)
		for _, d := range dist[:n] {
			if d < c.Distance {
				return true
			}
		}
		kept = kept[n:]
	}
	return false
}
