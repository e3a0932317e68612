package index

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Of searches that go by the allowed rows.
const (
	// rowsMost is how many rows are allowed at most.
	rowsMost = 1 << 16
	// rowsSample is how many of the rows that are wanted a sample has, about, that tells how near their lists are.
	rowsSample = 32
	// scanWords is how many words of a filter are made rows of at a time where all are compared.
	scanWords = 1 << 14
	// drawnLeast is how many of the rows that are wanted have to be among those that are drawn. drawnLess and drawnMore say
	// how many times less or more than wanted are taken for what is drawn to be wrong.
	drawnLeast, drawnLess, drawnMore = 24, 2, 3
	// rowsFirst is one of how many rows is allowed at most for them to be listed before it is known whether they are wanted.
	rowsFirst = 64
)

// What searches with a filter that is new cost, in nanoseconds: for each list that there is where all are
// compared, for each word of the filter, for each allowed row that is put to its list; for each list whose rows are looked up, or are known;
// for each line of a fine code that is compared, of a code of half a byte, and of the codes of a list.
const (
	costCentre, costWord, costPut, costLookUp, costKnown, costFine, costHalf, costLine = 1.3, 0.5, 0.8, 220, 75, 2.5, 4.5, 3.0
)

// byRows reports whether rows are sooner put to their lists than they are all compared, or lists are read.
func (p *plan) byRows(x *ivf) bool {
	if p.selected > rowsMost || !x.fine.exists() || p.dense {
		return false
	}
	row := costFine * float64(x.fine.stride/coarseLine+1)
	if p.halves != nil {
		row = costHalf * float64(vec.HalfBytes(x.dim)/coarseLine)
	}
	put := costCentre*float64(x.lists.n) + costWord*float64(x.n)/64 + costPut*float64(p.selected) + row*float64(p.target)
	if m := p.marks; m != nil {
		return !p.scan && put < costKnown*float64(min(p.target*m.lists/max(p.selected, 1), m.lists))
	}
	if p.scan {
		return put < costWord*float64(x.n)/64+row*float64(p.selected)
	}
	lists := float64(max(p.least, min(p.target*x.lists.n/max(p.selected, 1), x.lists.n)))
	if p.few || x.pq == nil {
		return put < lists*costLookUp+row*float64(p.target)
	}
	return put < lists*(costLookUp+costLine*float64(x.size()*x.blockBytes())/(coarseLine*vec.FastScanBlock))
}

// rowList says which list each row is in. It takes two bytes a row.
type rowList struct {
	list []uint16
	even float64 // see evenly
}

// rowLists has a rowList once a search has wanted it. It is safe for concurrent use, and
// nothing waits in it.
type rowLists struct {
	of     atomic.Pointer[rowList]
	making atomic.Bool // a search is, now
}

// listOf returns the list of each row, nil if another search is making that just now, there
// is no memory for it or s is stopped.
func (x *ivf) listOf(s *Scratch) *rowList {
	if of := x.listed.of.Load(); of != nil {
		return of
	}
	if x.marks == nil || !x.listed.making.CompareAndSwap(false, true) {
		return nil
	}
	defer x.listed.making.Store(false)
	if of := x.listed.of.Load(); of != nil {
		return of
	}
	bytes := 2 * int64(x.n)
	if !x.marks.take(bytes) {
		return nil
	}
	kept := false
	defer func() { // ids may be in a mapped file that cannot be read
		if !kept {
			x.marks.take(-bytes)
		}
	}()
	of := &rowList{list: make([]uint16, x.n), even: x.evenly()}
	for l := range x.lists.n {
		if s.stopped() {
			return nil
		}
		for _, row := range x.ids[x.first[l]*vec.PanelRows : x.first[l+1]*vec.PanelRows] {
			if int(row) < x.n {
				of.list[row] = uint16(l)
			}
		}
	}
	x.listed.of.Store(of)
	kept = true
	return of
}

// forgetRows drops what listOf has kept.
func (x *ivf) forgetRows() {
	if of := x.listed.of.Swap(nil); of != nil {
		x.marks.take(-2 * int64(len(of.list)))
	}
}

// readAllowed makes the nearest of the allowed rows candidates by the upper halves of their fine codes: of those in the
// lists nearest to the query, as many as are wanted.
func (x *ivf) readAllowed(vector []float32, p *plan, s *Scratch) {
	near := x.listDistances(s)
	if x.byShort() {
		p.target, p.amid = int(shortRows*float64(p.target)), int(shortRows*float64(p.amid))
	}
	rows := p.rows
	if rows == nil {
		rows = x.allRows(p, s)
	}
	if p.target < len(rows) {
		some, amid := x.rowsNear(rows, near, p, s)
		if len(some) < p.enough || len(some) < p.target/drawnLess || len(some) > p.target*drawnMore && !amid { // what is drawn can be wrong
			some = x.rowsNearest(rows, near, p, s)
		}
		rows = some
	}
	s.ivf.cands.reset(p.coarseRows(&s.fine))
	x.coarsest(vector, rows, p, s)
}

