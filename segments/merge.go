package segments

import (
	"cmp"
	"context"
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
	"github.com/querynode/querynode/pool"
)

// merger is the memory in which the parts of a search are collected and merged.
// It is reused.
type merger struct {
	parts []part
	tasks []pool.Task
	ends  []int // end of each task's parts
	first int   // part that the first of tasks begins with
	order []int // targets, as they are searched
	worst worst

	heads   vec.Merger
	lists   [][]vec.Neighbor
	targets []int32 // of lists
	hits    []hit
	seen    keySet
	ints    []int64  // keys of hits
	strs    []string // the same, of texts
}

// keptBytes is how much memory a merger may hold when it is put away.
const keptBytes = 4 << 20

// addPart appends a part that is for queries [from, to), with the memory of one
// that was there before.
func (m *merger) addPart(target int32, from, to int) *part {
	if len(m.parts) < cap(m.parts) {
		m.parts = m.parts[:len(m.parts)+1]
	} else {
		m.parts = append(m.parts, part{})
	}
	p := &m.parts[len(m.parts)-1]
	*p = part{target: target, from: from, to: to, ends: p.ends[:0], found: p.found[:0]}
	return p
}

// reset drops what belongs to a search. It reports whether the memory is worth keeping.
func (m *merger) reset() bool {
	bytes := 16*cap(m.hits) + 8*cap(m.ints) + 16*cap(m.strs)
	for _, p := range m.parts[:cap(m.parts)] {
		bytes += 8*cap(p.found) + 4*cap(p.ends)
	}
	m.parts, m.hits, m.first = m.parts[:0], m.hits[:0], 0
	clear(m.tasks)
	m.seen.reset(0)
	return bytes <= keptBytes
}

// checkRows is about how many rows are put into an answer before the context is asked
// again: a fraction of a millisecond's work.
const checkRows = 1 << 16

// ended returns the error of a context that has ended, with what was going on.
func ended(ctx context.Context, what string) error {
	if err := ctx.Err(); err != nil {
		return errors.Wrap(err, what)
	}
	return nil
}

// merge merges the parts of all targets, query by query, into the hits of s, and
// fills in counts and scores.
func (s *searching) merge(ctx context.Context, res *SearchResult) error {
	m := s.merger
	m.hits = slices.Grow(m.hits, min(m.found(s), s.req.NQ*s.want()))
	for q := range s.req.NQ {
		if err := ended(ctx, "merge search"); err != nil {
			return err
		}
		m.collect(s, q)
		first := len(m.hits)
		if s.mergeAll(); !s.distinct(first) {
			m.hits = m.hits[:first]
			m.collect(s, q) // from the beginning
			s.mergeDistinct()
		}
		got := len(m.hits) - first
		skip := min(s.req.Offset, got)
		m.hits = append(m.hits[:first], m.hits[first+skip:]...)
		res.Counts = append(res.Counts, int64(got-skip))
		if err := s.room.fits(len(m.hits)); err != nil {
			return err
		}
	}
	res.Scores = make([]float32, len(m.hits))
	for i, h := range m.hits {
		if i%checkRows == checkRows-1 {
			if err := ended(ctx, "merge search"); err != nil {
				return err
			}
		}
		res.Scores[i] = s.req.Metric.Score(h.distance)
	}
	return nil
}

// found is how many rows the parts have that count.
func (m *merger) found(s *searching) (n int) {
	for i := range m.parts {
		if p := &m.parts[i]; !s.reader.targets[p.target].dead {
			n += len(p.found)
		}
	}
	return n
}

// worst is, for each query, a distance beyond which no row is in the answer: that of
// the last of as many as are wanted, in some target. It may be lowered by any task.
type worst struct{ keys []atomic.Uint32 } // upper half of vec.Key

// reset readies w for so many queries.
func (w *worst) reset(queries int) {
	if cap(w.keys) < queries {
		w.keys = make([]atomic.Uint32, queries)
	}
	w.keys = w.keys[:queries]
	for i := range w.keys {
		w.keys[i].Store(math.MaxUint32)
	}
}

// of returns the distance for query i; ok is false if there is none.
func (w *worst) of(i int) (distance float32, ok bool) {
	key := w.keys[i].Load()
	return vec.Unkey(uint64(key) << 32).Distance, key != math.MaxUint32
}

// lower says that there are enough rows for query i that are no farther.
func (w *worst) lower(i int, distance float32) {
	key := uint32(vec.Key(distance, 0) >> 32)
	for old := w.keys[i].Load(); key < old; old = w.keys[i].Load() {
		if w.keys[i].CompareAndSwap(old, key) {
			return
		}
	}
}

