package index

import (
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Of filters that an sqGraph knows.
const (
	// knownKept is how many filters are known at a time, and knownSeen how many are
	// remembered that were met once.
	knownKept, knownSeen = 2, 8
	// knownPause is how many searches with filters that are not known pass before the
	// next is learnt, which takes as long as a few: filters that take turns and are more
	// than can be known cost a part of a search then.
	knownPause = 32
	// knownLeast is how many rows a filter allows that is worth it.
	knownLeast = 256
)

// knownFilter is the rows that a filter allows, list by list. A search that has them
// looks no row up, and does not touch lists that have none.
type knownFilter struct {
	words []uint64  // the filter
	first []uint32  // list l has rows [first[l], first[l+1])
	rows  []uint32  // allowed
	some  []uint32  // lists that have rows
	bias  []float32 // of centres, +Inf for those of other lists
}

// knownFilters keeps those of filters that were used more than once lately, found by
// their bits: a set is often made anew for each search. One takes an eighth of a byte
// for each row of the index and four for each that is allowed.
type knownFilters struct {
	seed  maphash.Seed
	known [knownKept]atomic.Pointer[knownFilter]
	seen  [knownSeen]atomic.Uint64
	next  atomic.Uint32 // place in seen
	turn  atomic.Uint32 // place in known
	asked atomic.Uint64 // searches whose filter was not known
	until atomic.Uint64 // so many before the next filter is learnt
}

func newKnownFilters() *knownFilters { return &knownFilters{seed: maphash.MakeSeed()} }

// known returns what is known about a filter; nil if that is nothing.
func (g *sqGraph) known(words []uint64) *knownFilter {
	if g.filters == nil {
		return nil
	}
	for i := range g.filters.known {
		if k := g.filters.known[i].Load(); k != nil && sameWords(k.words, words) {
			return k
		}
	}
	return nil
}

// learn returns what there is to know about a filter that is not known and allows c
// rows; nil if it was not met before.
func (g *sqGraph) learn(words []uint64, c int) *knownFilter {
	f := g.filters
	if f == nil || c < knownLeast {
		return nil
	}
	hash := maphash.Bytes(f.seed, wordBytes(words)) | 1
	asked, until := f.asked.Add(1), f.until.Load()
	for i := range f.seen {
		if f.seen[i].Load() != hash {
			continue
		}
		if asked <= until || !f.until.CompareAndSwap(until, asked+knownPause) {
			return nil
		}
		k := g.lists.know(g.kern, slices.Clone(words), g.rows, c)
		f.known[(f.turn.Add(1)-1)%knownKept].Store(k)
		return k
	}
	f.seen[(f.next.Add(1)-1)%knownSeen].Store(hash)
	return nil
}

// know finds the rows of the lists that a filter allows, c of them.
func (l *sqLists) know(kern vec.Kernels, words []uint64, rows, c int) *knownFilter {
	k := &knownFilter{words: words, first: make([]uint32, l.n+1), rows: make([]uint32, 0, c+listChunk), bias: slices.Clone(l.codes.bias)}
	for i := range l.n {
		links := l.list(uint32(i))
		if len(links) > rows-len(k.rows) {
			links = links[:max(rows-len(k.rows), 0)] // lists of a damaged image
		}
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
