package index

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/querynode/querynode/internal/vec"
)

// Of batches with a filter.
const (
	// gatherRows is how many allowed rows are put together before they are compared
	// with all queries: their codes fit the second cache.
	gatherRows = 4096
	// gatherMore is how many more rows than those of the lists that would be read
	// are rather gathered: they lie together, and none is missed.
	gatherMore = 4.5
	// gatherLeast is how many queries rows are gathered for at least.
	gatherLeast = 4
)

// looker follows a search from list to list.
type looker struct {
	x    *ivf
	p    plan
	met  int
	more bool
	// Of the list at hand and the next one, by turns: which rows are allowed, and
	// how many.
	own   [2][]uint32
	masks [2][]uint32
	count [2]int
}

// begin readies k for a search.
func (k *looker) begin(x *ivf, p *plan, s *Scratch) {
	k.x, k.p, k.met, k.more = x, *p, 0, false
	step := len(s.ivf.near)
	switch {
	case p.allowed != nil:
		step = min(step, max(p.near, listStep))
	case step > 2*listStep:
		step = listStep // what is found there bounds the others, whose order matters little
	}
	x.order(step, s)
	if p.allowed == nil {
		x.orderRest(s)
	}
	if len(s.ivf.lists) > 0 {
		k.look(0, s.ivf.lists[0])
	}
}

// look finds the allowed rows of the i-th list, and asks for its codes if there are any.
func (k *looker) look(i int, l uint32) {
	x, turn := k.x, i%2
	from, to := int(x.first[l]), int(x.first[l+1])
	switch {
	case k.p.allowed == nil:
		if i >= k.p.ahead {
			x.ask(l, nil)
		}
		return
	case k.p.dense:
		k.count[turn] = (to - from) * k.p.selected / x.numBlocks()
		x.ask(l, nil)
		return
	case k.p.marks != nil:
		k.masks[turn], k.count[turn] = k.p.marks.masks[from:to], int(k.p.marks.counts[l])
	default:
		k.own[turn] = grown(k.own[turn], to-from)
		k.masks[turn] = k.own[turn]
		k.count[turn] = x.kern.Allowed(x.ids[from*vec.PanelRows:to*vec.PanelRows], k.p.allowed, k.masks[turn])
	}
	if c := k.p.packed(); c != nil {
		size := x.blockBytes()
		vec.PrefetchBytes(c.blocks[int(c.first[l])/vec.FastScanBlock*size : numPanels(int(c.first[l+1]))*size])
	} else if k.count[turn] > 0 && !k.p.few {
		x.ask(l, k.masks[turn])
	}
}

// ask asks for the codes of a list that are read next: of all blocks (nil), or those
// that have a row in masks.
func (x *ivf) ask(l uint32, masks []uint32) {
	if x.pq == nil {
		return
	}
	size, first := x.blockBytes(), int(x.first[l])
	if masks == nil {
		vec.PrefetchBytes(x.blocks[first*size : int(x.first[l+1])*size])
		vec.PrefetchBytes(raw(x.pqBias[first*vec.FastScanBlock : int(x.first[l+1])*vec.FastScanBlock]))
		return
	}
	for i := 0; i < len(masks); {
		from := i
		for i < len(masks) && masks[i] != 0 {
			i++
		}
		if i > from {
			vec.PrefetchBytes(x.blocks[(first+from)*size : (first+i)*size])
		}
		i++
	}
}

