package vec

import (
	"math"
	"slices"
)

// Neighbor is a row and its distance from a query; smaller is nearer.
type Neighbor struct {
	Row      uint32
	Distance float32
}

// Compare orders by distance, then by row. A distance that is not a number
// comes last, with +Inf.
func (n Neighbor) Compare(o Neighbor) int {
	a, b := Key(n.Distance, n.Row), Key(o.Distance, o.Row)
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Key packs a distance and a row into one integer that orders as
// Neighbor.Compare does, so that a heap compares with one instruction. NaN
// counts as +Inf, and -0 as 0.
func Key(distance float32, row uint32) uint64 {
	if distance != distance {
		distance = float32(math.Inf(1))
	}
	b := math.Float32bits(distance + 0)
	// Negative floats order backwards: turn them round, and put them below.
	b ^= uint32(int32(b)>>31) | 1<<31
	return uint64(b)<<32 | uint64(row)
}

// Unkey is the inverse of Key.
func Unkey(key uint64) Neighbor {
	b := uint32(key >> 32)
	b ^= ^uint32(int32(b)>>31) | 1<<31
	return Neighbor{Row: uint32(key), Distance: math.Float32frombits(b)}
}

// TopK keeps the k nearest of the rows pushed to it; of rows equally near, the
// smaller ones. It is a bounded heap with the farthest on top. The zero TopK
// keeps nothing until Reset. Not safe for concurrent use.
type TopK struct {
	k    int
	heap []uint64
}

// Reset empties t and makes it keep k rows (0 or less: none), reusing its
// memory.
func (t *TopK) Reset(k int) {
	t.k = max(k, 0)
	t.heap = t.heap[:0]
}

// Len is the number of rows held.
func (t *TopK) Len() int { return len(t.heap) }

// Full reports whether k rows are held, so that a further one must be nearer
// than the farthest of them.
func (t *TopK) Full() bool { return len(t.heap) >= t.k }

// Bound is the distance of the farthest row held if t is full, else +Inf: a row
// farther than that need not be pushed.
func (t *TopK) Bound() float32 {
	if !t.Full() || t.k == 0 {
		return float32(math.Inf(1))
	}
	return Unkey(t.heap[0]).Distance
}

// BoundKey is the Key of the farthest row held if t is full, else larger than
// any Key: only rows with a smaller one are taken.
func (t *TopK) BoundKey() uint64 {
	if !t.Full() {
		return math.MaxUint64
	}
	if t.k == 0 {
		return 0
	}
	return t.heap[0]
}

// Push offers a row and reports whether it is held now.
func (t *TopK) Push(row uint32, distance float32) bool {
	return t.PushKey(Key(distance, row))
}

// PushKey is Push for a row given by its Key.
func (t *TopK) PushKey(key uint64) bool {
	if len(t.heap) < t.k {
		t.heap = append(t.heap, key)
		t.up(len(t.heap) - 1)
		return true
	}
	if t.k == 0 || key >= t.heap[0] {
		return false
	}
	t.heap[0] = key
	t.down()
	return true
}

// PushAll offers rows ids[i] at distances[i].
func (t *TopK) PushAll(ids []uint32, distances []float32) {
	bound := t.BoundKey()
	for i, id := range ids {
		if key := Key(distances[i], id); key < bound {
			t.PushKey(key)
			bound = t.BoundKey()
		}
	}
}

// PushRun offers the rows first, first+1, ... at distances[0], distances[1], ...
func (t *TopK) PushRun(first uint32, distances []float32) {
	bound := t.BoundKey()
	for i, d := range distances {
		if key := Key(d, first+uint32(i)); key < bound {
			t.PushKey(key)
			bound = t.BoundKey()
		}
	}
}

// Bytes is the memory that t holds.
func (t *TopK) Bytes() int { return 8 * cap(t.heap) }

// AppendSorted appends the rows held to dst, nearest first, and empties t.
func (t *TopK) AppendSorted(dst []Neighbor) []Neighbor {
	slices.Sort(t.heap)
	for _, key := range t.heap {
		dst = append(dst, Unkey(key))
	}
	t.heap = t.heap[:0]
	return dst
}

// AppendKeys is AppendSorted for the Keys of the rows.
func (t *TopK) AppendKeys(dst []uint64) []uint64 {
	slices.Sort(t.heap)
	dst = append(dst, t.heap...)
	t.heap = t.heap[:0]
	return dst
}

func (t *TopK) up(i int) {
	key := t.heap[i]
	for i > 0 {
		p := (i - 1) / 2
		if t.heap[p] >= key {
			break
		}
		t.heap[i] = t.heap[p]
		i = p
	}
	t.heap[i] = key
}

func (t *TopK) down() {
	h := t.heap
	key, i := h[0], 0
	for {
		c := 2*i + 1
		if c >= len(h) {
			break
		}
		if c+1 < len(h) && h[c+1] > h[c] {
			c++
		}
		if h[c] <= key {
			break
		}
		h[i] = h[c]
		i = c
	}
	h[i] = key
}
