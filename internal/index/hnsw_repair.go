package index

import (
	"context"
	"slices"
	"sync/atomic"
)

// Repair links the rows that no walk over level 0 reaches, and returns how many
// there were. A bulk build calls it once, when all rows are inserted. Searches may run
// beside it, inserts may not. It does nothing for an index opened from an image. The error
// is that of ctx.
func (h *HNSW) Repair(ctx context.Context, workers int) (int, error) {
	return h.repair(ctx, workers, &progress{})
}

func (h *HNSW) repair(ctx context.Context, workers int, told *progress) (int, error) {
	if _, _, ok := h.start(); !ok || h.locks == nil {
		return 0, nil
	}
	return h.repairs().run(ctx, workers, told)
}

func (h *HNSW) repairs() *repair {
	start, _, _ := h.start()
	r := &repair{rows: h.capacity, start: start, links: h.linksNow, near: h.reachedNear, link: h.append}
	hang := make([]uint64, len(h.ready)) // on another row
	for _, next := range h.twins {
		if next != 0 {
			hang[(next-1)>>6] |= 1 << ((next - 1) & 63)
		}
	}
	for w := range h.ready {
		r.order = appendRows(r.order, w, h.ready[w]&^hang[w])
	}
	return r
}

// linksNow are the links of a row on level 0, while no row is inserted.
func (h *HNSW) linksNow(row uint32) []uint32 { return h.list(row, 0) }

// reachedNear is what a walk to a row that is not reached has found.
func (h *HNSW) reachedNear(keys []uint64, row uint32, reached []uint64, s *Scratch) []uint64 {
	start, top, _ := h.start()
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
	return append(keys, s.pool...)
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