// wants reports whether there is an i-th list that is still to be read, and which of its rows may be
// found: nil stands for all (or those that a hit is looked up for), and there are none if it is empty. One in which few rows are
// allowed may have the nearest of them.
func (k *looker) wants(i int, s *Scratch) (masks []uint32, ok bool) {
	p, v := &k.p, &s.ivf
	if i == len(v.lists) || p.allowed != nil && k.enough(i) {
		return nil, false
	}
	if i+1 == len(v.lists) {
		k.x.order(listStep, s)
	}
	if i+1 < len(v.lists) {
		k.look(i+1, v.lists[i+1])
	}
	if i+2 < len(v.lists) && p.looks() && p.marks == nil {
		l := v.lists[i+2]
		vec.Prefetch(k.x.ids[k.x.first[l]*vec.PanelRows : k.x.first[l+1]*vec.PanelRows])
	}
	if p.allowed == nil {
		return nil, true
	}
	k.met += k.count[i%2]
	if p.dense {
		return nil, true
	}
	if k.count[i%2] == 0 {
		return k.masks[i%2][:0], true
	}
	return k.masks[i%2], true
}

// enough reports whether the lists before the i-th do.
func (k *looker) enough(i int) bool {
	p := &k.p
	if p.marks != nil && p.looks() {
		return i >= min(p.near, p.least) && p.met(i, k.met)
	}
	if i == p.least && p.far == 0 && float64(k.met) < lookLess*float64(p.expect) {
		k.more = true
	}
	target := p.target
	if k.more {
		target *= lookMore
	}
	return i >= p.least && k.met >= target
}

// looks reports whether it is looked up which rows of lists are allowed.
func (p *plan) looks() bool { return p.allowed != nil && !p.dense }

// whole reports whether codes of all allowed rows are read.
func (p *plan) whole() bool { return p.marks != nil && p.marks.whole != nil }

// packed is what is packed of the rows that are allowed, nil if nothing is.
func (p *plan) packed() *packed {
	if p.marks == nil || p.dense {
		return nil
	}
	return p.marks.packed
}

// batchFilter is what a batch with a filter works in.
type batchFilter struct {
	marks  *marks   // of the filter: those that are kept, or own
	own    marks    // whose masks are those below
	masks  []uint32 // of all blocks, or of some
	panels []byte   // codes of gathered rows
	bias   []float32
	at     []uint32 // their positions
}

func (f *batchFilter) bytes() int {
	return 4*(cap(f.masks)+cap(f.own.counts)+cap(f.bias)+cap(f.at)) + cap(f.panels)
}

// gathers reports whether n queries are better compared with all allowed rows than
// with those of the lists near them.
func (x *ivf) gathers(n int, p *plan) bool {
	return p.allowed != nil && n >= gatherLeast && float64(p.selected) <= gatherMore*float64(p.least*x.n/x.lists.n)
}

// mark finds the allowed rows of all lists, or of some, if s is stopped.
func (f *batchFilter) mark(x *ivf, p *plan, s *Scratch) {
	if f.marks = p.marks; f.marks != nil {
		return
	}
	f.masks, f.own.counts = grown(f.masks, x.numBlocks()), grown(f.own.counts, x.lists.n)
	f.own.masks, f.marks = f.masks, &f.own
	x.markLists(f.marks, p.allowed, s.stopped)
}

// useNear notes that a query wants lists near it, by sums for all, as far as a filter needs.
func (x *ivf) useNear(query uint32, sums []int32, aff vec.Affine, p plan, s *Scratch) {
	v, b, m := &s.ivf, &s.ivf.batch, s.ivf.batch.filter.marks
	bias := x.lists.codes.bias
	x.selectLists(sums, bias, aff, min(2*p.least, x.lists.n), s)
	if p.least < len(v.near) {
		partition(x.kern, v.near, p.least)
	}
	p.mark(m.rows(v.near[:min(p.least, len(v.near))]))
	if m.rows(v.near) < p.target {
		x.selectLists(sums, bias, aff, x.lists.n, s)
	}
	m.keep(v)
	met, sorted := 0, 0
	for i := 0; i < len(v.near) && (i < p.near || !p.met(i, met)); i++ {
		if i == sorted {
			step := listStep
			if i == 0 {
				step = max(p.near, shortSlack)
			}
			sorted = sortNext(x.kern, v.near, sorted, sorted+step)
		}
		l := uint32(v.near[i])
		met += int(m.counts[l])
		at := 0
		if i >= batchFirst {
			at = 1
		}
		b.pairs[at] = append(b.pairs[at], listUse{list: l, query: query})
	}
}