// collect gathers the sorted lists of query q.
func (m *merger) collect(s *searching, q int) {
	m.lists, m.targets = m.lists[:0], m.targets[:0]
	for i := range m.parts {
		p := &m.parts[i]
		if q < p.from || q >= p.to || s.reader.targets[p.target].dead {
			continue
		}
		begin := int32(0)
		if i := q - p.from; i > 0 {
			begin = p.ends[i-1]
		}
		m.lists = append(m.lists, p.found[begin:p.ends[q-p.from]])
		m.targets = append(m.targets, p.target)
	}
	m.heads.Reset(m.lists)
}

// mergeAll appends the nearest hits of the collected lists.
func (s *searching) mergeAll() {
	m := s.merger
	for range s.want() {
		list, n, ok := m.heads.Next()
		if !ok {
			break
		}
		m.hits = append(m.hits, hit{target: m.targets[list], row: n.Row, distance: n.Distance})
	}
}

// distinct reports whether no key is twice among the hits from first on. In one target none
// is. Keys are read one after the other before the first is looked for: each lies elsewhere
// in memory.
func (s *searching) distinct(first int) bool {
	m := s.merger
	hits := m.hits[first:]
	if len(s.targets) == 1 || !slices.ContainsFunc(hits, func(h hit) bool { return h.target != hits[0].target }) {
		return true
	}
	text := s.info.Schema.Primary().Type == schema.VarChar
	m.seen.reset(len(hits))
	m.ints, m.strs = m.ints[:0], m.strs[:0]
	defer func() { clear(m.strs) }() // the texts are the segments'
	for _, h := range hits {
		ikey, skey := s.targets[h.target].key(h.row)
		if m.ints = append(m.ints, ikey); text {
			m.strs = append(m.strs, skey)
		}
	}
	skey := ""
	for i, ikey := range m.ints {
		if text {
			skey = m.strs[i]
		}
		if _, twice := m.seen.add(ikey, skey, text); twice {
			return false
		}
	}
	return true
}

// mergeDistinct appends the nearest hits of the collected lists; of rows with the
// same key, the newest. A list that is full has as many keys as are wanted, so
// that rows which are dropped here leave no gap.
func (s *searching) mergeDistinct() {
	m := s.merger
	first := len(m.hits)
	m.seen.reset(s.want())
	text := s.info.Schema.Primary().Type == schema.VarChar
	resort := false
	for len(m.hits)-first < s.want() {
		list, n, ok := m.heads.Next()
		if !ok {
			break
		}
		h := hit{target: m.targets[list], row: n.Row, distance: n.Distance}
		ikey, skey := s.targets[h.target].key(h.row)
		at, twice := m.seen.add(ikey, skey, text)
		switch {
		case !twice:
			m.hits = append(m.hits, h)
		case s.newer(h, m.hits[first+at]):
			m.hits[first+at], resort = h, true
		}
	}
	if resort {
		slices.SortStableFunc(m.hits[first:], func(a, b hit) int { return cmp.Compare(a.distance, b.distance) })
	}
}

// newer reports whether row a was inserted later than row b.
func (x *reader) newer(a, b hit) bool {
	return x.targets[a.target].timestamp(a.row) > x.targets[b.target].timestamp(b.row)
}

// keySet numbers distinct keys in the order in which they are added. It is a
// hash table with open addressing that is emptied in no time. The zero keySet is
// ready for reset.
type keySet struct {
	slots []uint64 // generation<<32 | number of the key plus 1
	round uint64   // the generation that counts
	ints  []int64  // keys by number
	strs  []string
	seed  maphash.Seed
}

// reset empties the set and makes room for n keys.
func (k *keySet) reset(n int) {
	k.round++
	clear(k.strs)
	k.ints, k.strs = k.ints[:0], k.strs[:0]
	size := 64
	for size < 2*n {
		size *= 2
	}
	if len(k.slots) < size || k.round >= 1<<32 {
		k.slots, k.round, k.seed = make([]uint64, size), 1, maphash.MakeSeed()
	}
}

// add adds a key, the text or else the number, and returns its number; twice
// reports that it was there before.
func (k *keySet) add(ikey int64, skey string, text bool) (number int, twice bool) {
	mask := uint64(len(k.slots) - 1)
	at := uint64(ikey) * 0x9e3779b97f4a7c15 >> 20
	if text {
		at = maphash.String(k.seed, skey)
	}
	for ; ; at++ {
		slot := &k.slots[at&mask]
		if *slot>>32 != k.round {
			*slot = k.round<<32 | uint64(len(k.ints)+1)
			k.ints = append(k.ints, ikey)
			if text {
				k.strs = append(k.strs, skey)
			}
			return len(k.ints) - 1, false
		}
		number = int(uint32(*slot)) - 1
		if text && k.strs[number] == skey || !text && k.ints[number] == ikey {
			return number, true
		}
	}
}
