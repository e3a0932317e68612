package index

import (
	"hash/maphash"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Of a filterCache.
const (
	// filtersSeen is how many filters are remembered that were met once.
	filtersSeen = 8
	// filtersPause is how many searches with filters that are not known pass before the next is
	// learnt, which takes as long as a few: filters that take turns and are more than can be
	// known cost a part of a search then.
	filtersPause = 32
)

// filterCache keeps what an index has found out about filters that were used more than once
// lately. They are found by their bits: a set is often made anew for each search. Nil knows
// nothing and learns nothing. It is safe for concurrent use, and nothing waits in it.
type filterCache[T any] struct {
	memory Memory // nil: there is no bound
	seed   maphash.Seed
	known  []atomic.Pointer[knownWords[T]]
	seen   [filtersSeen]atomic.Uint64
	next   atomic.Uint32 // place in seen
	turn   atomic.Uint32 // place in known
	asked  atomic.Uint64 // searches whose filter was not known
	until  atomic.Uint64 // so many before the next filter is learnt
}

// knownWords is a filter that is known. It does not change.
type knownWords[T any] struct {
	words []uint64
	is    *T
	bytes int64 // of both
}

// newFilterCache returns a cache that knows so many filters at a time.
func newFilterCache[T any](kept int) *filterCache[T] {
	return &filterCache[T]{seed: maphash.MakeSeed(), known: make([]atomic.Pointer[knownWords[T]], kept)}
}

// find returns what is known about a filter, nil if that is nothing.
func (c *filterCache[T]) find(words []uint64) *T {
	if c == nil {
		return nil
	}
	for i := range c.known {
		if k := c.known[i].Load(); k != nil && sameWords(k.words, words) {
			return k.is
		}
	}
	return nil
}

// learn has about find out about a filter that was met before and is not known, keeps that and
// returns it; nil if the filter is new, another was learnt a moment ago, there is no memory
// for it or about was stopped, which then returns nil. What is found out takes so many bytes at most; about also says how many searches
// more than usual are to pass before the next.
func (c *filterCache[T]) learn(words []uint64, bytes int64, about func() (is *T, pause int)) *T {
	if c == nil {
		return nil
	}
	hash := c.hash(words)
	asked, until := c.asked.Add(1), c.until.Load()
	for i := range c.seen {
		if c.seen[i].Load() != hash {
			continue
		}
		if asked <= until || !c.until.CompareAndSwap(until, asked+filtersPause) {
			return nil
		}
		if bytes += 8 * int64(len(words)); !c.take(bytes) {
			return nil
		}
		kept := false
		defer func() { // about may meet a fault in a mapped file
			if !kept {
				c.take(-bytes)
			}
		}()
		is, pause := about()
		if is == nil {
			return nil
		}
		c.until.Add(uint64(pause))
		slot := &c.known[(c.turn.Add(1)-1)%uint32(len(c.known))]
		c.drop(slot)
		kept = slot.CompareAndSwap(nil, &knownWords[T]{words: slices.Clone(words), is: is, bytes: bytes})
		return is
	}
	c.seen[(c.next.Add(1)-1)%filtersSeen].Store(hash)
	return nil
}

// Of hash: one of how many words is looked at, but for the last ones, and how many at a time.
const hashEach, hashSome = 64, 256

// hash tells filters apart that are met, mostly: of large ones it looks at some words. Two
// that it takes for one are learnt the first time they are met, not the second.
func (c *filterCache[T]) hash(words []uint64) uint64 {
	var h maphash.Hash
	var some [hashSome]uint64
	h.SetSeed(c.seed)
	n := 0
	for ; len(words) > hashEach; words = words[hashEach:] {
		if n == len(some) {
			_, _ = h.Write(wordBytes(some[:])) // never fails
			n = 0
		}
		some[n] = words[0]
		n++
	}
	_, _ = h.Write(wordBytes(some[:n]))
	_, _ = h.Write(wordBytes(words))
	return h.Sum64() | 1
}

// within has the cache ask m before it keeps more; nothing is known yet.
func (c *filterCache[T]) within(m Memory) {
	if c != nil {
		c.memory = m
	}
}

// forget drops what is known.
func (c *filterCache[T]) forget() {
	if c == nil {
		return
	}
	for i := range c.known {
		c.drop(&c.known[i])
	}
}

// drop empties a place and gives its memory back. Searches that use what was there go on.
func (c *filterCache[T]) drop(slot *atomic.Pointer[knownWords[T]]) {
	if k := slot.Swap(nil); k != nil {
		c.take(-k.bytes)
	}
}

func (c *filterCache[T]) take(bytes int64) bool { return c.memory == nil || c.memory.Take(bytes) }

func sameWords(a, b []uint64) bool {
	return len(a) == len(b) && string(wordBytes(a)) == string(wordBytes(b))
}

// wordBytes views words as bytes.
func wordBytes(w []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w))
}
