package index

import (
	"math"
	"slices"
	"sync/atomic"
)

// Rows with the same values would ruin the graph: being nearest to one another
// they fill each other's lists, and a walk that comes among them sees nothing
// else. So only the first of them is in the graph. The others, its twins, hang
// on it in a chain, twins[row] being the next one plus 1, and are at the same
// distance from everything.
//
// Under Cosine, rows of length 0 are twins too: their cosine is always 0.

// twinOf returns the row of s.pool, which is what a walk from row's values
// found, that has the same values.
func (h *HNSW) twinOf(row uint32, q []float32, s *Scratch) (uint32, bool) {
	if h.metric == Cosine && h.inv[row] == 0 {
		first := h.zero.Load()
		if first == 0 && h.zero.CompareAndSwap(0, row+1) {
			return 0, false
		}
		return h.zero.Load() - 1, true
	}
	// Rows of the same values may differ in the last bits of the distance, which
	// depend on how a kernel grouped its rows.
	s.ids[0] = row
	h.byID(q, h.rowScale(row), s.ids[:1], s.dist)
	self := float64(s.dist[0])
	slack := 1e-5 * (1 + math.Abs(self))
	for _, key := range s.pool {
		if d := float64(poolDistance(key)); math.Abs(d-self) <= slack {
			if other := poolRow(key); slices.Equal(q, h.vector(other)) {
				return other, true
			}
		} else if d > self {
			break
		}
	}
	return 0, false
}

// hang adds row to the chain of a row that is in the graph.
func (h *HNSW) hang(first, row uint32) {
	mu := &h.locks[first%lockStripes]
	mu.Lock()
	defer mu.Unlock()
	atomic.StoreUint32(&h.twins[row], atomic.LoadUint32(&h.twins[first]))
	atomic.StoreUint32(&h.twins[first], row+1)
}

// nextTwin returns the row after row in its chain.
func (h *HNSW) nextTwin(row uint32) (uint32, bool) {
	if h.twins == nil {
		return 0, false
	}
	next := atomic.LoadUint32(&h.twins[row])
	return next - 1, next != 0 && int(next) <= h.capacity
}

// sortTwins puts chains in the order of their rows, but for the first, so that of rows
// equally far a search takes the first ones, and knows when it has them. No row may be inserted from then on.
func (h *HNSW) sortTwins() {
	hang := make([]uint64, (h.capacity+63)/64)
	for _, next := range h.twins {
		if next != 0 {
			hang[(next-1)>>6] |= 1 << ((next - 1) & 63)
		}
	}
	var chain []uint32
	for row := range uint32(h.capacity) {
		if h.twins[row] == 0 || has(hang, row) {
			continue
		}
		chain = chain[:0]
		for next, ok := h.nextTwin(row); ok; next, ok = h.nextTwin(next) {
			chain = append(chain, next)
		}
		slices.Sort(chain)
		last := row
		for _, next := range chain {
			h.twins[last], last = next+1, next
		}
		h.twins[last] = 0
	}
	h.sorted = true
}

// follow is nextTwin within a search. A row is in one chain, so a search takes
// fewer steps than there are rows; chains of a damaged image can be circles.
func (h *HNSW) follow(row uint32, s *Scratch) (uint32, bool) {
	next, ok := h.nextTwin(row)
	if !ok || s.twinSteps >= h.capacity {
		return 0, false
	}
	if s.twinSteps++; s.twinSteps%twinPoll == 0 && s.stopped() {
		return 0, false
	}
	return next, true
}

// twinPoll is how many steps along chains are made between two looks at Stop.
const twinPoll = 1024

// offer pushes a row, given by its key, and its twins to s.top: those that are
// complete and in the set (nil: all).
func (h *HNSW) offer(key uint64, allowed []uint64, s *Scratch) {
	first := uint32(key)
	for row, ok := first, true; ok; row, ok = h.follow(row, s) {
		if (allowed == nil || has(allowed, row)) && h.isReady(row) {
			if !s.top.PushKey(key&^math.MaxUint32|uint64(row)) && h.sorted && row != first {
				return // those after it are no nearer, and have larger numbers
			}
		}
	}
}