// rowsNear are the rows of the lists below a limit which rows drawn by lot tell, or, where the query is amid the allowed rows, of more of
// those that would be read without a filter: nothing but their distances says then which lists are near it. It uses s.ivf.places.
func (x *ivf) rowsNear(rows []uint32, near []float32, p *plan, s *Scratch) (some []uint32, amid bool) {
	v := &s.ivf
	drawn := v.drawn // of words that have few rows as often as of others, if rows were not listed then
	if p.rows == nil || p.target*len(drawn) < drawnLeast*len(rows) {
		drawn = x.drawLists(rows, min(max(drawnLeast*len(rows)/p.target, crowdSample), len(rows)), p.of, s)
	}
	limit := v.drawnReach(x.kern, near, drawn, p.target*len(drawn)/len(rows))
	if v.within == nil {
		v.within = new([maxLists]byte)
	}
	lists := x.listsBelow(near, limit, s)
	if len(lists) < p.amid {
		reach, rowsOf := v.listReach(x.kern, near, p.amid), float64(len(rows))/float64(len(drawn))
		met := 0
		for _, l := range drawn {
			if near[l] < reach {
				met++
			}
		}
		if amid = float64(met)*rowsOf >= p.share*float64(p.amid); amid {
			lists = x.listsBelow(near, reach, s)
		}
	}
	for _, l := range lists {
		v.within[l] = 1
	}
	v.kept = grown(v.kept, len(rows))
	n := x.kern.KeepListed(rows, p.of.list, v.within, v.kept)
	for _, l := range lists {
		v.within[l] = 0
	}
	return v.kept[:n], amid
}

// listsBelow are the lists whose distances are below a limit. They are in s.ivf.places.
func (x *ivf) listsBelow(near []float32, limit float32, s *Scratch) []uint32 {
	v := &s.ivf
	v.places = grown(v.places, len(near)+vec.PlacesRoom)
	return v.places[:x.kern.PlacesBelow(near, limit, v.places)]
}

// drawLists leaves the lists of so many of the rows in s.ivf.drawn, one by lot of each run of them, for rows of several kinds
// may come by turns.
func (x *ivf) drawLists(rows []uint32, n int, of *rowList, s *Scratch) []uint16 {
	s.ivf.drawn = grown(s.ivf.drawn, n)
	step, l := uint64(len(rows))<<32/uint64(max(n, 1)), lot(1)
	for i := range s.ivf.drawn {
		from, to := uint64(i)*step>>32, uint64(i+1)*step>>32
		s.ivf.drawn[i] = of.list[rows[int(from)+l.below(int(to-from))]]
	}
	return s.ivf.drawn
}

// rowsNearest are the rows of the lists nearest to the query by the distances of all of them, or of more where it is amid them.
func (x *ivf) rowsNearest(rows []uint32, near []float32, p *plan, s *Scratch) []uint32 {
	v := &s.ivf
	v.by, v.kept = grown(v.by, len(rows)), grown(v.kept, len(rows))
	by, list := v.by, p.of.list
	for i, row := range rows {
		by[i] = near[list[row]]
	}
	copy(v.kept, rows)
	limit := v.reach(x.kern, by, p.target)
	if p.amid > 0 {
		reach, met := v.listReach(x.kern, near, p.amid), 0
		for _, d := range by {
			if d < reach {
				met++
			}
		}
		if float64(met) >= p.share*float64(p.amid) {
			limit = max(limit, reach)
		}
	}
	n := x.kern.Below(v.kept, by, limit)
	if n < p.enough { // a sample can be wrong
		return rows
	}
	return v.kept[:n]
}

// allRows lists the rows that a filter allows, in no order.
func (x *ivf) allRows(p *plan, s *Scratch) []uint32 {
	return x.rowsOf(p.allowed[:min((x.n+63)/64, len(p.allowed))], 0, p.selected, s)
}

// rowsOf lists the rows that words of a filter allow, of which the first is word first, in no order. They are so
// many at most, or some more that there are not.
func (x *ivf) rowsOf(words []uint64, first, most int, s *Scratch) []uint32 {
	whole := min(len(words), max(x.n/64-first, 0))
	s.ivf.found = grown(s.ivf.found, most+64+vec.PickRoom)
	n := x.kern.PickBits(words[:whole], first, s.ivf.found)
	for w, set := range words[whole:] { // of the last rows, and past them
		for ; set != 0; set &= set - 1 {
			if row := (first+whole+w)<<6 + bits.TrailingZeros64(set); row < x.n {
				s.ivf.found[n] = uint32(row)
				n++
			}
		}
	}
	return s.ivf.found[:n]
}

