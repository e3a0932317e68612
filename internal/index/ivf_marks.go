package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of what is known about filters.
const (
	// marksKept is how many filters are known at a time. Those of a filter take two bits for
	// each row of the index and what is packed, see packMost.
	marksKept = 4
	// marksRows is for how many rows that are packed one search more passes before the next
	// filter is marked.
	marksRows = 256
	// marksLeast is how many rows a filter allows that is worth it: fewer are scanned.
	marksLeast = 1 << 11
)

// marks say which positions of the lists a filter allows. A search that has them need not
// look up rows one by one, and does not touch lists that have none.
type marks struct {
	selected int      // rows in it
	masks    []uint32 // of all blocks
	counts   []uint32 // allowed rows, by list
	lists    int      // with such rows
	some     []uint32 // which they are, a word for each 32
	crowd    float64  // how crowded these lists are
	packed   *packed  // nil: they are too many, or have no 4-bit codes
}

// learn returns the marks of a filter that was met before and allows so many rows; nil if it is new.
func (x *ivf) learn(words []uint64, selected int) *marks {
	return x.marks.learn(words, x.marksBytes(selected), func() (*marks, int) {
		m := x.mark(words)
		if m.packed == nil {
			return m, 0
		}
		return m, m.selected / marksRows
	})
}

// marksBytes is how many bytes the marks of a filter take that allows so many rows.
func (x *ivf) marksBytes(selected int) int64 {
	bytes := 4 * int64(x.numBlocks()+x.lists.n+numPanels(x.lists.n))
	if x.packs(selected) {
		bytes += int64(numPanels(selected))*int64(x.blockBytes()+4*vec.FastScanBlock) + 4*int64(x.lists.n+1+selected)
	}
	return bytes
}

// packs says whether the codes of so many allowed rows are packed.
func (x *ivf) packs(selected int) bool { return x.pq != nil && selected*packMost <= x.n }

// mark finds the rows that a filter allows.
func (x *ivf) mark(words []uint64) *marks {
	m := &marks{
		masks: make([]uint32, x.numBlocks()), counts: make([]uint32, x.lists.n),
		some: make([]uint32, numPanels(x.lists.n)),
	}
	x.markLists(m, words)
	m.crowd = x.crowdOf(m.counts)
	for l, n := range m.counts {
		m.some[l/vec.PanelRows] |= min(n, 1) << (l % vec.PanelRows)
	}
	if x.packs(m.selected) {
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
		partition(x.kern, v.near, p.least)
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
		partition(x.kern, v.near, n)
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
	share := float64(rows) / float64(max(p.expect, 1))
	p.target = max(int(float64(p.expect)*min(max(markMore+markSlope*(1-share), 1), markMore)), p.target)
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
