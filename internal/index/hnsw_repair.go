package index

import (
	"slices"
	"sync/atomic"
)

// Repair links the rows that no walk over level 0 reaches, and returns how many
// there were. Pruning leaves a few in ten thousand of them; a bulk build calls
// it once, when all rows are inserted. Searches may run beside it, inserts may
// not. It does nothing for an index opened from an image.
func (h *HNSW) Repair(s *Scratch) int {
	start, top, ok := h.start()
	if !ok || h.locks == nil {
		return 0
	}
	total := 0
	// A row that had to take the place of another may have cut that one off.
	for range 4 {
		lost := h.repairOnce(start, top, s)
		total += lost
		if lost == 0 {
			break
		}
	}
	return total
}

func (h *HNSW) repairOnce(start uint32, top int, s *Scratch) int {
	reached := make([]uint64, len(h.ready))
	var stack []uint32
	reach := func(from uint32) {
		stack = append(stack, from)
		reached[from>>6] |= 1 << (from & 63)
		for len(stack) > 0 {
			row := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			for twin, ok := h.nextTwin(row); ok; twin, ok = h.nextTwin(twin) {
				reached[twin>>6] |= 1 << (twin & 63)
			}
			links := h.list(row, 0)
			for i := range links {
				link := atomic.LoadUint32(&links[i])
				if link == 0 {
					break
				}
				if to := link - 1; !has(reached, to) {
					reached[to>>6] |= 1 << (to & 63)
					stack = append(stack, to)
				}
			}
		}
	}
	reach(start)
	lost := 0
	var rows []uint32
	for w := range reached {
		rows = appendRows(rows[:0], w, atomic.LoadUint64(&h.ready[w])&^reached[w])
		for _, row := range rows {
			if has(reached, row) {
				continue // an earlier one led to it
			}
			lost++
			h.adopt(row, start, top, reached, s)
			reach(row)
		}
	}
	return lost
}

// adopt makes the nearest row that is reached and has a free link lead to row, or the
// nearest of all at the cost of its last link.
func (h *HNSW) adopt(row, start uint32, top int, reached []uint64, s *Scratch) {
	s.begin(h.m0 + 1)
	q, scale := h.vector(row), h.rowScale(row)
	near, d := h.descend(q, scale, start, top, 0, s)
	s.seen.reset(h.capacity)
	s.seen.add(near)
	s.seen.add(row)
	s.pool = append(s.pool[:0], poolKey(d, near))
	h.walk(q, scale, 0, h.ef, s)
	// Higher levels may lead to row itself, and on from there to others that are not reached.
	s.pool = slices.DeleteFunc(s.pool, func(key uint64) bool { return !has(reached, poolRow(key)) })
	if len(s.pool) == 0 {
		s.pool = append(s.pool, poolKey(0, start))
	}
	for _, key := range s.pool {
		if h.append(poolRow(key), row, false) {
			return
		}
	}
	h.append(poolRow(s.pool[0]), row, true)
}

// append adds row to the level 0 links of `to` if one is free, or in the place
// of the last one.
func (h *HNSW) append(to, row uint32, replace bool) bool {
	mu := &h.locks[to%lockStripes]
	mu.Lock()
	defer mu.Unlock()
	links := h.list(to, 0)
	for i := range links {
		if atomic.LoadUint32(&links[i]) == 0 {
			atomic.StoreUint32(&links[i], row+1)
			return true
		}
	}
	if replace {
		atomic.StoreUint32(&links[len(links)-1], row+1)
	}
	return replace
}
