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
	// filter is marked, and wholeRows the same of those with whole codes.
	marksRows, wholeRows = 256, 32
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
	centres  rowCodes // short codes of the centres of these, if there are any; at is which lists they are
	crowd    float64  // how crowded these lists are
	packed   *packed  // nil: they are too many, or have no 4-bit codes, or whole are read
	whole    *whole   // nil: they are too many, or these err too far
}

// learn returns the marks of a filter that was met before and allows so many rows; nil if it is new, or s is stopped.
func (x *ivf) learn(words []uint64, selected int, s *Scratch) *marks {
	return x.marks.learn(words, x.marksBytes(selected), func() (*marks, int) {
		m := x.mark(words, s.stopped)
		switch {
		case m == nil:
			return nil, 0
		case m.whole != nil:
			return m, m.selected / wholeRows
		case m.packed != nil:
			return m, m.selected / marksRows
		}
		return m, 0
	})
}

// marksBytes is how many bytes the marks of a filter take that allows so many rows.
func (x *ivf) marksBytes(selected int) int64 {
	bytes := 4 * int64(x.numBlocks()+x.lists.n)
	if c := x.lists.short; c != nil {
		lists := min(x.lists.n, selected)
		bytes += int64(numPanels(lists))*int64(c.blockBytes()+4*vec.FastScanBlock) + 4*int64(lists)
	}
	if x.packs(selected) { // whole codes, in their place, take less
		bytes += int64(numPanels(selected))*int64(x.blockBytes()+4*vec.FastScanBlock) + 4*int64(x.lists.n+1+selected)
	}
	return bytes
}

// packs says whether the codes of so many allowed rows are packed.
func (x *ivf) packs(selected int) bool { return x.pq != nil && selected*packMost <= x.n }

// mark finds the rows that a filter allows, nil if it is stopped. That takes up to tens of milliseconds, so stop is asked every few
// microseconds, and by what takes longest at the end too: what was stopped is not whole.
func (x *ivf) mark(words []uint64, stop func() bool) *marks {
	m := &marks{
		masks: make([]uint32, x.numBlocks()), counts: make([]uint32, x.lists.n),
	}
	if x.markLists(m, words, stop); stop() {
		return nil
	}
	m.crowd = x.crowdOf(m.counts)
	if x.lists.short != nil {
		m.centres = x.packCentres(m)
	}
	if x.wholes(m.selected) {
		m.whole = x.packWhole(m, stop)
	}
	if m.whole == nil && x.packs(m.selected) {
		m.packed = x.pack(m, stop)
	}
	if stop() {
		return nil
	}
	return m
}

// markLists finds the rows of lists that a filter allows, or of some, if it is stopped.
func (x *ivf) markLists(m *marks, words []uint64, stop func() bool) {
	m.selected, m.lists = 0, 0
	for l := range m.counts {
		if stop() {
			return
		}
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
	if c := x.lists.short; float64(p.target) >= markMore*float64(p.expect) {
		// However many rows are allowed near the query, no more are wanted.
		x.estimateMarked(p, x.forLists(x.tables(c.pq, x.factor(), s), v.length), s)
	} else {
		aff := x.estimateLists(p.least+p.least/shortMore+shortSlack, p.least, s)
		if p.least < len(v.near) {
			partition(x.kern, v.near, p.least)
		}
		p.mark(m.rows(v.near[:min(p.least, len(v.near))]))
		if m.rows(v.near) < p.target {
			x.estimateMarked(p, aff, s)
		}
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
	v, m := &s.ivf, p.marks
	some := &m.centres
	quads, blocks := vec.FastScanQuads(x.lists.short.pq.parts), len(some.bias)/vec.FastScanBlock
	sure := p.target + p.target/shortMore
	want := shortSlack + max(sure*m.lists/max(m.selected, 1), p.amid) // a query may be amid these rows
	limit := x.shortLimit(want, some.blocks, some.bias, aff, s)
	hits := x.kern.FastScanBelow(some.blocks, quads, blocks, v.lut, some.bias, nil, aff, limit, v.rows, v.dist)
	if limit < math.MaxFloat32 && m.rowsOf(v.rows[:hits]) < sure {
		hits = x.kern.FastScanBelow(some.blocks, quads, blocks, v.lut, some.bias, nil, aff, math.MaxFloat32, v.rows, v.dist)
	}
	for i, at := range v.rows[:hits] {
		v.rows[i] = some.at[at]
	}
	x.keepLists(hits, hits, s)
	want += want / 4
	for n := want; n < len(v.near); n *= 2 {
		enough := partitionAbout(x.kern, v.near, n, min(n+n/4, len(v.near)-1))
		if m.rows(v.near[:enough]) >= sure {
			v.near = v.near[:enough]
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

// packCentres packs the short codes of the centres of lists that have allowed rows.
func (x *ivf) packCentres(m *marks) rowCodes {
	from := x.lists.short
	size := from.blockBytes()
	c := newRowCodes(m.lists, size)
	for l, count := range m.counts {
		if count == 0 {
			continue
		}
		n := len(c.at)
		packLane(c.blocks[n/vec.FastScanBlock*size:][:size], n%vec.FastScanBlock, from.blocks[l/vec.FastScanBlock*size:][:size], l%vec.FastScanBlock)
		c.bias[n], c.at = from.bias[l], append(c.at, uint32(l))
	}
	return c
}

// rowsOf is how many rows are allowed in lists, by their places in m.centres.
func (m *marks) rowsOf(centres []uint32) (n int) {
	for _, at := range centres {
		n += int(m.counts[m.centres.at[at]])
	}
	return n
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
