package index

import (
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/querynode/querynode/internal/vec"
)

// Of what is known about filters.
const (
	// marksKept is how many filters are known at a time.
	marksKept = 4
	// marksSeen is how many filters are remembered that were met once.
	marksSeen = 8
	// marksPause is how many searches with filters pass before the next filter is marked, which
	// takes as long as a few, and one more for so many rows that are packed: filters that take
	// turns and are more than can be known cost a part of a search then.
	marksPause, marksRows = 32, 256
	// marksLeast is how many rows a filter allows that is worth it: fewer are scanned.
	marksLeast = 1 << 11
)

// marks say which positions of the lists a filter allows. A search that has them need not
// look up rows one by one, and does not touch lists that have none.
type marks struct {
	words    []uint64 // the filter
	selected int      // rows in it
	masks    []uint32 // of all blocks
	counts   []uint32 // allowed rows, by list
	lists    int      // with such rows
	some     []uint32 // which they are, a word for each 32
	packed   *packed  // nil: they are too many, or have no 4-bit codes
}

// marksCache keeps the marks of filters that were used more than once lately. They
// are found by the filters' bits: a set is often made anew for each search. Those of a filter
// take two bits for each row of the index and what is packed, see packMost.
type marksCache struct {
	seed  maphash.Seed
	known [marksKept]atomic.Pointer[marks]
	seen  [marksSeen]atomic.Uint64
	next  atomic.Uint32 // place in seen
	turn  atomic.Uint32 // place in known
	asked atomic.Uint64 // searches whose filter was not known
	until atomic.Uint64 // so many before the next filter is marked
}

// find returns the marks of a filter, nil if they are not known.
func (c *marksCache) find(words []uint64) *marks {
	for i := range c.known {
		if m := c.known[i].Load(); m != nil && sameWords(m.words, words) {
			return m
		}
	}
	return nil
}

// learn returns the marks of a filter that was met before and is not known, and keeps
// them; nil if it is new.
func (c *marksCache) learn(x *ivf, words []uint64) *marks {
	hash := maphash.Bytes(c.seed, wordBytes(words)) | 1
	asked, until := c.asked.Add(1), c.until.Load()
	for i := range c.seen {
		if c.seen[i].Load() != hash {
			continue
		}
		if asked <= until || !c.until.CompareAndSwap(until, asked+marksPause) {
			return nil
		}
		m := x.mark(slices.Clone(words))
		if m.packed != nil {
			c.until.Add(uint64(m.selected) / marksRows)
		}
		c.known[(c.turn.Add(1)-1)%marksKept].Store(m)
		return m
	}
	c.seen[(c.next.Add(1)-1)%marksSeen].Store(hash)
	return nil
}

// mark finds the rows that a filter allows.
func (x *ivf) mark(words []uint64) *marks {
	m := &marks{
		words: words, masks: make([]uint32, x.numBlocks()), counts: make([]uint32, x.lists.n),
		some: make([]uint32, numPanels(x.lists.n)),
	}
	x.markLists(m, words)
	for l, n := range m.counts {
		m.some[l/vec.PanelRows] |= min(n, 1) << (l % vec.PanelRows)
	}
	if x.pq != nil && m.selected*packMost <= x.n {
		m.packed = x.pack(m)
	}
	return m
}

// markLists finds the rows of lists that a filter allows.
func (x *ivf) markLists(m *marks, words []uint64) {
	m.selected, m.lists = 0, 0
	for l := range m.counts {
		from, to := x.first[l], x.first[l+1]
		n := x.kern.Allowed(x.ids[from*vec.PanelRows:to*vec.PanelRows], words, m.masks[from:to])
		m.counts[l] = uint32(n)
		m.selected, m.lists = m.selected+n, m.lists+min(n, 1)
	}
}

func sameWords(a, b []uint64) bool {
	return len(a) == len(b) && string(wordBytes(a)) == string(wordBytes(b))
}

// wordBytes views words as bytes.
func wordBytes(w []uint64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), 8*len(w))
}