// coarsest adds rows to the candidates by codes of half a byte, or the upper halves of their fine codes.
func (x *ivf) coarsest(vector []float32, rows []uint32, p *plan, s *Scratch) {
	c, halves := &s.ivf.cands, p.halvesFor(&s.fine)
	for len(rows) > 0 && !s.stopped() {
		ids := rows[:min(len(rows), scanChunk)]
		rows = rows[len(ids):]
		s.stats.Distances += len(ids)
		if halves != nil {
			x.fine.byHalves(halves, ids, s.dist, &s.fine)
		} else {
			x.fine.coarse(&x.space, vector, x.scale(vector), ids, s.dist, s)
		}
		n := len(ids)
		if c.limit < math.MaxFloat32 {
			n = x.kern.Below(ids, s.dist, c.limit)
		}
		for i, row := range ids[:n] {
			c.keys = append(c.keys, vec.Key(s.dist[i], row))
		}
		c.trim(x.kern)
	}
}

// Of centres' short codes where rows are put to lists: how large their codes of a byte are at least for these to drive the filter and the
// lists of rows out of the second cache, and one of how many lists a search reads at most by default: where it reads more, centres are
// much the same distance away and short codes confuse them. shortRows is how many times the rows make up for that.
const (
	shortBytes, shortFew = 1 << 19, 100
	shortRows            = 1.2
)

// byShort reports whether lists of allowed rows are compared by short codes of their centres.
func (x *ivf) byShort() bool {
	return x.lists.short != nil && len(x.lists.codes.panels) > shortBytes && x.effort*shortFew <= x.lists.n
}

// listDistances returns the distance of each list, about.
func (x *ivf) listDistances(s *Scratch) []float32 {
	x.roomForLists(s)
	v := &s.ivf
	if c := x.lists.short; x.byShort() {
		quads := vec.FastScanQuads(c.pq.parts)
		aff := x.forLists(x.tables(c.pq, x.factor(), s), v.length)
		if x.kern.FastScanBelow(c.blocks, quads, len(c.bias)/vec.FastScanBlock, v.lut, c.bias, nil, aff, math.MaxFloat32, v.rows, v.dist) == x.lists.n {
			return v.dist[:x.lists.n]
		}
	}
	sums, aff := x.allLists(s)
	if n := x.kern.SumsBelow(sums, x.lists.codes.bias, aff, math.MaxFloat32, v.rows, v.dist); n == x.lists.n && int(v.rows[n-1]) == n-1 {
		return v.dist[:n]
	}
	for l := range x.lists.n { // numbers too large
		v.dist[l] = float32(sums[l])*aff.Scale + aff.Base + x.lists.codes.bias[l]
	}
	return v.dist[:x.lists.n]
}

// reach returns below which of the values about as many are as are wanted, by a sample: one by lot of each run
// them, for rows of several kinds may come by turns.
func (v *ivfScratch) reach(kern vec.Kernels, values []float32, want int) float32 {
	step, l := max(want/rowsSample, 1), lot(1)
	v.near = v.near[:0]
	for i := 0; i < len(values); i += step {
		v.near = append(v.near, vec.Key(values[min(i+l.below(step), len(values)-1)], 0))
	}
	return v.limitOf(kern, want*len(v.near)/len(values)+1)
}

// drawnReach returns below which distance so many of the lists that were drawn are, and one more.
func (v *ivfScratch) drawnReach(kern vec.Kernels, near []float32, drawn []uint16, want int) float32 {
	v.near = grown(v.near, len(drawn))
	for i, l := range drawn {
		v.near[i] = vec.Key(near[l], 0)
	}
	return v.limitOf(kern, want+1)
}

// listReach returns below which distance so many lists are.
func (v *ivfScratch) listReach(kern vec.Kernels, near []float32, want int) float32 {
	v.near = grown(v.near, len(near))
	for l, d := range near {
		v.near[l] = vec.Key(d, uint32(l))
	}
	return v.limitOf(kern, max(want, 1))
}

// limitOf returns what so many of the distances of the keys in v.near are below.
func (v *ivfScratch) limitOf(kern vec.Kernels, n int) float32 {
	if n >= len(v.near) {
		return math.MaxFloat32
	}
	partition(kern, v.near, n)
	return math.Nextafter32(vec.Unkey(slices.Max(v.near[:n])).Distance, math.MaxFloat32)
}

// lot draws numbers that follow no period of rows (a linear congruential generator, by Numerical Recipes).
type lot uint32

// lotMiddle is from which bit on a number that is drawn has others that are as good as drawn, if few of the upper ones are used.
const lotMiddle = 12

// below draws one from 0 to n-1.
func (l *lot) below(n int) int {
	*l = *l*1664525 + 1013904223
	return int(uint64(*l) * uint64(n) >> 32)
}
