package index

import (
	"math"
	"slices"

	"github.com/querynode/querynode/internal/vec"
)

// Of filters that an sqGraph knows.
const (
	// knownKept is how many filters are known at a time. One takes an eighth of a byte for
	// each row of the index and four for each that is allowed.
	knownKept = 2
	// knownLeast is how many rows a filter allows that is worth it.
	knownLeast = 256
)

// knownFilter is the rows that a filter allows, list by list. A search that has them
// looks no row up, and does not touch lists that have none.
type knownFilter struct {
	first []uint32  // list l has rows [first[l], first[l+1])
	rows  []uint32  // allowed
	some  []uint32  // lists that have rows
	bias  []float32 // of centres, +Inf for those of other lists
}

// learn returns what there is to know about a filter that is not known and allows c
// rows; nil if it was not met before, or s is stopped.
func (g *sqGraph) learn(words []uint64, c int, s *Scratch) *knownFilter {
	if c < knownLeast {
		return nil
	}
	return g.filters.learn(words, g.lists.knowBytes(c), func() (*knownFilter, int) { return g.lists.know(g.kern, words, g.rows, c, s.stopped), 0 })
}

// knowBytes is how many bytes that take at most which is known of a filter of c rows.
func (l *sqLists) knowBytes(c int) int64 {
	return 4 * int64(l.n+1+c+listChunk+2*min(l.n, c)+len(l.codes.bias))
}

// know finds the rows of the lists that a filter allows, c of them; nil if it is stopped.
func (l *sqLists) know(kern vec.Kernels, words []uint64, rows, c int, stop func() bool) *knownFilter {
	k := &knownFilter{first: make([]uint32, l.n+1), rows: make([]uint32, 0, c+listChunk), bias: slices.Clone(l.codes.bias)}
	for i := range l.n {
		if stop() {
			return nil
		}
		links := l.list(uint32(i))
		for part := range slices.Chunk(links, listChunk) {
			k.rows = slices.Grow(k.rows, len(part))
			n := len(k.rows)
			k.rows = k.rows[:n+kern.Links(part, min(rows, 64*len(words)), words, true, k.rows[n:n+len(part)])]
		}
		if k.first[i+1] = uint32(len(k.rows)); k.first[i+1] == k.first[i] {
			k.bias[i] = float32(math.Inf(1))
			continue
		}
		k.some = append(k.some, uint32(i))
	}
	return k
}