// nearestMarked leaves lists in s.ivf.near that have rows which the filter allows: those
// near the query, or, where these have too few, the nearest that have.
func (x *ivf) nearestMarked(p *plan, s *Scratch) {
	v, m := &s.ivf, p.marks
	x.roomForLists(s)
	if x.lists.short == nil {
		x.nearestMarkedByBytes(p, s)
		return
	}
	want := p.least + p.least/shortMore + shortSlack
	aff := x.estimateLists(want, p.least, s)
	if p.least < len(v.near) {
		partition(v.near, p.least)
	}
	p.mark(m.rows(v.near[:min(p.least, len(v.near))]))
	if m.rows(v.near) < p.target {
		x.estimateMarked(p, aff, s)
	}
	m.keep(v)
	v.order.ids, v.order.dots = grown(v.order.ids, len(v.near)), grown(v.order.dots, len(v.near))
	x.listKeys(v.near, v.order.ids, v.order.dots, s)
	v.order.known = true
}

// nearestMarkedByBytes is nearestMarked where centres have no short codes.
func (x *ivf) nearestMarkedByBytes(p *plan, s *Scratch) {
	v, c := &s.ivf, x.lists.codes
	sums, aff := x.allLists(s)
	x.selectLists(sums, c.bias, aff, p.least, s)
	rows := p.marks.rows(v.near)
	if p.mark(rows); rows < p.target {
		hits := x.kern.SumsBelow(sums, c.bias, aff, math.MaxFloat32, v.rows, v.dist)
		x.keepLists(hits, hits, s)
	}
	p.marks.keep(v)
}

// estimateMarked leaves lists in s.ivf.near that are nearest by short codes and have half
// as many more allowed rows as are wanted.
func (x *ivf) estimateMarked(p *plan, aff vec.Affine, s *Scratch) {
	v, m, c := &s.ivf, p.marks, x.lists.short
	quads, blocks := vec.FastScanQuads(c.pq.parts), len(c.bias)/vec.FastScanBlock
	sure := p.target + p.target/shortMore
	want := shortSlack + sure*m.lists/max(m.selected, 1)
	limit := x.shortLimit(want, m.some, aff, s)
	hits := x.kern.FastScanBelow(c.blocks, quads, blocks, v.lut, c.bias, m.some, aff, limit, v.rows, v.dist)
	if limit < math.MaxFloat32 {
		rows := 0
		for _, l := range v.rows[:hits] {
			rows += int(m.counts[min(int(l), x.lists.n-1)])
		}
		if rows < sure {
			hits = x.kern.FastScanBelow(c.blocks, quads, blocks, v.lut, c.bias, m.some, aff, math.MaxFloat32, v.rows, v.dist)
		}
	}
	x.keepLists(hits, hits, s)
	want += want / 4
	for n := want; n < len(v.near); n *= 2 {
		partition(v.near, n)
		if m.rows(v.near[:n]) >= sure {
			v.near = v.near[:n]
		}
	}
}

// How many more rows than their share are looked at where a query is among rows of which
// no more are allowed than elsewhere, and how many fewer for as many more that are.
const (
	markMore  = 1.5
	markSlope = 0.3
)

// mark notes how many rows are allowed in the lists near a query: the fewer, the farther
// the nearest are, and the nearer to one another.
func (p *plan) mark(rows int) {
	share := float64(rows) / float64(max(p.target, 1))
	p.target = int(float64(p.target) * min(max(markMore+markSlope*(1-share), 1), markMore))
}

// rows is how many rows are allowed in lists.
func (m *marks) rows(lists []uint64) (n int) {
	for _, key := range lists {
		n += int(m.counts[uint32(key)])
	}
	return n
}

// keep keeps lists in near that have allowed rows.
func (m *marks) keep(v *ivfScratch) {
	n := 0
	for _, key := range v.near {
		v.near[n] = key
		n += int(min(m.counts[uint32(key)], 1))
	}
	v.near = v.near[:n]
}