// maskBias writes the biases of some blocks to out, +Inf for rows that may not be found.
func (f *batchFilter) maskBias(out, bias []float32, from int) {
	for b, mask := range f.marks.masks[from : from+len(out)/vec.PanelRows] {
		to := out[b*vec.PanelRows:][:vec.PanelRows]
		copy(to, bias[b*vec.PanelRows:])
		for not := ^mask; not != 0; not &= not - 1 {
			to[bits.TrailingZeros32(not)&(vec.PanelRows-1)] = float32(math.Inf(1))
		}
	}
}

// compareAllowed compares n queries with all allowed rows.
func (x *ivf) compareAllowed(n int, p *plan, s *Scratch) {
	f, size := &s.ivf.batch.filter, x.bytes.panelBytes()
	f.panels = grown(f.panels, gatherRows/vec.PanelRows*size)
	f.bias, f.at = grown(f.bias, gatherRows), grown(f.at, gatherRows)
	f.masks = grown(f.masks, chunkPanels)
	rows := 0
	for from := 0; from < x.numBlocks(); from += chunkPanels {
		to := min(from+chunkPanels, x.numBlocks())
		if x.kern.Allowed(x.ids[from*vec.PanelRows:to*vec.PanelRows], p.allowed, f.masks) == 0 {
			continue
		}
		for b, mask := range f.masks[:to-from] {
			for ; mask != 0; mask &= mask - 1 {
				lane := bits.TrailingZeros32(mask)
				copyLane(f.panels[rows/vec.PanelRows*size:][:size], rows%vec.PanelRows, x.bytes.panels[(from+b)*size:][:size], lane)
				f.at[rows] = uint32((from+b)*vec.PanelRows + lane)
				f.bias[rows] = x.bytes.bias[f.at[rows]]
				if rows++; rows == gatherRows {
					if x.compareGathered(n, rows, s); s.stopped() {
						return
					}
					rows = 0
				}
			}
		}
	}
	x.compareGathered(n, rows, s)
}

// copyLane copies the code of a vector from one panel to another.
func copyLane(to []byte, lane int, from []byte, as int) {
	const quad = 4 * vec.PanelRows
	to, from = to[4*lane:], from[4*as:]
	for {
		binary.LittleEndian.PutUint32(to, binary.LittleEndian.Uint32(from))
		if len(to) <= quad || len(from) <= quad {
			return
		}
		to, from = to[quad:], from[quad:]
	}
}

// compareGathered compares n queries with the rows that are gathered.
func (x *ivf) compareGathered(n, rows int, s *Scratch) {
	v, b := &s.ivf, &s.ivf.batch
	f, size, width := &b.filter, x.bytes.panelBytes(), 4*x.bytes.quads
	panels := numPanels(rows)
	for i := rows; i < panels*vec.PanelRows; i++ {
		f.bias[i] = float32(math.Inf(1))
	}
	for q := 0; q < n && !s.stopped(); q += batchRun {
		run := min(batchRun, n-q)
		for from := 0; from < panels; from += chunkPanels {
			m := min(panels-from, chunkPanels)
			x.kern.Panels(b.z[q*width:], run, x.bytes.quads, f.panels[from*size:], m, v.sums)
			bias := f.bias[from*vec.PanelRows:]
			for i := range run {
				c := &b.cands[q+i]
				hits := x.kern.SumsBelow(v.sums[i*m*vec.PanelRows:][:m*vec.PanelRows], bias, b.aff[q+i], c.limit, v.rows, v.dist)
				for j, r := range v.rows[:hits] {
					c.keys = append(c.keys, vec.Key(v.dist[j], f.at[from*vec.PanelRows+int(r)]))
				}
				c.trim(x.kern)
			}
		}
	}
	s.stats.Hops++
}
